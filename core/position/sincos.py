"""Fixed sinusoidal positions for grids of any size."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .axial import axial_angles


def sincos_position(
    grid: tuple[int, ...], dim: int, base: float = 10000.0, *, device: torch.device | None = None, dtype: torch.dtype
) -> Float[Tensor, "*grid dim"]:
    """The table that `SinCosPosition` adds."""
    device = device or torch.get_default_device()
    angles = axial_angles(tuple(grid), dim // (2 * len(grid)), base, device, dtype)
    table = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
    return F.pad(table, (0, dim - table.shape[-1]))


class SinCosPosition(nn.Module):
    """x + [sin(p_a w_0), ..., sin(p_a w_{m-1}), cos(p_a w_0), ..., cos(p_a w_{m-1})] for each axis a.

    Frequencies are w_j = base^(-j/m). Each of the r grid axes has 2m = 2 floor(dim / 2r) channels, first axis first;
    channels that remain get nothing.
    Paper: "Attention Is All You Need", arXiv 1706.03762, section 3.5, whose sines and cosines alternate: the same
    channels in another order.

    Args:
        dim: width of the tokens.
        base: ratio between the longest and the shortest wavelength.
    """

    def __init__(self, dim: int, base: float = 10000.0) -> None:
        super().__init__()
        self.dim, self.base = dim, base

    def forward(self, x: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        dtype = torch.promote_types(x.dtype, torch.float32)
        table = sincos_position(tuple(x.shape[1:-1]), self.dim, self.base, device=x.device, dtype=dtype)
        return x + table.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.dim}, base={self.base}"
