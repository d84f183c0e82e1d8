"""A learned attention bias for every relative position within a grid."""

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import QuintetError


def relative_index(
    grid: tuple[int, ...], largest: tuple[int, ...], device: torch.device | None = None
) -> Int[Tensor, "tokens tokens"]:
    """Row-major number of the offset query - key among the offsets within a grid of size `largest`."""
    axes = [torch.arange(length, device=device) for length in grid]
    index = torch.zeros(prod(grid), prod(grid), dtype=torch.long, device=device)
    for place, limit in zip(torch.meshgrid(*axes, indexing="ij"), largest):
        place = place.flatten()
        index = index * (2 * limit - 1) + (place.unsqueeze(1) - place + limit - 1)
    return index


class RelativePositionBias(nn.Module):
    """bias[h, i, j] = table[p_i - p_j, h]: added to the scores of query i and key j, which stand at p_i and p_j.

    The table has a row for each of prod(2 g - 1) offsets of a grid of size g, row-major, initialised from N(0, 0.02²)
    cut at two units. Smaller grids use the middle of it; a larger grid raises QuintetError.
    Papers: "Self-Attention with Relative Position Representations", arXiv 1803.02155; as a bias: "Swin Transformer",
    arXiv 2103.14030, section 3.2.

    Args:
        num_heads: heads of the attention.
        grid: the largest grid, one to three axes.
    """

    no_weight_decay: ClassVar[tuple[str, ...]] = ("table",)

    def __init__(self, num_heads: int, grid: Sequence[int]) -> None:
        super().__init__()
        if not 1 <= len(grid) <= 3:
            raise QuintetError(f"RelativePositionBias serves grids of one to three axes; got grid={tuple(grid)}")
        self.grid = tuple(grid)
        self.grid_ranks = frozenset({len(grid)})
        self.table = nn.Parameter(torch.empty(prod(2 * length - 1 for length in grid), num_heads))
        nn.init.trunc_normal_(self.table, std=0.02, a=-0.04, b=0.04)
        self.register_buffer("index", relative_index(self.grid, self.grid), persistent=False)

    def forward(self, grid: tuple[int, ...]) -> Float[Tensor, "heads tokens tokens"]:
        if len(grid) != len(self.grid) or any(length > limit for length, limit in zip(grid, self.grid)):
            raise QuintetError(
                f"the relative positions of a grid {self.grid} do not reach across {tuple(grid)}; "
                "build RelativePositionBias for the largest grid it will meet"
            )
        index = self.index if grid == self.grid else relative_index(grid, self.grid, self.table.device)
        # An embedding sums its gradient row by row; plain indexing would scatter it with atomics.
        return F.embedding(index, self.table).movedim(-1, 0)

    def extra_repr(self) -> str:
        return f"grid={self.grid}"
