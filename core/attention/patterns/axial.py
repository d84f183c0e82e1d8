"""The pattern of axial attention."""

from math import prod

import torch
from jaxtyping import Bool
from torch import Tensor

from .contract import Pattern


class AxialPattern(Pattern):
    """Tokens meet that stand on one line along an axis: all their coordinates but one are equal.

    In a sequence all tokens do. Paper: "Axial Attention in Multidimensional Transformers", arXiv 1912.12180, here with
    one softmax over the lines of all axes through a token.

    Args:
        num_heads: heads of the attention.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()

    def forward(self, grid: tuple[int, ...], device: torch.device | None = None) -> Bool[Tensor, "1 tokens tokens"]:
        axes = [torch.arange(length, device=device) for length in grid]
        differing = torch.zeros(prod(grid), prod(grid), dtype=torch.long, device=device)
        for place in torch.meshgrid(*axes, indexing="ij"):
            differing = differing + (place.flatten().unsqueeze(1) != place.flatten())
        return (differing <= 1).unsqueeze(0)
