"""Layer normalization over the channels of each token."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, over the last axis.

    Statistics are in fp32 whatever the input. Paper: "Layer Normalization", arXiv 1607.06450.

    Args:
        dim: width of the tokens.
        eps: added to the (biased) variance. 1e-6 as in vision transformers; torch.nn.LayerNorm has 1e-5.
        weight: learn a scale.
        bias: learn a shift.
    """

    def __init__(self, dim: int, eps: float = 1e-6, weight: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim)) if weight else None
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return F.layer_norm(x, (self.dim,), self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}"
