"""Attention without a softmax between tokens: sums that grow along the sequence."""

from .delta import GatedDeltaNet as GatedDeltaNet
from .gated_linear import GatedLinearAttention as GatedLinearAttention
from .linear import LinearAttention as LinearAttention
from .linear import causal_linear_attention as causal_linear_attention
from .retention import Retention as Retention
