"""What gaps are filled with without any model: straight lines, and the last value again."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def linear_interpolation(
    values: Float[Tensor, "batch time channels"], observed: Bool[Tensor, "batch time channels"]
) -> Float[Tensor, "batch time channels"]:
    """The straight line between the observed neighbours; before the first and after the last of them, its value.

    A channel of which nothing was observed is 0, the mean of scaled series.
    """
    before, after = _neighbours(observed)
    known = values.masked_fill(~observed, 0.0)
    steps = torch.arange(values.shape[1], device=values.device)[:, None].expand_as(before)
    none_before, none_after = before < 0, after >= values.shape[1]
    left = torch.where(none_before, after, before).clamp(0, values.shape[1] - 1)
    right = torch.where(none_after, before, after).clamp(0, values.shape[1] - 1)
    low, high = known.gather(1, left), known.gather(1, right)
    share = (steps - left).to(values.dtype) / (right - left).clamp(min=1).to(values.dtype)
    line = low + (high - low) * share.clamp(0.0, 1.0)
    # An observed value is itself, to the last bit.
    return torch.where(observed, known, line)


def last_value(
    values: Float[Tensor, "batch time channels"], observed: Bool[Tensor, "batch time channels"]
) -> Float[Tensor, "batch time channels"]:
    """The last observed value; before the first of them, that one; 0 where nothing was observed in a channel."""
    before, after = _neighbours(observed)
    place = torch.where(before < 0, after, before).clamp(0, values.shape[1] - 1)
    return values.masked_fill(~observed, 0.0).gather(1, place)


def _neighbours(observed: Tensor) -> tuple[Tensor, Tensor]:
    """Of each step the last observed one up to it (-1 for none) and the next from it on (T for none)."""
    length = observed.shape[1]
    steps = torch.arange(length, device=observed.device)[:, None]
    before = torch.where(observed, steps, -1).cummax(1).values
    after = torch.where(observed, steps, length).flip(1).cummin(1).values.flip(1)
    return before, after
