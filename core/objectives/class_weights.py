"""Weights of classes that occur unequally often."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def balanced_weights(counts: Sequence[int] | Tensor, power: float = 1.0) -> Float[Tensor, " classes"]:
    """(n / (classes * n_k))^power for a class with n_k of n samples, 0 for one without: in sum each weighs the same.

    Args:
        counts: n_k.
        power: 0.5 takes the root, which balances half way.
    """
    counts = torch.as_tensor(counts, dtype=torch.float64)
    weights = (counts.sum() / (len(counts) * counts.clamp(min=1))) ** power
    return weights.where(counts > 0, 0.0).float()
