"""The scale and the shift that norms learn."""

import torch
from torch import nn

from ..errors import QuintetError


def norm_parameters(
    dim: int, weight: bool, bias: bool, offset: float
) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    """A scale and a shift that start as the identity, or None; `offset` is what the norm adds to the scale.

    Raises QuintetError for an offset without a scale.
    """
    if offset and not weight:
        raise QuintetError(f"a norm's offset={offset} is added to its weight; with weight=False leave it 0")
    return (
        nn.Parameter(torch.full((dim,), 1.0 - offset)) if weight else None,
        nn.Parameter(torch.zeros(dim)) if bias else None,
    )
