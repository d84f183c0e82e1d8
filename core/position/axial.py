"""Angles of grid positions, axis by axis: what sinusoidal and rotary positions have in common."""

import torch
from jaxtyping import Float
from torch import Tensor


def axial_angles(
    grid: tuple[int, ...], count: int, base: float, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "*grid axes count"]:
    """angle[p, a, j] = p_a * base^(-j / count): the position along each axis times a geometric row of frequencies."""
    frequencies = base ** (-torch.arange(count, device=device, dtype=dtype) / max(count, 1))
    axes = [torch.arange(length, device=device, dtype=dtype) for length in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).unsqueeze(-1) * frequencies
