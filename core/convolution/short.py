"""A short causal convolution along a sequence, each channel by itself."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...kernels.causal_conv1d import causal_conv1d


class ShortConvolution(nn.Module):
    """y_t = activation(sum_j weight_j x_{t-width+1+j} + bias), which gives a recurrent layer sight of its last tokens.

    Called with the last width - 1 tokens before the sequence, or None at its start; returns those at its end, in fp32.
    Products and sums are in fp32.

    Args:
        dim: width of the tokens.
        width: tokens that an output sees.
        bias: learn a shift.
        activation: "silu" or None.
    """

    def __init__(
        self, dim: int, width: int = 4, bias: bool = True, activation: Literal["silu"] | None = "silu"
    ) -> None:
        super().__init__()
        self.dim, self.width, self.activation = dim, width, activation
        self.weight = nn.Parameter(torch.empty(dim, width))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)

    def forward(
        self, x: Float[Tensor, "batch time dim"], state: Float[Tensor, "batch past dim"] | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch past dim"]]:
        return causal_conv1d(x, self.weight, self.bias, self.activation, state)

    def extra_repr(self) -> str:
        return f"{self.dim}, width={self.width}, activation={self.activation}"
