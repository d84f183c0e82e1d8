"""Layers that carry a state along the sequence: state-space models and gated recurrences."""

from .slstm import SLSTM as SLSTM
