"""Root mean square normalization over the channels of each token."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...kernels.rms_norm import rms_norm


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x²) + eps) * weight, over the last axis.

    The mean is in fp32 whatever the input. Paper: "Root Mean Square Layer Normalization", arXiv 1910.07467.

    Args:
        dim: width of the tokens.
        eps: added to the mean square.
        weight: learn a scale.
    """

    takes = frozenset()  # said, as a class is asked faster than a module

    def __init__(self, dim: int, eps: float = 1e-6, weight: bool = True) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim)) if weight else None

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}"
