"""Losses of dense prediction: called with scores (batch, classes, height, width) and class indices of each pixel.

Each is constructed as `SomeLoss(weight, ignore_index)`, so that `model.loss=Lovasz` is enough; a batch without a pixel
that counts gives 0, not NaN. Two classes are background and foreground: a softmax over them is a sigmoid of the
difference of their scores.
"""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from ...kernels.segmentation_loss import segmentation_loss

Scores = Float[Tensor, "batch classes height width"]
Targets = Integer[Tensor, "batch height width"]


@runtime_checkable
class DenseLoss(Protocol):
    """A class or function that builds a loss once the data says what its classes weigh and what is ignored."""

    def __call__(self, *, weight: Tensor | None, ignore_index: int) -> nn.Module: ...


class _DenseLoss(nn.Module):
    """What all have: a weight of each class and the target that counts nowhere."""

    def __init__(self, weight: Tensor | None, ignore_index: int) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.ignore_index = ignore_index

    def present(self, scores: Tensor, targets: Tensor) -> Tensor:
        """1 for each class that some pixel of the batch has, else 0, times the class's weight."""
        counted = targets != self.ignore_index
        found = torch.zeros(scores.shape[1], device=scores.device)
        # Ignored pixels add nothing to the first class; what is no class at all is refused elsewhere.
        labels = targets.where(counted, 0).clamp(max=scores.shape[1] - 1).flatten()
        found = found.scatter_add(0, labels, counted.flatten().to(found)) > 0
        return found.to(torch.float32) if self.weight is None else found * self.weight.float()

    def probabilities(self, scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Softmax and truth (batch, classes, pixels), both 0 where ignored, and which pixels count (batch, pixels)."""
        counted = (targets != self.ignore_index).flatten(1)
        labels = targets.flatten(1).where(counted, 0)
        # Half precision cannot hold the number of pixels of a batch.
        predicted = scores.to(torch.promote_types(scores.dtype, torch.float32)).flatten(2).softmax(1)
        true = F.one_hot(labels, scores.shape[1]).mT.to(predicted)
        return predicted * counted.unsqueeze(1), true * counted.unsqueeze(1), counted


def _mean_of_classes(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean, 0 where nothing has a weight."""
    weight = weight.to(values)
    return (weight * values).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)


class CrossEntropy(_DenseLoss):
    """sum_i w(t_i) H(smooth(t_i), softmax(s_i)) / sum_i w(t_i) over the pixels i that count, H the cross entropy.

    A pixel weighs by its own class, whatever share of a smoothed target smooth(k) = (1 - e) [j = k] + e / classes
    others have.

    Args:
        weight: of each class; None weighs all alike.
        ignore_index: target of pixels that count nowhere.
        label_smoothing: share e of each target spread over all classes (arXiv 1512.00567).
    """

    def __init__(self, weight: Tensor | None = None, ignore_index: int = 255, label_smoothing: float = 0.0) -> None:
        super().__init__(weight, ignore_index)
        self.label_smoothing = label_smoothing

    def forward(self, scores: Scores, targets: Targets) -> Float[Tensor, ""]:
        # Alone it is a third faster by torch's own on the CPU, which alone of all terms has one.
        targets = targets.long()
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        smoothed = {"ignore_index": self.ignore_index, "label_smoothing": self.label_smoothing}
        counted = targets != self.ignore_index
        if self.weight is None:
            return F.cross_entropy(scores, targets, **smoothed, reduction="sum") / counted.sum().clamp(min=1)
        weighed = self.weight[targets.where(counted, 0)].where(counted, 0.0)
        if self.label_smoothing:
            # torch would weigh what smoothing gives to another class by that class.
            total = (weighed * F.cross_entropy(scores, targets, **smoothed, reduction="none")).sum()
        else:
            total = F.cross_entropy(scores, targets, self.weight, **smoothed, reduction="sum")
        mass = weighed.sum()
        return total / mass.clamp(min=torch.finfo(mass.dtype).tiny)


