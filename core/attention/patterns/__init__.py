"""Patterns: which tokens of a grid meet which; what one must do is said in contract.py."""

from .axial import AxialPattern as AxialPattern
from .contract import Pattern as Pattern
from .strided import StridedPattern as StridedPattern
