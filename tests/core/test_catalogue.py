"""What is listed without building anything is what is there."""

from importlib.metadata import EntryPoint

from quintet.core import catalogue
from quintet.core.catalogue import MODELS, ModelRow, as_text, listed_models, model_rows
from quintet.core.weights.registry import list_models


def test_the_table_of_models_is_what_the_registry_builds():
    names = [name for name in list_models() if name.split("/")[0] in ("vision", "timeseries")]
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
