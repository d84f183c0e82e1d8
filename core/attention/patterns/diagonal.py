"""The bias that keeps tokens from attending to themselves."""

from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

HIDDEN = -3e4  # exp of it is 0 beside any other score, and it is a number in every floating type


class DiagonalMask(nn.Module):
    """bias[i, j] = -30000 where i = j, else 0: a token attends to the others, to itself where there is no other.

    For `Attention(dim, relative_bias=DiagonalMask)`. A token then says what its surroundings make of it. Paper: "SAITS:
    Self-Attention-based Imputation for Time Series", arXiv 2202.08516, section 3.2.1.

    Args:
        num_heads: heads of the attention.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        # Says the type and device of the bias; nothing of it is learned or stored.
        self.register_buffer("hidden", torch.full((1,), HIDDEN), persistent=False)

    def forward(self, grid: tuple[int, ...]) -> Float[Tensor, "heads tokens tokens"]:
        return self.hidden.expand(prod(grid)).diag().expand(self.num_heads, -1, -1)
