"""Gated linear units: feed-forward layers whose hidden values are multiplied by a gate."""

from math import ceil
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ...kernels.glu import Activation, glu
from ..regularization.dropout import Dropout


class GatedLinearUnit(nn.Module):
    """y = fc2(activation(gate) * value) with (gate, value) = fc1(x); the activation here is the logistic sigmoid.

    `fc1` holds the gate's rows first, then the value's. Papers: "Language Modeling with Gated Convolutional Networks",
    arXiv 1612.08083 (the unit); "GLU Variants Improve Transformer", arXiv 2002.05202 (the variants, without biases).

    The hidden width is `ratio * dim` rounded up to a multiple of `multiple_of`. With ratio 8/3 the three matrices hold
    the 8 dim² parameters of an `Mlp` of ratio 4; multiples of 8 keep every matrix aligned for tensor cores.

    Args:
        dim: width of the tokens.
        hidden_dim: hidden width, taken as it is; None means the rule above.
        ratio: hidden width over `dim` where `hidden_dim` is None.
        multiple_of: what the hidden width is rounded up to where `hidden_dim` is None.
        bias: biases in both layers.
        dropout: rate after the product and after the second layer.
    """

    activation: ClassVar[Activation] = "sigmoid"

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        ratio: float = 8 / 3,
        multiple_of: int = 8,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_dim = hidden_dim or ceil(ratio * dim / multiple_of) * multiple_of
        self.fc1 = nn.Linear(dim, 2 * hidden_dim, bias=bias)
        self.fc2 = nn.Linear(hidden_dim, dim, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.dropout(self.fc2(self.dropout(glu(self.fc1(x), activation=self.activation))))


class SwiGLU(GatedLinearUnit):
    """Gated linear unit with the activation silu(gate) = gate * sigmoid(gate)."""

    activation = "silu"


class GeGLU(GatedLinearUnit):
    """Gated linear unit with the activation gelu(gate), exact rather than the tanh approximation."""

    activation = "gelu"


class ReGLU(GatedLinearUnit):
    """Gated linear unit with the activation max(gate, 0)."""

    activation = "relu"


class BilinearGLU(GatedLinearUnit):
    """Gated linear unit without an activation: y = fc2(gate * value)."""

    activation = "identity"
