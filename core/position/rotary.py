"""Rotary positions for queries and keys, along each axis of the grid."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...kernels.rotary import RotaryLayout, rotary, rotary_angles
from ..errors import QuintetError
from .axial import axial_angles


class RotaryPosition(nn.Module):
    """Rotates channel pair j of queries and keys at grid place p by the angle p_a * base^(-(j mod m) / m), a = j div m.

    Scores then depend on differences of positions only. A head of 2n channels has n pairs; each of the r axes gets
    m = floor(n / r) of them, first axis first, and pairs that remain are not rotated. Angles and products are in fp32.
    Papers: "RoFormer", arXiv 2104.09864; axial on grids: "Rotary Position Embedding for Vision Transformer",
    arXiv 2403.13298.

    Args:
        head_dim: width of a head, even.
        base: ratio between the longest and the shortest wavelength.
        layout: pairs are channels (j, j + n) for "half", (2j, 2j + 1) for "interleaved".

    Raises QuintetError for an odd `head_dim` and for a grid with more axes than the head has pairs.
    """

    takes = frozenset({"places"})

    def __init__(self, head_dim: int, base: float = 10000.0, layout: RotaryLayout = "half") -> None:
        super().__init__()
        if head_dim % 2:
            raise QuintetError(f"rotary positions need an even head_dim; got {head_dim}: change dim or num_heads")
        self.head_dim, self.base, self.layout = head_dim, base, layout

    def forward(
        self,
        query: Float[Tensor, "batch *grid heads head_dim"],
        key: Float[Tensor, "batch *grid key_heads head_dim"],
        places: Int[Tensor, " time"] | None = None,
    ) -> tuple[Float[Tensor, "batch *grid heads head_dim"], Float[Tensor, "batch *grid key_heads head_dim"]]:
        """The turned queries and keys; `places` are those of a sequence's tokens, None for 0, 1, ..."""
        grid, pairs = tuple(query.shape[1:-2]), self.head_dim // 2
        if len(grid) > pairs:
            raise QuintetError(f"head_dim={self.head_dim} has fewer channel pairs than the grid {grid} has axes")
        dtype = torch.promote_types(query.dtype, torch.float32)
        if places is not None:
            angles = rotary_angles(places.unsqueeze(-1).to(dtype), pairs, self.base)
        else:
            angles = axial_angles(grid, pairs // len(grid), self.base, query.device, dtype).flatten(-2)
        return rotary(query, key, F.pad(angles, (0, pairs - angles.shape[-1])), layout=self.layout)

    def extra_repr(self) -> str:
        return f"{self.head_dim}, base={self.base}, layout={self.layout}"
