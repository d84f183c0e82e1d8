"""Metrics of point forecasts: means over all that was observed, which is where the target is not NaN."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric


class ForecastMetric(Metric):
    """mean of error(y, ŷ) over the observed targets; NaN before any.

    Args:
        point: which of the outputs of a step is the point forecast ŷ.
    """

    full_state_update = False

    def __init__(self, point: int = 0) -> None:
        super().__init__()
        self.point = point
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        predictions: Float[Tensor, "batch horizon channels outputs"],
        targets: Float[Tensor, "batch horizon channels"],
    ) -> None:
        self._add(self.errors(predictions[..., self.point], targets), targets)

    def errors(self, point: Tensor, targets: Tensor) -> Tensor:
        """The error of each target."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        return self.total / self.count.where(self.count > 0, torch.nan)

    def _add(self, errors: Tensor, targets: Tensor) -> None:
        # To the CPU where a device has no float64, and nowhere else: that is where the sums are then.
        errors, targets = errors.to(self.total.device), targets.to(self.total.device)
        counted = targets.isfinite()
        # Zeros for what does not count: picking out what does takes ten times as long.
        self.total += torch.where(counted, errors, 0.0).sum(dtype=torch.float64)
        self.count += counted.sum()


class AbsoluteError(ForecastMetric):
    """MAE: |y - ŷ|."""

    def errors(self, point: Tensor, targets: Tensor) -> Tensor:
        return (targets - point).abs()


class SquaredError(ForecastMetric):
    """MSE: (y - ŷ)²."""

    def errors(self, point: Tensor, targets: Tensor) -> Tensor:
        return (targets - point).square()


class RootSquaredError(SquaredError):
    """RMSE: the square root of the mean of (y - ŷ)²."""

    def compute(self) -> Tensor:
        return super().compute().sqrt()


class SymmetricPercentageError(ForecastMetric):
    """sMAPE in percent: 200 |y - ŷ| / (|y| + |ŷ|) in the user's units, 0 where both are 0.

    Reference: Makridakis et al., "The M4 Competition: 100,000 time series and 61 forecasting methods", 2020.

    Args:
        mean: of each channel, to bring scaled values back.
        std: of each channel.
        point: which of the outputs of a step is the point forecast.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], point: int = 0) -> None:
        super().__init__(point)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64), persistent=False)

    def errors(self, point: Tensor, targets: Tensor) -> Tensor:
        point, targets = (part.to(self.std.device).double() * self.std + self.mean for part in (point, targets))
        size = point.abs() + targets.abs()
        return 200 * (targets - point).abs() / size.where(size > 0, 1.0)


class ScaledError(ForecastMetric):
    """MASE: |y - ŷ| over the mean absolute difference of training rows one season apart.

    Targets of a series and channel whose training rows repeat each season exactly have no scale and are left out.
    Reference: Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006.
    """

    def update(
        self,
        predictions: Float[Tensor, "batch horizon channels outputs"],
        targets: Float[Tensor, "batch horizon channels"],
        seasonal_error: Float[Tensor, "batch channels"],
    ) -> None:
        scale = seasonal_error.where(seasonal_error > 0, torch.nan)[:, None]
        scaled = (targets - predictions[..., self.point]).abs() / scale
        self._add(scaled, targets + 0 * scale)


class ErrorByStep(Metric):
    """Mean absolute error of each step and channel (H, C), in the units of the targets.

    Args:
        horizon: number of steps.
        channels: number of channels.
        point: which of the outputs of a step is the point forecast.
    """

    full_state_update = False

    def __init__(self, horizon: int, channels: int, point: int = 0) -> None:
        super().__init__()
        self.point = point
        shape = horizon, channels
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        predictions: Float[Tensor, "batch horizon channels outputs"],
        targets: Float[Tensor, "batch horizon channels"],
    ) -> None:
        counted = targets.isfinite().to(self.total.device)
        errors = (targets - predictions[..., self.point]).abs().to(self.total.device).double()
        self.total += errors.where(counted, 0.0).sum(0)
        self.count += counted.sum(0)

    def compute(self) -> Float[Tensor, "horizon channels"]:
        return self.total / self.count.where(self.count > 0, torch.nan)
