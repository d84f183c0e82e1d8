"""The strided pattern of sparse transformers."""

from math import prod

import torch
from jaxtyping import Bool
from torch import Tensor

from ...errors import QuintetError
from .contract import Pattern


class StridedPattern(Pattern):
    """Tokens i and j meet, in raster order, where |i - j| < stride or stride divides i - j.

    Two layers of it join every pair. Paper: "Generating Long Sequences with Sparse Transformers", arXiv 1904.10509; its
    heads see one of the two kinds each, or both, as here.

    Args:
        num_heads: heads of the attention.
        stride: about the root of the number of tokens; the width, for images read row by row.

    Raises QuintetError for a stride below 1.
    """

    def __init__(self, num_heads: int, stride: int = 16) -> None:
        super().__init__()
        if stride < 1:
            raise QuintetError(f"StridedPattern needs a stride of at least 1; got {stride}")
        self.stride = stride

    def forward(self, grid: tuple[int, ...], device: torch.device | None = None) -> Bool[Tensor, "1 tokens tokens"]:
        places = torch.arange(prod(grid), device=device)
        distance = (places.unsqueeze(1) - places).abs()
        return ((distance < self.stride) | (distance % self.stride == 0)).unsqueeze(0)

    def extra_repr(self) -> str:
        return f"stride={self.stride}"
