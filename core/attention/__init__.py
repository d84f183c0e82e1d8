"""Attention: mixers in which each token gathers values from others by how well its query meets their keys."""

from .dense.cross import CrossAttention as CrossAttention
from .dense.segment import SegmentAttention as SegmentAttention
from .dense.softmax import Attention as Attention
from .linear.delta import GatedDeltaNet as GatedDeltaNet
from .linear.gated_linear import GatedLinearAttention as GatedLinearAttention
from .linear.linear import LinearAttention as LinearAttention
from .linear.retention import Retention as Retention
from .local.neighborhood import NeighborhoodAttention as NeighborhoodAttention
from .local.window import WindowAttention as WindowAttention
from .patterns.diagonal import DiagonalMask as DiagonalMask
from .sparse.prob_sparse import ProbSparseAttention as ProbSparseAttention