class Focal(_DenseLoss):
    """- sum_i w(t_i) (1 - p_i)^gamma log p_i / sum_i w(t_i), p_i = softmax(s_i)[t_i]: less of what is already right.

    Paper: "Focal Loss for Dense Object Detection", arXiv 1708.02002.

    Args:
        weight: of each class; None weighs all alike.
        ignore_index: target of pixels that count nowhere.
        gamma: how much less; 0 is cross entropy.
    """

    def __init__(self, weight: Tensor | None = None, ignore_index: int = 255, gamma: float = 2.0) -> None:
        super().__init__(weight, ignore_index)
        self.gamma = gamma

    def forward(self, scores: Scores, targets: Targets) -> Float[Tensor, ""]:
        return segmentation_loss(
            scores, targets, self.weight, self.ignore_index, cross_entropy=0.0, dice=0.0, focal=1.0, gamma=self.gamma
        )


class Dice(_DenseLoss):
    """1 - mean_k 2 sum_i p_ik t_ik / (sum_i p_ik + sum_i t_ik), p = softmax(scores), over the classes of the batch.

    Classes that no pixel of the batch has take no part, so that they are not pushed away where they cannot be seen.
    Paper: "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation", arXiv 1606.04797.

    Args:
        weight: of each class in the mean; None weighs all alike.
        ignore_index: target of pixels that count nowhere.
        smooth: added above and below, so that a class of a few pixels does not jump.
    """

    def __init__(self, weight: Tensor | None = None, ignore_index: int = 255, smooth: float = 1.0) -> None:
        super().__init__(weight, ignore_index)
        self.smooth = smooth

    def forward(self, scores: Scores, targets: Targets) -> Float[Tensor, ""]:
        return self.with_cross_entropy(scores, targets, 0.0, 1.0)

    def with_cross_entropy(self, scores: Tensor, targets: Tensor, cross_entropy: float, dice: float) -> Tensor:
        """Both in one pass: without weights, those of the classes the batch has leave the cross entropy as it is."""
        weight = self.present(scores, targets.long())
        nothing = weight.sum() == 0
        loss = segmentation_loss(
            scores,
            targets,
            torch.where(nothing, 1.0, weight),
            self.ignore_index,
            cross_entropy=cross_entropy,
            dice=dice,
            smooth=self.smooth,
            batch_dice=True,
        )
        return torch.where(nothing, 0.0, loss)


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

    def forward(self, scores: Scores, targets: Targets) -> Float[Tensor, ""]:
        if self.cross_entropy.weight is None:
            return self.dice.with_cross_entropy(scores, targets, 1.0, self.factor)
        return self.cross_entropy(scores, targets) + self.factor * self.dice(scores, targets)


