"""Estimates of several methods in one: shares of each, chosen on validation data."""

from itertools import chain, combinations

import torch
from jaxtyping import Float
from torch import Tensor


def best_shares(
    estimates: Float[Tensor, "methods values"], truth: Float[Tensor, " values"]
) -> Float[Tensor, " methods"]:
    """argmin_w |sum_m w_m e_m - y|² with w >= 0 and sum w = 1; values whose truth is NaN do not count.

    Exact: of all sets of methods, the best among those whose unconstrained shares are none negative.
    """
    known = truth.isfinite()
    errors = estimates.double()[:, known] - truth.double()[known]
    methods = len(errors)
    best, least = torch.full((methods,), 1.0 / methods, dtype=torch.float64), torch.inf
    gram = errors @ errors.T / max(1, errors.shape[1])
    sizes = range(1, methods + 1)
    for chosen in chain.from_iterable(combinations(range(methods), size) for size in sizes):
        shares = _shares_of(gram[list(chosen)][:, list(chosen)])
        error = float(shares @ gram[list(chosen)][:, list(chosen)] @ shares)
        if bool((shares >= 0).all()) and error < least - 1e-12:
            least, best = error, torch.zeros(methods, dtype=torch.float64)
            best[list(chosen)] = shares
    return best


def _shares_of(gram: Float[Tensor, "methods methods"]) -> Float[Tensor, " methods"]:
    """argmin wᵀ G w with sum w = 1: w = G⁻¹ 1 / (1ᵀ G⁻¹ 1), of least norm where methods agree."""
    ones = torch.ones(len(gram), dtype=gram.dtype)
    solved = torch.linalg.pinv(gram + 1e-9 * gram.diagonal().mean() * torch.eye(len(gram))) @ ones
    return solved / solved.sum()
