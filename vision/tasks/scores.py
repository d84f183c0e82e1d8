"""What is measured of a segmentation, all from one confusion matrix; classes that occur nowhere are left out of means.

Rows of the matrix are true classes, columns predicted ones. A class that neither truth nor prediction holds has no
score: it is NaN, and no part of a mean. Sums of matrices are exact over batches and processes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


def class_iou(confusion: Int[Tensor, "classes classes"]) -> Float[Tensor, " classes"]:
    """Intersection over union of each class, NaN where both are empty."""
    both, true, predicted = _areas(confusion)
    return both / (true + predicted - both)


def class_dice(confusion: Int[Tensor, "classes classes"]) -> Float[Tensor, " classes"]:
    """Dice score 2 |A and B| / (|A| + |B|) of each class, NaN where both are empty."""
    both, true, predicted = _areas(confusion)
    return 2 * both / (true + predicted)


def pixel_accuracy(confusion: Int[Tensor, "classes classes"]) -> Float[Tensor, ""]:
    """Share of the pixels that are right; NaN where there are none."""
    return confusion.diagonal().sum().double() / confusion.sum()


def confusion_of(
    predicted: Int[Tensor, " pixels"], true: Int[Tensor, " pixels"], classes: int
) -> Int[Tensor, "classes classes"]:
    """Counts of pixels by true class (rows) and predicted class (columns)."""
    return torch.bincount(true * classes + predicted, minlength=classes**2).view(classes, classes)


def _areas(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    counts = confusion.double()
    return counts.diagonal(), counts.sum(1), counts.sum(0)


class ConfusionScore(MulticlassConfusionMatrix):
    """A number from the confusion matrix; a collection of them keeps a single matrix.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, validate_args=False)

    def compute(self) -> Tensor:
        return self.score(self.confmat).float()

    def score(self, confusion: Tensor) -> Tensor:
        raise NotImplementedError


class MeanIoU(ConfusionScore):
    """Mean over the classes that occur of intersection over union."""

    def score(self, confusion: Tensor) -> Tensor:
        return class_iou(confusion).nanmean()


class MeanDice(ConfusionScore):
    """Mean over the classes that occur of the Dice score."""

    def score(self, confusion: Tensor) -> Tensor:
        return class_dice(confusion).nanmean()


class PixelAccuracy(ConfusionScore):
    """Share of the pixels that are right."""

    def score(self, confusion: Tensor) -> Tensor:
        return pixel_accuracy(confusion)


class ForegroundIoU(ConfusionScore):
    """Intersection over union of the second of two classes."""

    def score(self, confusion: Tensor) -> Tensor:
        return class_iou(confusion)[1]
