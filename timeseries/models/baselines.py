"""The two forecasts any model must beat to be worth its cost: the last season again, and a linear map."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def seasonal_naive(
    values: Float[Tensor, "batch time channels"], horizon: int, period: int
) -> Float[Tensor, "batch horizon channels"]:
    """y[t + h] = x[t + h - k period] with the smallest k that lies in the past and was observed (not NaN).

    A season longer than the window is taken as one step, the last value again; a step of the season that the window
    never shows is the mean of what it shows. Reference: Hyndman and Athanasopoulos, "Forecasting: Principles and
    Practice", section 5.2.
    """
    period = period if period <= values.shape[1] else 1
    season = values[:, values.shape[1] - period :]
    for end in range(values.shape[1] - period, 0, -period):
        if not season.isnan().any():
            break
        earlier = values[:, max(0, end - period) : end]
        earlier = torch.cat([season[:, : period - earlier.shape[1]], earlier], dim=1)
        season = torch.where(season.isnan(), earlier, season)
    season = torch.where(season.isnan(), values.nanmean(1, keepdim=True), season)
    repeats = -(-horizon // period)
    return season.repeat(1, repeats, 1)[:, :horizon]


class RidgeForecaster(nn.Module):
    """y = mean(x) + (x - mean(x)) W, one map from window to horizon for all channels, in closed form.

    W = (XᵀX + penalty n I)⁻¹ XᵀY over the n centred windows of training. What was not observed counts as the window's
    mean; windows whose targets are not all observed do not train. NaN until it is fitted. A map of this kind beats most
    transformers on the usual benchmarks: "Are Transformers Effective for Time Series Forecasting?", arXiv 2205.13504;
    "An Analysis of Linear Time Series Forecasting Models", arXiv 2403.14587.

    Args:
        context: steps of a window.
        horizon: steps to forecast.
        penalty: added to the diagonal for each window.
    """

    def __init__(self, context: int, horizon: int, penalty: float = 1e-4) -> None:
        super().__init__()
        self.context, self.horizon, self.penalty = context, horizon, penalty
        self.register_buffer("weight", torch.full((context, horizon), float("nan")))

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Solves for W in float64 from batches of windows (B, T, C) with their targets (B, H, C)."""
        gram = torch.zeros(self.context, self.context, dtype=torch.float64)
        product = torch.zeros(self.context, self.horizon, dtype=torch.float64)
        count = 0
        for x, y in batches:
            centred, mean = self._centred(x)
            x, y = centred.transpose(1, 2).flatten(0, 1), (y - mean).transpose(1, 2).flatten(0, 1)
            whole = y.isfinite().all(1)
            x, y = x[whole].double(), y[whole].double()
            gram += x.T @ x
            product += x.T @ y
            count += len(x)
        if count:
            gram.diagonal().add_(self.penalty * count)
            self.weight.copy_(torch.linalg.solve(gram, product))

    def forward(self, values: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch horizon channels"]:
        """Forecasts windows; NaN stands for what was not observed."""
        centred, mean = self._centred(values)
        return torch.einsum("btc,th->bhc", centred, self.weight) + mean

    @staticmethod
    def _centred(values: Tensor) -> tuple[Tensor, Tensor]:
        observed = values.isfinite()
        mean = values.nan_to_num(0.0).sum(1, keepdim=True) / observed.sum(1, keepdim=True).clamp(min=1)
        return (values - mean).masked_fill(~observed, 0.0), mean
