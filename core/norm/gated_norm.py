"""A norm whose output is multiplied by a gate, as at the end of linear attention and state-space layers."""

from jaxtyping import Float
from torch import Tensor, nn

from ...kernels.gated_norm import Activation, NormKind, gated_norm
from .parameters import norm_parameters


class GatedNorm(nn.Module):
    """y = (normalize(x) * (weight + offset) + bias) * activation(gate), over the last axis.

    Built for the width of a head, it normalizes each head by itself, with weights that the heads share. Statistics and
    products are in fp32 whatever the input. Papers: "Gated Linear Attention Transformers", arXiv 2312.06635, section
    4.4; "Retentive Network", arXiv 2307.08621.

    Args:
        dim: width of what is normalized.
        eps: added to the mean square or the (biased) variance.
        kind: "rms" divides by the root mean square, "layer" standardizes.
        activation: of the gate: "silu", "sigmoid", "gelu", "gelu_tanh", "relu" or "identity".
        weight: learn a scale.
        bias: learn a shift.
        offset: 1 makes the learned scale a deviation from one; it starts at 1 - offset.
    """

    def __init__(
        self,
        dim: int,
        eps: float = 1e-6,
        kind: NormKind = "rms",
        activation: Activation = "silu",
        weight: bool = True,
        bias: bool = False,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.eps, self.kind, self.activation, self.offset = dim, eps, kind, activation, offset
        self.weight, self.bias = norm_parameters(dim, weight, bias, offset)

    def forward(self, x: Float[Tensor, "*batch dim"], gate: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return gated_norm(
            x,
            gate,
            self.weight,
            self.bias,
            self.eps,
            kind=self.kind,
            activation=self.activation,
            offset=self.offset,
        )

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}, kind={self.kind}, activation={self.activation}"
