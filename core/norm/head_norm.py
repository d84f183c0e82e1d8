"""Layer normalization of each head by itself."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...kernels.layer_norm import layer_norm


class HeadNorm(nn.Module):
    """y = (x - mean(x)) / sqrt(var(x) + eps) * weight, over the channels of each head: group norm, a head a group.

    Takes tokens whose heads are apart and returns them joined. Statistics are in fp32 whatever the input. Paper: "Group
    Normalization", arXiv 1803.08494.

    Args:
        dim: width of the tokens, all heads together.
        num_heads: number of heads; must divide `dim`.
        eps: added to the (biased) variance.
        weight: learn a scale of each channel.
    """

    def __init__(self, dim: int, num_heads: int, eps: float = 1e-5, weight: bool = True) -> None:
        super().__init__()
        self.dim, self.num_heads, self.eps = dim, num_heads, eps
        self.weight = nn.Parameter(torch.ones(dim)) if weight else None

    def forward(self, x: Float[Tensor, "*batch heads head_dim"]) -> Float[Tensor, "*batch dim"]:
        y = layer_norm(x, None, None, self.eps).flatten(-2)
        return y if self.weight is None else (y * self.weight).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.dim}, num_heads={self.num_heads}, eps={self.eps}"
