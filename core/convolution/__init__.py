"""Layers that convolve along a sequence with short or long kernels."""

from .long import ImplicitFilter as ImplicitFilter
from .long import LongConvolution as LongConvolution
from .short import ShortConvolution as ShortConvolution
