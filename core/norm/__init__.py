"""Norms: each is built as `Norm(dim)` and called on channels-last tensors."""

from .layer_norm import LayerNorm as LayerNorm
from .rms_norm import RMSNorm as RMSNorm
