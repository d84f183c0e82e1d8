"""Graphs: models, data modules and tasks for molecules, tables of nodes and edges, citation graphs and point clouds.

Importing this package registers its models; data, tasks and pictures load when they are first asked for.
"""

from importlib import import_module
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
