"""What `quintet list` prints, kept beside the code: counting the parameters of every model takes seconds.

    python -m quintet.core.catalogue        writes the tables anew

The tables are written from the registry and a test compares them with it. Models of other packages, which announce
themselves through the entry-point group `quintet.domains`, are asked for when they are listed.
"""

import csv
import json
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib.metadata import entry_points
from importlib.resources import files
from io import StringIO
from typing import NamedTuple

HERE = __package__
OWN = HERE.split(".")[0]
MODELS = "models.tsv"
MIXERS = "mixers.tsv"
AXES = {1: "sequences", 2: "images", 3: "volumes"}


class ModelRow(NamedTuple):
    """A model as it is listed; `pretrained` are the tags of its published weights, one a line."""

    name: str
    parameters: str
    pretrained: str
    what: str


class MixerRow(NamedTuple):
    """A mixer as it is listed; `node` is its class with its part, as checkpoints and configurations name it."""

    name: str
    what: str
    grids: str
    causal: str
    streaming: str
    cost: str
    node: str


def listed_mixers(pattern: str = "*") -> list[MixerRow]:
    """Mixers whose names match a shell wildcard: those of the table, and what other code has registered since."""
    rows = [MixerRow(*row) for row in _read(MIXERS)]
    registry = sys.modules.get(f"{OWN}.core.weights.registry")
    others = registry.mixers_so_far() - {row.name for row in rows} if registry else ()
    rows += mixer_rows(sorted(others))
    return sorted((row for row in rows if fnmatch(row.name, pattern)), key=lambda row: row.name)


def mixer_rows(names: Iterable[str]) -> list[MixerRow]:
    """What is to be listed of registered mixers."""
    if not (names := list(names)):
        return []
    from ..weights.described import description_of
    from ..weights.registry import mixer_class, mixer_factory, mixer_summary

    rows = []
    for name in names:
        mixer, node = mixer_class(name), json.dumps(description_of(mixer_factory(name)))
        grids = ", ".join(AXES[rank] for rank in sorted(mixer.grid_ranks))
        flags = ["yes" if flag else "-" for flag in (mixer.causal, mixer.streaming)]
        rows.append(MixerRow(name, mixer_summary(name), grids, *flags, "n" if mixer.subquadratic else "n²", node))
    return rows


def listed_models(pattern: str = "*") -> list[ModelRow]:
    """Models whose names match a shell wildcard, with or without their domain."""
    rows = [ModelRow(*row) for row in _read(MODELS)] + _models_of_others()
    matching = (row for row in rows if fnmatch(row.name, pattern) or fnmatch(row.name.split("/")[-1], pattern))
    return sorted(matching, key=lambda row: row.name)


def model_rows(names: Iterable[str]) -> list[ModelRow]:
    """What is to be listed of registered models, which are built without memory for their numbers."""
    import torch

    from ..weights.registry import count_parameters, model_entry

    rows = []
    for entry in map(model_entry, names):
        with torch.device("meta"):
            count = count_parameters(entry.build())
        rows.append(ModelRow(entry.name, f"{count / 1e6:.2f} M", " ".join(entry.pretrained) or "-", entry.summary))
    return rows


def _models_of_others() -> list[ModelRow]:
    """Models of domains that other packages bring; imports nothing where there are none."""
    domains = [domain for domain in entry_points(group="quintet.domains") if domain.value.split(".")[0] != OWN]
    if not domains:
        return []
    from ..weights.registry import list_models

    here = {row[0] for row in _read(MODELS)}
    return model_rows(name for name in list_models() if name not in here)


def _read(table: str) -> list[list[str]]:
    text = files(HERE).joinpath(table).read_text(encoding="utf-8")
    return list(csv.reader(text.splitlines(), delimiter="\t"))[1:]


def as_text(rows: Iterable[tuple[str, ...]], columns: tuple[str, ...]) -> str:
    """Rows as the text of a table whose values are separated by tabs."""
    buffer = StringIO()
    csv.writer(buffer, delimiter="\t", lineterminator="\n").writerows([columns, *rows])
    return buffer.getvalue()
