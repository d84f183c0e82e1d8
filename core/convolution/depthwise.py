"""A convolution of each channel by itself over the neighbours of a token on its grid."""

from jaxtyping import Float
from torch import Tensor, nn

from ..errors import QuintetError


class DepthwiseConvolution(nn.Module):
    """y = sum over offsets of weight[c, offset] x[place + offset, c] + bias[c]; beyond the grid x is zero.

    Args:
        dim: width of the tokens.
        kernel_size: tokens along each axis that an output sees; odd.
        rank: number of grid axes.

    Raises QuintetError for an even kernel and another rank than 1, 2 or 3.
    """

    def __init__(self, dim: int, kernel_size: int = 5, rank: int = 2) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or rank not in (1, 2, 3):
            raise QuintetError(
                f"DepthwiseConvolution has an odd kernel_size and a rank of 1 to 3; got {kernel_size} and {rank}"
            )
        layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.convolution = layer(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.grid_ranks = frozenset({rank})

    def forward(self, x: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        return self.convolution(x.movedim(-1, 1)).movedim(1, -1)
