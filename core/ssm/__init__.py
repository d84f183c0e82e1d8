"""Layers that carry a state along the sequence: state-space models and gated recurrences."""

from .hgrn import HGRN as HGRN
from .mamba import Mamba as Mamba
from .mamba2 import Mamba2 as Mamba2
from .min_gru import MinGRU as MinGRU
from .mlstm import MLSTM as MLSTM
from .slstm import SLSTM as SLSTM
