"""Metrics of forecasts, masked where nothing was observed; all take (predictions, targets) of the same windows."""

from .points import (
    AbsoluteError,
    ErrorByStep,
    ForecastMetric,
    RootSquaredError,
    ScaledError,
    SquaredError,
    SymmetricPercentageError,
)
from .quantiles import Coverage, IntervalWidth, PinballLoss, WeightedQuantileLoss

__all__ = [
    "AbsoluteError",
    "Coverage",
    "ErrorByStep",
    "ForecastMetric",
    "IntervalWidth",
    "PinballLoss",
    "RootSquaredError",
    "ScaledError",
    "SquaredError",
    "SymmetricPercentageError",
    "WeightedQuantileLoss",
]
