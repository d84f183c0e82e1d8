"""Angles of grid positions, axis by axis: what sinusoidal and rotary positions have in common."""

import torch
from jaxtyping import Float
from torch import Tensor

from ...kernels.rotary import rotary_angles


def axial_angles(
    grid: tuple[int, ...], count: int, base: float, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "*grid axes count"]:
    """angle[p, a, j] = p_a * base^(-j / count): the position along each axis times a geometric row of frequencies."""
    axes = [torch.arange(length, device=device, dtype=dtype) for length in grid]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return rotary_angles(positions, count, base).unflatten(-1, (len(grid), count))
