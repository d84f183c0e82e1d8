"""Scores of one series and channel in its own units, as tables of backtests list them; masked where y is NaN."""

from collections.abc import Sequence

import numpy as np


def seasonal_scales(values: np.ndarray, period: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute and mean squared difference of rows one season apart, by channel; NaN without two such rows.

    They are what MASE and RMSSE divide by. Reference: Hyndman and Koehler, "Another look at measures of forecast
    accuracy", 2006.

    Args:
        values: rows of training (T, C), NaN where nothing was observed.
        period: steps in a season.
    """
    if len(values) <= period:
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing
    differences = np.abs(values[period:] - values[:-period])
    counts = (~np.isnan(differences)).sum(0)
    counts = np.where(counts, counts, np.nan)
    return np.nansum(differences, axis=0) / counts, np.nansum(differences**2, axis=0) / counts


def point_scores(truth: np.ndarray, forecast: np.ndarray, absolute: float, squared: float) -> dict[str, float]:
    """mae, mse, rmse, smape in percent, mase, rmsse; NaN for the scaled ones where the scale is 0 or unknown.

    Args:
        truth: y, NaN where nothing was observed.
        forecast: of the same shape.
        absolute: what MASE divides by.
        squared: what RMSSE divides by before its root.
    """
    counted = ~np.isnan(truth)
    truth, forecast = truth[counted], forecast[counted]
    if not len(truth):
        return dict.fromkeys(("mae", "mse", "rmse", "smape", "mase", "rmsse"), np.nan)
    errors, size = np.abs(truth - forecast), np.abs(truth) + np.abs(forecast)
    mae, mse = float(errors.mean()), float((errors**2).mean())
    return {
        "mae": mae,
        "mse": mse,
        "rmse": mse**0.5,
        "smape": float((200 * errors / np.where(size > 0, size, 1.0)).mean()),
        "mase": mae / absolute if absolute > 0 else np.nan,
        "rmsse": (mse / squared) ** 0.5 if squared > 0 else np.nan,
    }


def quantile_scores(truth: np.ndarray, quantiles: np.ndarray, levels: Sequence[float]) -> dict[str, float]:
    """pinball and wql (means over levels), coverage and width of the widest interval.

    Args:
        truth: y (n), NaN where nothing was observed.
        quantiles: (n, levels).
        levels: rising.
    """
    counted = ~np.isnan(truth)
    truth, quantiles = truth[counted], quantiles[counted]
    if not len(truth):
        return dict.fromkeys(("pinball", "wql", "coverage", "width"), np.nan)
    errors = truth[:, None] - quantiles
    loss = np.maximum(np.asarray(levels) * errors, (np.asarray(levels) - 1) * errors).mean()
    size, low, high = np.abs(truth).mean(), quantiles[:, 0], quantiles[:, -1]
    return {
        "pinball": float(loss),
        "wql": float(2 * loss / size) if size > 0 else np.nan,
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
        "width": float((high - low).mean()),
    }
