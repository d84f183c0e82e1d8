"""Who meets whom."""

from .diagonal import DiagonalMask as DiagonalMask
