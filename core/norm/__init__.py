"""Norms: each is built as `Norm(dim)` and called on channels-last tensors; some take a second tensor."""

from .adaptive_norm import AdaptiveNorm as AdaptiveNorm
from .add_norm import AddNorm as AddNorm
from .batch_norm import BatchNorm as BatchNorm
from .gated_norm import GatedNorm as GatedNorm
from .head_norm import HeadNorm as HeadNorm
from .layer_norm import LayerNorm as LayerNorm
from .rms_norm import RMSNorm as RMSNorm
