"""What is listed without building anything is what is there."""

import re
from importlib.metadata import EntryPoint

import pytest

from quintet.core import catalogue
from quintet.core.catalogue import (
    MIXERS,
    MODELS,
    MixerRow,
    ModelRow,
    as_text,
    listed_mixers,
    listed_models,
    mixer_rows,
    model_rows,
)
from quintet.core.weights.registry import list_mixers, list_models, mixer_part


def test_the_table_of_models_is_what_the_registry_builds():
    names = [name for name in list_models() if name.split("/")[0] in ("graphs", "timeseries", "vision")]
    kept = catalogue.files(catalogue.HERE).joinpath(MODELS).read_text(encoding="utf-8")
    assert kept == as_text(model_rows(names), ModelRow._fields), "python -m quintet.core.catalogue writes it anew"


def test_models_are_found_with_and_without_their_domain():
    assert [row.name for row in listed_models("vit_tiny")] == ["vision/vit_tiny"]
    assert [row.parameters for row in listed_models("vision/vit_tiny")] == ["5.72 M"]  # of the paper
    assert listed_models("nothing") == []


def test_models_of_another_package_are_listed_beside_ours(monkeypatch):
    other = EntryPoint("other", "other_package", "quintet.domains")
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [other])
    monkeypatch.setattr("quintet.core.weights.registry.list_models", lambda: ["vision/vit_tiny", "other/one"])
    row = ModelRow("other/one", "1.00 M", "-", "One.")
    monkeypatch.setattr(catalogue, "model_rows", lambda names: [row for name in names if name == "other/one"])
    assert listed_models("other/*") == [row]
    assert listed_models("vit_tiny")[0].name == "vision/vit_tiny"


def test_the_table_of_mixers_is_what_the_registry_has():
    own = [name for name in list_mixers() if mixer_part(name).__module__.startswith("quintet.core.")]
    kept = catalogue.files(catalogue.HERE).joinpath(MIXERS).read_text(encoding="utf-8")
    assert kept == as_text(mixer_rows(own), MixerRow._fields), "python -m quintet.core.catalogue writes it anew"


@pytest.mark.parametrize("row", listed_mixers(), ids=lambda row: row.name)
def test_every_mixer_says_what_it_is_and_who_wrote_of_it(row):
    part = mixer_part(row.name)
    assert ":" in row.what
    assert len(row.what) <= 110
    assert re.search(r", arXiv \d{4}\.\d{5}$", part.paper)
    assert part.paper.split("arXiv ")[1] in part.__doc__
