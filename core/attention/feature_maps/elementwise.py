"""Feature maps that apply one function to every number."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .contract import FeatureMap


def elu_plus_one(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """elu(x) + 1: positive everywhere, exponential below zero and linear above."""
    return F.elu(x) + 1.0


class PlainFunction(FeatureMap):
    """f(x) = function(x), for queries and keys alike.

    Args:
        function: from (..., head_dim) to (..., features), nowhere negative.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Float[Tensor, "*batch head_dim"]) -> Float[Tensor, "*batch features"]:
        return self.function(x)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


class EluPlusOne(PlainFunction):
    """f(x) = elu(x) + 1. Paper: "Transformers are RNNs", arXiv 2006.16236, section 3.2.

    Args:
        head_dim: width of queries and keys of a head.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__(elu_plus_one)
