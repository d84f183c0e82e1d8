"""Layer normalization over the channels of each token."""

from jaxtyping import Float
from torch import Tensor, nn

from ...kernels.layer_norm import layer_norm
from .parameters import norm_parameters


class LayerNorm(nn.Module):
    """y = (x - mean(x)) / sqrt(var(x) + eps) * (weight + offset) + bias, over the last axis.

    Statistics are in fp32 whatever the input. Paper: "Layer Normalization", arXiv 1607.06450.

    Args:
        dim: width of the tokens.
        eps: added to the (biased) variance. 1e-6 as in vision transformers; torch.nn.LayerNorm has 1e-5.
        weight: learn a scale.
        bias: learn a shift.
        offset: 1 makes the learned scale a deviation from one, which weight decay may shrink; it starts at 1 - offset.
    """

    takes = frozenset()  # said, as a class is asked faster than a module

    def __init__(
        self, dim: int, eps: float = 1e-6, weight: bool = True, bias: bool = True, offset: float = 0.0
    ) -> None:
        super().__init__()
        self.dim, self.eps, self.offset = dim, eps, offset
        self.weight, self.bias = norm_parameters(dim, weight, bias, offset)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return layer_norm(x, self.weight, self.bias, self.eps, offset=self.offset)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}"
