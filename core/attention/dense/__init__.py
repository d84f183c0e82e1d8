"""Every token looks at every other, of its grid, its segment or another stream."""

from .cross import CrossAttention as CrossAttention
from .segment import SegmentAttention as SegmentAttention
from .softmax import Attention as Attention
