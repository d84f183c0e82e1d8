"""Attention: mixers in which each token gathers values from others by how well its query meets their keys."""

from .cross import CrossAttention as CrossAttention
from .linear import LinearAttention as LinearAttention
from .neighborhood import NeighborhoodAttention as NeighborhoodAttention
from .softmax import Attention as Attention
