"""Attention: mixers in which each token gathers values from others by how well its query meets their keys."""

from . import words as words
from .dense.cross import CrossAttention as CrossAttention
from .dense.segment import SegmentAttention as SegmentAttention
from .dense.softmax import Attention as Attention
from .feature_maps import CosineReweighting as CosineReweighting
from .feature_maps import EluPlusOne as EluPlusOne
from .feature_maps import FeatureMap as FeatureMap
from .feature_maps import HedgehogFeatures as HedgehogFeatures
from .feature_maps import PositiveRandomFeatures as PositiveRandomFeatures
from .feature_maps import TaylorFeatures as TaylorFeatures
from .linear.delta import GatedDeltaNet as GatedDeltaNet
from .linear.gated_linear import GatedLinearAttention as GatedLinearAttention
from .linear.linear import LinearAttention as LinearAttention
from .linear.retention import Retention as Retention
from .local.neighborhood import NeighborhoodAttention as NeighborhoodAttention
from .local.window import WindowAttention as WindowAttention
from .patterns import AxialPattern as AxialPattern
from .patterns import Pattern as Pattern
from .patterns import StridedPattern as StridedPattern
from .patterns.diagonal import DiagonalMask as DiagonalMask
from .scores import ReluScore as ReluScore
from .scores import Score as Score
from .scores import SigmoidScore as SigmoidScore
from .sparse.prob_sparse import ProbSparseAttention as ProbSparseAttention
from .weights import AttentionWeights as AttentionWeights
from .weights import softmax_weights as softmax_weights
