"""Attention: mixers in which each token gathers values from others by how well its query meets their keys."""

from . import words as words
from .cross import CrossAttention as CrossAttention
from .delta import GatedDeltaNet as GatedDeltaNet
from .diagonal import DiagonalMask as DiagonalMask
from .feature_maps import CosineReweighting as CosineReweighting
from .feature_maps import EluPlusOne as EluPlusOne
from .feature_maps import FeatureMap as FeatureMap
from .feature_maps import HedgehogFeatures as HedgehogFeatures
from .feature_maps import PositiveRandomFeatures as PositiveRandomFeatures
from .feature_maps import TaylorFeatures as TaylorFeatures
from .gated_linear import GatedLinearAttention as GatedLinearAttention
from .linear import LinearAttention as LinearAttention
from .neighborhood import NeighborhoodAttention as NeighborhoodAttention
from .patterns import AxialPattern as AxialPattern
from .patterns import Pattern as Pattern
from .patterns import StridedPattern as StridedPattern
from .prob_sparse import ProbSparseAttention as ProbSparseAttention
from .retention import Retention as Retention
from .scores import ReluScore as ReluScore
from .scores import Score as Score
from .scores import SigmoidScore as SigmoidScore
from .segment import SegmentAttention as SegmentAttention
from .softmax import Attention as Attention
from .weights import AttentionWeights as AttentionWeights
from .weights import softmax_weights as softmax_weights
from .window import WindowAttention as WindowAttention
