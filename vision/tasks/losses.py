"""Losses of dense prediction: called with scores (batch, classes, height, width) and class indices of each pixel.

Each is constructed as `SomeLoss(weight, ignore_index)`; a batch without a pixel that counts gives 0, not NaN.
"""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn


@runtime_checkable
class DenseLoss(Protocol):
    """A class or function that builds a loss once the data says what its classes weigh and what is ignored."""

    def __call__(self, *, weight: Tensor | None, ignore_index: int) -> nn.Module: ...


class CrossEntropy(nn.Module):
    """- sum_i w(t_i) log softmax(s_i)[t_i] / sum_i w(t_i) over the pixels i that count.

    Args:
        weight: of each class; None weighs all alike.
        ignore_index: target of pixels that count nowhere.
        label_smoothing: share of each target spread over all classes (arXiv 1512.00567).
    """

    def __init__(self, weight: Tensor | None = None, ignore_index: int = 255, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(
        self,
        scores: Float[Tensor, "batch classes height width"],
        targets: Integer[Tensor, "batch height width"],
    ) -> Float[Tensor, ""]:
        targets = targets.long()
        total = F.cross_entropy(
            scores,
            targets,
            self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        counted = targets != self.ignore_index
        if self.weight is None:
            return total / counted.sum().clamp(min=1)
        mass = self.weight[targets.where(counted, 0)].where(counted, 0.0).sum()
        return total / mass.clamp(min=torch.finfo(mass.dtype).tiny)


class Dice(nn.Module):
    """1 - mean_k 2 sum_i p_ik t_ik / (sum_i p_ik + sum_i t_ik), p = softmax(scores), over the classes of the batch.

    Classes that no pixel of the batch has take no part, so that they are not pushed away where they cannot be seen.
    Paper: "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation", arXiv 1606.04797.

    Args:
        weight: of each class in the mean; None weighs all alike.
        ignore_index: target of pixels that count nowhere.
        smooth: added above and below, so that a class of a few pixels does not jump.
    """

    def __init__(self, weight: Tensor | None = None, ignore_index: int = 255, smooth: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.ignore_index, self.smooth = ignore_index, smooth

    def forward(
        self,
        scores: Float[Tensor, "batch classes height width"],
        targets: Integer[Tensor, "batch height width"],
    ) -> Float[Tensor, ""]:
        classes, targets = scores.shape[1], targets.long()
        counted = (targets != self.ignore_index).unsqueeze(1)
        wanted = F.one_hot(targets.where(counted[:, 0], 0), classes).movedim(-1, 1) * counted
        # Half precision cannot hold the number of pixels of a batch.
        predicted = scores.float().softmax(1) * counted
        both, sizes, present = (
            (predicted * wanted).sum((0, 2, 3)),
            predicted.sum((0, 2, 3)) + wanted.sum((0, 2, 3)),
            (wanted.sum((0, 2, 3)) > 0).float(),
        )
        weight = present if self.weight is None else present * self.weight
        lost = 1 - (2 * both + self.smooth) / (sizes + self.smooth)
        return (weight * lost).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


class CrossEntropyDice(nn.Module):
    """CrossEntropy + dice * Dice: the one tells every pixel what it should be, the other keeps small classes in sight.

    Args:
        weight: of each class, for the cross entropy alone; Dice balances classes by itself.
        ignore_index: target of pixels that count nowhere.
        dice: factor of the Dice loss.
    """

    def __init__(self, weight: Tensor | None = None, ignore_index: int = 255, dice: float = 1.0) -> None:
        super().__init__()
        self.cross_entropy, self.dice, self.factor = CrossEntropy(weight, ignore_index), Dice(None, ignore_index), dice

    def forward(
        self,
        scores: Float[Tensor, "batch classes height width"],
        targets: Integer[Tensor, "batch height width"],
    ) -> Float[Tensor, ""]:
        return self.cross_entropy(scores, targets) + self.factor * self.dice(scores, targets)
