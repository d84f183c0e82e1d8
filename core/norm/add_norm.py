"""The residual addition and the norm that follows it, in one."""

from jaxtyping import Float
from torch import Tensor, nn

from ...kernels.add_norm import NormKind, add_norm
from .parameters import norm_parameters


class AddNorm(nn.Module):
    """total = residual + x, y = normalize(total) * (weight + offset) + bias, over the last axis; returns (total, y).

    For blocks that pass the residual stream on and feed y to their next branch: both are made in one pass over memory.
    Statistics are in fp32 whatever the input; total has the dtype of the residual, y that of x. Papers: "Root Mean
    Square Layer Normalization", arXiv 1910.07467; "Layer Normalization", arXiv 1607.06450.

    Args:
        dim: width of the tokens.
        eps: added to the mean square or the (biased) variance.
        kind: "rms" divides by the root mean square, "layer" standardizes.
        weight: learn a scale.
        bias: learn a shift.
        offset: 1 makes the learned scale a deviation from one; it starts at 1 - offset.
    """

    def __init__(
        self,
        dim: int,
        eps: float = 1e-6,
        kind: NormKind = "rms",
        weight: bool = True,
        bias: bool = False,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.eps, self.kind, self.offset = dim, eps, kind, offset
        self.weight, self.bias = norm_parameters(dim, weight, bias, offset)

    def forward(
        self, x: Float[Tensor, "*batch dim"], residual: Float[Tensor, "*batch dim"]
    ) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch dim"]]:
        return add_norm(x, residual, self.weight, self.bias, self.eps, kind=self.kind, offset=self.offset)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}, kind={self.kind}"
