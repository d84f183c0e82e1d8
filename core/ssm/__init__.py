"""Layers that carry a state along the sequence: state-space models and gated recurrences."""

from .mlstm import MLSTM as MLSTM
from .slstm import SLSTM as SLSTM
