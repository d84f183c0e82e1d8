"""Losses over the targets that are known."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...core.objectives import cross_entropy

ERRORS: Mapping[str, Callable[..., Tensor]] = {
    "huber": partial(F.huber_loss, reduction="none"),
    "l1": partial(F.l1_loss, reduction="none"),
    "squared": partial(F.mse_loss, reduction="none"),
}


def mean_of_known(values: Float[Tensor, "*any"], known: Tensor) -> Float[Tensor, ""]:
    """Mean over what is known, 0 where nothing is."""
    return values.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)


def _of_one_kind(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the finer of their kinds of number: torch's losses of two kinds have no gradient."""
    kind = torch.promote_types(predictions.dtype, targets.dtype)
    return predictions.to(kind), targets.to(kind)


def number_loss(
    predictions: Float[Tensor, "graphs targets"], targets: Float[Tensor, "graphs targets"], error: str
) -> Float[Tensor, ""]:
    """Mean of |d|, d² or Huber's d² / 2 up to 1 and |d| - 1/2 beyond, d = y - ŷ, over the targets that are not NaN."""
    known, (predictions, targets) = targets.isfinite(), _of_one_kind(predictions, targets)
    return mean_of_known(ERRORS[error](predictions, targets.nan_to_num(0.0)), known)


def label_loss(
    logits: Float[Tensor, "graphs labels"], targets: Float[Tensor, "graphs labels"], smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Binary cross entropy towards t (1 - e) + e / 2, over the labels that are not NaN."""
    known, (logits, targets) = targets.isfinite(), _of_one_kind(logits, targets)
    smoothed = targets.nan_to_num(0.0) * (1 - smoothing) + smoothing / 2
    return mean_of_known(F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none"), known)


def class_loss(
    logits: Float[Tensor, "graphs classes"],
    targets: Int[Tensor, " graphs"],
    weight: Tensor | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross entropy over the graphs whose class is known (not -1); 0 where none is."""
    known = targets >= 0
    if not bool(known.any()):
        return logits.sum() * 0.0
    return cross_entropy(logits[known], targets[known], weight, smoothing)
