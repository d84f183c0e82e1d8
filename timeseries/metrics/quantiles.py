"""Metrics of quantile forecasts, masked where nothing was observed."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .points import ForecastMetric


def pinball(
    predictions: Float[Tensor, "*windows outputs"],
    targets: Float[Tensor, "*windows"],
    levels: Float[Tensor, " outputs"],
) -> Float[Tensor, "*windows outputs"]:
    """max(q e, (q - 1) e) with e = y - ŷ, of each level q: least, in the mean, at the q-quantile.

    Reference: Koenker and Bassett, "Regression Quantiles", 1978.
    """
    errors = targets.unsqueeze(-1) - predictions
    return torch.maximum(levels * errors, (levels - 1) * errors)


class PinballLoss(ForecastMetric):
    """Mean of `pinball` over targets and levels.

    Args:
        levels: of the quantiles, in the order of the outputs.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def update(
        self,
        predictions: Float[Tensor, "batch horizon channels outputs"],
        targets: Float[Tensor, "batch horizon channels"],
    ) -> None:
        self._add(pinball(predictions, targets, self.levels.to(predictions.dtype)).mean(-1), targets)


class Coverage(ForecastMetric):
    """Share of the targets between the lowest and the highest quantile; at best the difference of their levels."""

    def update(
        self,
        predictions: Float[Tensor, "batch horizon channels outputs"],
        targets: Float[Tensor, "batch horizon channels"],
    ) -> None:
        self._add((predictions[..., 0] <= targets) & (targets <= predictions[..., -1]), targets)


class WeightedQuantileLoss(ForecastMetric):
    """wQL: 2 Σ pinball / Σ |y| of each level in the user's units, averaged over levels; NaN where all targets are 0.

    With many levels this is the continuous ranked probability score over the mean size of the targets, which is what
    benchmarks of forecasts call CRPS. Reference: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and
    Estimation", 2007.

    Args:
        levels: of the quantiles, in the order of the outputs.
        mean: of each channel, to bring scaled values back.
        std: of each channel.
    """

    def __init__(self, levels: Sequence[float], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("levels", levels), ("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)
        self.add_state("size", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        predictions: Float[Tensor, "batch horizon channels outputs"],
        targets: Float[Tensor, "batch horizon channels"],
    ) -> None:
        predictions, targets = predictions.to(self.total.device), targets.to(self.total.device)
        targets = targets.double() * self.std + self.mean
        predictions = predictions.double() * self.std[:, None] + self.mean[:, None]
        self._add(2 * pinball(predictions, targets, self.levels).mean(-1), targets)
        self.size += targets.abs().nansum()

    def compute(self) -> Tensor:
        return self.total / self.size.where(self.size > 0, torch.nan)


class IntervalWidth(ForecastMetric):
    """Mean distance between the lowest and the highest quantile where a target was observed, in its units."""

    def update(
        self,
        predictions: Float[Tensor, "batch horizon channels outputs"],
        targets: Float[Tensor, "batch horizon channels"],
    ) -> None:
        self._add(predictions[..., -1] - predictions[..., 0], targets)
