"""What attention asks of a pattern."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn


class Pattern(nn.Module):
    """`pattern(grid, device)`: which keys each query may see, constructible as `SomePattern(num_heads)`.

    Rows are queries and columns keys, in raster order, for each head or for all at once. A token always sees itself,
    whatever a pattern says; token mask and causality are attention's.
    """

    def forward(
        self, grid: tuple[int, ...], device: torch.device | None = None
    ) -> Bool[Tensor, "_heads tokens tokens"]:
        raise NotImplementedError
