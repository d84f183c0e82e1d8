"""What differs where an image may have several classes, or none: each class is a yes or no of its own."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MultilabelAccuracy,
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
)

from ...core.learning.metrics import collection
from ..data.images import ImageDescription

THRESHOLD = 0.5  # probability above which an image is said to have a class


def class_odds(description: ImageDescription) -> Float[Tensor, " classes"]:
    """Training images without each class for one that has it: what "balanced" weighs a positive by."""
    counts = torch.tensor(description.class_counts, dtype=torch.float32)
    return (description.training_images - counts) / counts.clamp(min=1)


def multilabel_metrics(classes: int) -> MetricCollection:
    """Means over the classes of average precision and F1, the share of right yes and no, and of images all right."""
    return collection(
        {
            "mean_average_precision": MultilabelAveragePrecision(classes),
            "f1": MultilabelF1Score(classes, average="macro", threshold=THRESHOLD),
            "accuracy": MultilabelAccuracy(classes, average="micro", threshold=THRESHOLD),
            "exact_match": MultilabelExactMatch(classes, threshold=THRESHOLD),
        }
    )


def class_metrics(classes: int) -> MetricCollection:
    """Average precision and F1 of each class."""
    return collection(
        {
            "average_precision": MultilabelAveragePrecision(classes, average="none"),
            "f1": MultilabelF1Score(classes, average="none", threshold=THRESHOLD),
        }
    )


def named(chosen: Tensor, classes: Sequence[str], separator: str = ";") -> str:
    """The classes that a row of yes and no names."""
    return separator.join(name for name, has in zip(classes, chosen.tolist(), strict=True) if has)
