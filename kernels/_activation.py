"""The activations that operations fuse with a product: by formula, in torch, and in Triton with their derivatives.

silu x sigmoid(x)    gelu x Phi(x)    gelu_tanh its approximation by tanh    relu max(x, 0)    sigmoid    identity
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ._runtime import jit, tl

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "sigmoid", "identity"]

REFERENCE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x * torch.sigmoid(x),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: torch.where(x > 0, x, 0),
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


def check_activation(operation: str, activation: str) -> None:
    """Raises ValueError for an unknown activation."""
    if activation not in TORCH:
        raise ValueError(f"{operation}: activation {activation!r} is unknown; choose from {', '.join(TORCH)}")


@jit
def activate(x, ACTIVATION: tl.constexpr):
    """The activation of x and its derivative, in float32. What is not used is not computed."""
    if ACTIVATION == "silu":
        gate = tl.sigmoid(x)
        value = x * gate
        slope = gate * (1.0 + x * (1.0 - gate))
    elif ACTIVATION == "gelu":
        probability = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
        value = x * probability
        slope = probability + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    elif ACTIVATION == "gelu_tanh":
        # (1 + tanh(u)) / 2 = sigmoid(2u)
        gate = tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        value = x * gate
        slope = gate + value * (1.0 - gate) * 1.5957691216057308 * (1.0 + 0.134145 * x * x)
    elif ACTIVATION == "relu":
        value = tl.maximum(x, 0.0)
        slope = tl.where(x > 0.0, 1.0, 0.0)
    elif ACTIVATION == "sigmoid":
        value = tl.sigmoid(x)
        slope = value * (1.0 - value)
    else:
        value = x
        slope = tl.full(x.shape, 1.0, tl.float32)
    return value, slope
