"""Graphs: models, data modules and tasks for molecules, tables of nodes and edges, citation graphs and point clouds.

Importing this package registers its models; data, tasks and pictures load when they are first asked for.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from . import models

_HOMES = {
    "GraphClassifier": "tasks.classification",
    "GraphDescription": "data.description",
    "GraphFeatures": "tasks.features",
    "GraphFiles": "data.many_graphs",
    "GraphLinks": "data.graph_links",
    "GraphNodes": "data.graph_nodes",
    "GraphPredictions": "tasks.predictions",
    "GraphRegressor": "tasks.regression",
    "GraphStore": "data.store",
    "LinkPredictor": "tasks.links",
    "Molecules": "data.molecules",
    "NodeClassifier": "tasks.nodes",
}

__all__ = ["models", *_HOMES]

# Of the names of files that hold graphs or molecules: their endings, and how Planetoid's begin.
_TABLES = (".csv", ".tsv", ".tab", ".txt", ".parquet")
_ENDINGS = (*_TABLES, ".smi", ".smiles", ".cxsmiles", ".sdf", ".sd", ".graphml", ".gexf", ".edgelist", ".edges", ".el")
_SAVED, _PLANETOID = (".pt", ".pth"), "ind."


def could_hold(path: Path) -> bool:
    """Whether a file or folder of the user's could be read here, by names alone: nothing that reads is imported."""
    names = [path.name] if path.is_file() else [inside.name for inside in path.iterdir()]
    plain = (name.lower().removesuffix(".gz") for name in names)
    return any(name.endswith((*_ENDINGS, *_SAVED)) or name.startswith(_PLANETOID) for name in plain)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
