"""Positions: added to tokens (learned, sinusoidal), turned into queries and keys (rotary), added to scores (bias)."""

from .learned import LearnedPosition as LearnedPosition
from .learned import resample_position as resample_position
from .relative_bias import RelativePositionBias as RelativePositionBias
from .rotary import RotaryPosition as RotaryPosition
from .sincos import SinCosPosition as SinCosPosition
from .sincos import sincos_position as sincos_position
