"""Metrics of quantile forecasts."""

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
