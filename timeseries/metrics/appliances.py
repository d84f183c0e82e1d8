"""Metrics of load disaggregation, in the user's units: of one appliance, or the mean of all.

Negative estimates count as 0, as they are written: an appliance does not feed in.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric


class ApplianceMetric(Metric):
    """A ratio of two sums over the observed rows of each appliance; NaN before any.

    Args:
        scale: what power is divided by, of each appliance.
        appliance: which is measured; None takes the mean of all that can be.
    """

    full_state_update = False

    def __init__(self, scale: Sequence[float], appliance: int | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(list(scale), dtype=torch.float64), persistent=False)
        self.appliance = appliance
        for name in ("above", "below"):
            self.add_state(name, torch.zeros(len(scale), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, predictions: Float[Tensor, "batch time appliances"], targets: Float[Tensor, "batch time appliances"]
    ) -> None:
        # To the CPU where a device has no float64, and nowhere else: that is where the sums are then.
        predictions, targets = predictions.to(self.above.device), targets.to(self.above.device)
        counted = targets.isfinite()
        estimate = predictions.double().clamp(min=0) * self.scale
        truth = targets.double().nan_to_num(0.0) * self.scale
        for state, part in zip((self.above, self.below), self.parts(estimate, truth), strict=True):
            state += part.masked_fill(~counted, 0.0).sum((0, 1))

    def parts(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """What is summed above and below the fraction line."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        ratios = self.ratio()
        return ratios.nanmean() if self.appliance is None else ratios[self.appliance]

    def ratio(self) -> Tensor:
        """above / below of each appliance."""
        return self.above / self.below.where(self.below > 0, torch.nan)


class PowerError(ApplianceMetric):
    """MAE: sum |y - ŷ| / rows."""

    def parts(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        return (estimate - truth).abs(), torch.ones_like(truth)


class RootPowerError(ApplianceMetric):
    """RMSE: sqrt(sum (y - ŷ)² / rows)."""

    def parts(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        return (estimate - truth).square(), torch.ones_like(truth)

    def ratio(self) -> Tensor:
        return super().ratio().sqrt()


class MatchingRatio(ApplianceMetric):
    """MR: sum min(y, ŷ) / sum max(y, ŷ), 1 where they agree and 0 where they never meet.

    Paper: "Performance evaluation in non-intrusive load monitoring: Datasets, metrics, and tools", WIREs Data Mining
    and Knowledge Discovery 8(6), 2018.
    """

    def parts(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        truth = truth.clamp(min=0)
        return torch.minimum(estimate, truth), torch.maximum(estimate, truth)


class RunningF1(ApplianceMetric):
    """F1 of running: 2 TP / (2 TP + FP + FN), where an appliance runs from its threshold on.

    Args:
        scale: what power is divided by, of each appliance.
        thresholds: of each appliance, in the user's units.
        appliance: which is measured; None takes the mean of all that can be.
    """

    def __init__(self, scale: Sequence[float], thresholds: Sequence[float], appliance: int | None = None) -> None:
        super().__init__(scale, appliance)
        self.register_buffer("thresholds", torch.tensor(list(thresholds), dtype=torch.float64), persistent=False)

    def parts(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        said, true = (power >= self.thresholds for power in (estimate, truth))
        return 2.0 * (said & true).double(), said.double() + true.double()


class MeanLoad(ApplianceMetric):
    """The mean estimate of each appliance over the rows where its load was observed."""

    def parts(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        return estimate, torch.ones_like(truth)

    def compute(self) -> Tensor:
        return self.ratio()