class Tversky(_DenseLoss):
    """mean_k (1 - TP_k / (TP_k + alpha FP_k + beta FN_k))^gamma over the classes of the batch, of soft counts

        TP_k = sum_i p_ik t_ik,    FP_k = sum_i p_ik (1 - t_ik),    FN_k = sum_i (1 - p_ik) t_ik

    alpha = beta = 0.5 is Dice; a larger beta misses less. Papers: "Tversky Loss Function for Image Segmentation Using
    3D Fully Convolutional Deep Networks", arXiv 1706.05721; with gamma: "A Novel Focal Tversky Loss Function", arXiv
    1810.07842, whose exponent is 1 / gamma.

    Args:
        weight: of each class in the mean; None weighs all alike.
        ignore_index: target of pixels that count nowhere.
        alpha: weight of what is wrongly found.
        beta: weight of what is missed.
        gamma: below 1 attends to classes that are nearly right, above 1 to those that are not.
        smooth: added above and below, so that a class of a few pixels does not jump.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        smooth: float = 1.0,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.alpha, self.beta, self.gamma, self.smooth = alpha, beta, gamma, smooth

    def forward(self, scores: Scores, targets: Targets) -> Float[Tensor, ""]:
        targets = targets.long()
        predicted, true, _ = self.probabilities(scores, targets)
        found, both = predicted.sum((0, 2)), (predicted * true).sum((0, 2))
        wrong = self.alpha * (found - both) + self.beta * (true.sum((0, 2)) - both)
        lost = wrong / (both + wrong + self.smooth)
        # The root of nothing has no gradient.
        lost = lost if self.gamma == 1 else lost.clamp(min=1e-6) ** self.gamma
        return _mean_of_classes(lost, self.present(scores, targets))


class Lovasz(_DenseLoss):
    """Mean over the classes of the batch of the Lovász extension of 1 - IoU, at the errors m_i = |t_ik - p_ik|:

        sum_j m_(j) (J_j - J_(j-1)),   J_j = 1 - IoU where the j pixels with the largest errors are wrong, J_0 = 0

    The sum runs over the errors in falling order. Paper: "The Lovász-Softmax loss: A tractable surrogate for the
    optimization of the intersection-over-union measure in neural networks", arXiv 1705.08790.

    Args:
        weight: of each class in the mean; None weighs all alike.
        ignore_index: target of pixels that count nowhere.
    """

    def __init__(self, weight: Tensor | None = None, ignore_index: int = 255) -> None:
        super().__init__(weight, ignore_index)

    def forward(self, scores: Scores, targets: Targets) -> Float[Tensor, ""]:
        targets = targets.long()
        predicted, true, counted = self.probabilities(scores, targets)
        predicted, true = (x.transpose(0, 1).flatten(1) for x in (predicted, true))
        errors, order = (predicted - true).abs().sort(dim=1, descending=True)
        inside = true.gather(1, order)
        outside = counted.flatten().to(true).expand_as(true).gather(1, order) - inside
        lost = inside.cumsum(1)
        total = lost[:, -1:]
        # Counts of pixels: a class without one has neither intersection nor union, and no weight below.
        jaccard = 1 - (total - lost) / (total + outside.cumsum(1)).clamp(min=1)
        steps = torch.diff(jaccard, dim=1, prepend=torch.zeros_like(total))
        return _mean_of_classes((errors * steps).sum(1), self.present(scores, targets))


class Boundary(_DenseLoss):
    """region(scores, targets) + factor * mean_ki d_ik (p_ik - t_ik), over pixels that count and classes of the batch:

    d_ik is the signed distance in pixels of pixel i to the boundary of class k in the truth, negative inside, so that a
    pixel costs more the further it is on the wrong side. It grows with distance where region losses stand still, and is
    meant to join one of them. A class that an image does not have, or has everywhere, has no boundary there.
    Paper: "Boundary loss for highly unbalanced segmentation", arXiv 1812.07032 (plus a constant that makes 0 the best).

    Args:
        weight: of each class; None weighs all alike.
        ignore_index: target of pixels that count nowhere; they are of no class.
        factor: of the boundary term.
        region: the loss it joins; None leaves the boundary alone.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        factor: float = 0.01,
        region: DenseLoss | None = CrossEntropy,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.factor = factor
        self.region = None if region is None else region(weight=weight, ignore_index=ignore_index)

    def forward(self, scores: Scores, targets: Targets) -> Float[Tensor, ""]:
        targets = targets.long()
        predicted, true, counted = self.probabilities(scores, targets)
        distances = signed_distances(targets, scores.shape[1]).flatten(2).to(predicted)
        each = (distances * (predicted - true)).sum((0, 2)) / counted.sum().clamp(min=1)
        loss = self.factor * _mean_of_classes(each, self.present(scores, targets))
        return loss if self.region is None else loss + self.region(scores, targets)


@torch.compiler.disable
def signed_distances(targets: Targets, classes: int) -> Float[Tensor, "batch classes height width"]:
    """Distance in pixels of each pixel to the boundary of each class, negative inside, 0 where there is no boundary.

    Distances are those between centres of pixels, to the nearest on the other side: the two at a boundary have 1 and -1
    and the boundary lies between them, at 0.5 from both, which is taken off.
    """
    labels = targets.cpu().numpy()
    found = np.zeros((len(labels), classes, *labels.shape[1:]), np.float32)
    for image, distances in zip(labels, found, strict=True):
        for label in np.unique(image):
            inside = image == label
            if label < classes and not inside.all():
                outwards, inwards = distance_transform_edt(~inside), distance_transform_edt(inside)
                distances[label] = np.where(inside, 0.5 - inwards, outwards - 0.5)
    return torch.from_numpy(found).to(targets.device)
