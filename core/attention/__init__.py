"""Attention: mixers in which each token gathers values from others by how well its query meets their keys."""

from .cross import CrossAttention as CrossAttention
from .delta import GatedDeltaNet as GatedDeltaNet
from .diagonal import DiagonalMask as DiagonalMask
from .gated_linear import GatedLinearAttention as GatedLinearAttention
from .linear import LinearAttention as LinearAttention
from .neighborhood import NeighborhoodAttention as NeighborhoodAttention
from .prob_sparse import ProbSparseAttention as ProbSparseAttention
from .retention import Retention as Retention
from .segment import SegmentAttention as SegmentAttention
from .softmax import Attention as Attention
from .weights import AttentionWeights as AttentionWeights
from .weights import softmax_weights as softmax_weights
from .window import WindowAttention as WindowAttention
