"""Errors of predicted numbers, several targets side by side, some of them unknown (NaN).

Of one target errors are in the user's units. The mean of several takes each in units of its standard deviation over the
training rows, since solubilities and temperatures have no mean.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from ...core.learning.metrics import collection

STATES = ("count", "absolute", "squared", "sums", "squares")


class TargetMetric(Metric):
    """Sums over the known values of each target, of standardised predictions and truths; NaN before any.

    Args:
        scale: standard deviation of each target, by which it was divided.
        target: which is measured, in the user's units; None takes the mean of all that can be.
    """

    full_state_update = False

    def __init__(self, scale: Sequence[float], target: int | None = None) -> None:
        super().__init__()
        target = 0 if target is None and len(scale) == 1 else target
        self.register_buffer("scale", torch.tensor(list(scale), dtype=torch.float64), persistent=False)
        self.target = target
        for name in STATES:
            self.add_state(name, torch.zeros(len(scale), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Float[Tensor, "graphs targets"], targets: Float[Tensor, "graphs targets"]) -> None:
        device = self.count.device
        truth, estimate = targets.to(device).double(), predictions.to(device).double()
        known = truth.isfinite()
        truth = truth.nan_to_num(0.0)
        errors = (estimate - truth).masked_fill(~known, 0.0)
        parts = (known.double(), errors.abs(), errors.square(), truth, truth.square())
        for name, part in zip(STATES, parts, strict=True):
            setattr(self, name, getattr(self, name) + part.masked_fill(~known, 0.0).sum(0))

    def compute(self) -> Tensor:
        values = self.of_each(self.count.where(self.count > 0, torch.nan))
        return values.nanmean() if self.target is None else self.in_units(values)[self.target]

    def of_each(self, count: Float[Tensor, " targets"]) -> Float[Tensor, " targets"]:
        """The measure of each target, standardised."""
        raise NotImplementedError

    def in_units(self, values: Float[Tensor, " targets"]) -> Float[Tensor, " targets"]:
        """The same in the user's units."""
        return values * self.scale.to(values.device)


class MeanError(TargetMetric):
    """MAE: sum |y - ŷ| / n."""

    def of_each(self, count: Tensor) -> Tensor:
        return self.absolute / count


class RootMeanError(TargetMetric):
    """RMSE: sqrt(sum (y - ŷ)² / n)."""

    def of_each(self, count: Tensor) -> Tensor:
        return (self.squared / count).sqrt()


class Explained(TargetMetric):
    """R² = 1 - sum (y - ŷ)² / sum (y - mean(y))², NaN where the truth never changes."""

    def of_each(self, count: Tensor) -> Tensor:
        spread = self.squares - self.sums.square() / count
        return 1 - self.squared / spread.where(spread > 1e-12 * count, torch.nan)

    def in_units(self, values: Tensor) -> Tensor:
        return values


MEASURES: Mapping[str, type[TargetMetric]] = {"mae": MeanError, "rmse": RootMeanError, "r2": Explained}


def error_metrics(scale: Sequence[float], target: int | None = None) -> MetricCollection:
    """MAE, RMSE and R² of one target, or the means of all."""
    return collection({name: measure(scale, target) for name, measure in MEASURES.items()}, [list(MEASURES)])
