"""Learned positions, one vector a grid place, resampled for grids of another size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import QuintetError
from .resampling import CUBIC, resampling_matrix


def resample_position(position: Float[Tensor, "*grid dim"], grid: tuple[int, ...]) -> Float[Tensor, "*resampled dim"]:
    """A table of positions interpolated to another grid: linear for sequences, bicubic for images, linear for volumes.

    Images are low-pass filtered where the grid shrinks. Raises QuintetError where the number of axes differs.
    """
    if position.dim() - 1 != len(grid):
        raise QuintetError(
            f"positions of the {position.dim() - 1}-axis grid {tuple(position.shape[:-1])} cannot serve the "
            f"{len(grid)}-axis grid {tuple(grid)}; build them for as many axes as the tokens have"
        )
    if torch.compiler.is_exporting() and len(grid) == 2:
        # Runtimes disagree about bicubic filters, not about products of matrices; and a graph may not compare sizes.
        sizes = [torch.full((), size, dtype=torch.float32, device=position.device) for size in grid]
        rows, columns = (
            resampling_matrix(length, torch.arange(goal, device=position.device), size, CUBIC)
            for length, goal, size in zip(position.shape, grid, sizes)
        )
        return torch.einsum("rh,wc,hwd->rcd", rows, columns.T, position.float()).to(position.dtype)
    if tuple(position.shape[:-1]) == tuple(grid):
        return position
    mode = ("linear", "bicubic", "trilinear")[len(grid) - 1]
    channels_first = position.movedim(-1, 0).unsqueeze(0).to(torch.promote_types(position.dtype, torch.float32))
    resampled = F.interpolate(channels_first, tuple(grid), mode=mode, align_corners=False, antialias=len(grid) == 2)
    return resampled.squeeze(0).movedim(0, -1).to(position.dtype)


class LearnedPosition(nn.Module):
    """x + position, where position is a learned table over the grid, initialised from N(0, 0.02²) cut at two units.

    Another grid than the table's gets the table resampled (`resample_position`), so that a model trained at one size
    runs at another. Papers: "An Image is Worth 16x16 Words", arXiv 2010.11929 (table, resampling).

    Args:
        dim: width of the tokens.
        grid: size of the table, one to three axes.
    """

    def __init__(self, dim: int, grid: Sequence[int]) -> None:
        super().__init__()
        if not 1 <= len(grid) <= 3:
            raise QuintetError(f"LearnedPosition serves grids of one to three axes; got grid={tuple(grid)}")
        self.grid_ranks = frozenset({len(grid)})
        self.position = nn.Parameter(torch.empty(*grid, dim))
        nn.init.trunc_normal_(self.position, std=0.02, a=-0.04, b=0.04)

    def forward(self, x: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        return x + resample_position(self.position, tuple(x.shape[1:-1])).to(x.dtype)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.position.shape))
