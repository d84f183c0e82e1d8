"""Measures of yes and no, several labels side by side, some of them unknown (NaN).

A label of which the data know only yes or only no has no ROC-AUC and no average precision: it is NaN, and the mean of
the labels leaves it out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from ...core.learning.metrics import collection

THRESHOLD = 0.5  # probability above which a label is said to hold


def roc_auc(scores: Float[Tensor, " samples"], positive: Bool[Tensor, " samples"]) -> Tensor:
    """Chance that a yes scores above a no, ties counting half: (sum of ranks of yes - n1 (n1 + 1) / 2) / (n1 n0)."""
    ones = positive.sum().double()
    zeros = len(positive) - ones
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2.0).double()[place]
    pairs = ones * zeros
    return (ranks[positive].sum() - ones * (ones + 1) / 2) / pairs.where(pairs > 0, torch.nan)


def average_precision(scores: Float[Tensor, " samples"], positive: Bool[Tensor, " samples"]) -> Tensor:
    """sum_k (R_k - R_{k-1}) P_k over the distinct scores from the highest down; NaN without a yes or without a no."""
    _, place, counts = (-scores).unique(return_inverse=True, return_counts=True)
    hits = torch.zeros(len(counts), dtype=torch.float64, device=scores.device).index_add_(0, place, positive.double())
    found, ones = hits.cumsum(0), positive.sum().double()
    both = (ones > 0) & (ones < len(positive))
    return ((hits * found / counts.cumsum(0)).sum() / ones.clamp(min=1)).where(both, torch.nan)


def f1_score(scores: Float[Tensor, " samples"], positive: Bool[Tensor, " samples"]) -> Tensor:
    """2 tp / (2 tp + fp + fn), 0 where nothing is and nothing is said to be."""
    said = scores > THRESHOLD
    return 2.0 * (said & positive).sum().double() / (said.sum() + positive.sum()).clamp(min=1)


def accuracy(scores: Float[Tensor, " samples"], positive: Bool[Tensor, " samples"]) -> Tensor:
    """Share of right yes and no."""
    return ((scores > THRESHOLD) == positive).double().mean()


MEASURES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "f1": f1_score,
    "accuracy": accuracy,
}


def of_each_label(
    measure: Callable[[Tensor, Tensor], Tensor],
    probabilities: Float[Tensor, "samples labels"],
    targets: Shaped[Tensor, "samples ..."],
) -> Float[Tensor, " labels"]:
    """A measure of each label over the samples that know it.

    Args:
        measure: of scores and truths.
        probabilities: of a yes.
        targets: 1, 0 or NaN; or the number of one class a sample, -1 where unknown: each class is a label then.
    """
    if targets.ndim == 1:
        classes = torch.arange(probabilities.shape[1], device=targets.device)
        targets = (targets[:, None] == classes).float().masked_fill(targets[:, None] < 0, torch.nan)
    columns = []
    for scores, truth in zip(probabilities.T, targets.T, strict=True):
        known = truth.isfinite()
        nothing = scores.new_tensor(torch.nan, dtype=torch.float64)
        columns.append(measure(scores[known], truth[known] > 0.5) if known.any() else nothing)
    return torch.stack(columns)


class LabelMetric(Metric):
    """A measure of yes and no over all that was seen: the mean of the labels, or one of them.

    Args:
        measure: its name, a key of `MEASURES`.
        label: which is measured; None takes the mean of all that can be.
    """

    full_state_update = False

    def __init__(self, measure: str, label: int | None = None) -> None:
        super().__init__()
        self.measure, self.label = measure, label
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(
        self, predictions: Float[Tensor, "graphs labels"], targets: Shaped[Tensor, "graphs ..."], **_: Any
    ) -> None:
        self.probabilities.append(predictions.float())
        self.targets.append(targets)

    def compute(self) -> Tensor:
        seen, truth = dim_zero_cat(self.probabilities), dim_zero_cat(self.targets)
        if self.label is not None:
            seen, truth = seen[:, [self.label]], truth[:, [self.label]]
        return of_each_label(MEASURES[self.measure], seen, truth).nanmean()


def label_metrics(label: int | None = None) -> MetricCollection:
    """ROC-AUC, average precision, F1 and accuracy of one label, or the means of all."""
    return collection({name: LabelMetric(name, label) for name in MEASURES}, [list(MEASURES)])


def label_area(predictions: Tensor, targets: Tensor) -> float:
    """ROC-AUC as the metric of this name says it of a whole test."""
    metric = LabelMetric("roc_auc")
    metric.update(predictions, targets)
    return float(metric.compute())
