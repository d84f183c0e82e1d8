"""What linear attention divides its sums by."""

from jaxtyping import Float
from torch import Tensor, nn

from ..norm.rms_norm import RMSNorm


class DivideBySum(nn.Module):
    """y = n / max(d, eps), so that the weights of a token sum to one; for feature maps whose products are positive.

    Args:
        dim: width of all heads together.
        eps: smallest denominator.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps

    def forward(
        self,
        numerator: Float[Tensor, "batch heads tokens head_dim"],
        denominator: Float[Tensor, "batch heads tokens 1"],
    ) -> Float[Tensor, "batch heads tokens head_dim"]:
        return numerator / denominator.clamp_min(self.eps)


class DivideByRootMeanSquare(nn.Module):
    """y = n / sqrt(mean(n²) + eps) over all heads together, whatever d: features may be of any sign.

    Gradients do not grow where sums of weights are small. Paper: "The Devil in Linear Transformer", arXiv 2210.10340.

    Args:
        dim: width of all heads together.
        eps: added to the mean square.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, eps, weight=False)

    def forward(
        self,
        numerator: Float[Tensor, "batch heads tokens head_dim"],
        denominator: Float[Tensor, "batch heads tokens 1"],
    ) -> Float[Tensor, "batch heads tokens head_dim"]:
        joined = self.norm(numerator.transpose(1, 2).flatten(2))
        return joined.unflatten(-1, (numerator.shape[1], -1)).transpose(1, 2)
