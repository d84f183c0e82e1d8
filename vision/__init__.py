"""Image classification and segmentation: models, the data modules `Digits`, `ImageFolder` and `MaskFolder`, the tasks
`ImageClassifier`, `SemanticSegmenter` and `FeatureExtractor`.

Importing this package registers its models, also with timm, as `quintet_<name>`, once that is imported; data, tasks and
pictures load when they are first asked for.
"""

from importlib import import_module
from typing import Any

from . import models

_HOMES = {
    "ImageClassifier": "tasks",
    "ImagePredictions": "tasks",
    "FeatureExtractor": "tasks",
    "SemanticSegmenter": "tasks",
    "MaskPredictions": "tasks",
    "Digits": "data",
    "ImageFolder": "data",
    "ImageDescription": "data",
    "MaskFolder": "data",
    "MaskDescription": "data",
}

__all__ = ["models", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
