"""Attention without a softmax between tokens: sums that grow along the sequence."""

from .delta import GatedDeltaNet as GatedDeltaNet
from .gated_linear import GatedLinearAttention as GatedLinearAttention
from .linear import LinearAttention as LinearAttention
from .retention import Retention as Retention
