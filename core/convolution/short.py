"""A short causal convolution along a sequence, each channel by itself."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...kernels.causal_conv1d import causal_conv1d
from ..mixer import set_apart


class ShortConvolution(nn.Module):
    """y_t = activation(sum_j weight_j x_{t-width+1+j} + bias), which gives a recurrent layer sight of its last tokens.

    Called with the last width - 1 tokens before the sequence, or None at its start; returns those at its end, in fp32.
    Products and sums are in fp32. Of packed sequences, a sample of tokens and `cu_seqlens`, none sees another: they are
    convolved with width - 1 zeros before each.

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
        self,
        x: Float[Tensor, "batch time dim"],
        state: Float[Tensor, "batch past dim"] | None = None,
        cu_seqlens: Int[Tensor, " boundaries"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch past dim"]]:
        if cu_seqlens is not None:
            apart, places = set_apart(x, cu_seqlens, self.width - 1)
            y, state = self(apart, state)
            return y.index_select(1, places), state
        return causal_conv1d(x, self.weight, self.bias, self.activation, state)

    def extra_repr(self) -> str:
        return f"{self.dim}, width={self.width}, activation={self.activation}"
