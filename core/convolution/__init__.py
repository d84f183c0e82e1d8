"""Layers that convolve along a sequence with short or long kernels."""

from .depthwise import DepthwiseConvolution as DepthwiseConvolution
from .long import ImplicitFilter as ImplicitFilter
from .long import LongConvolution as LongConvolution
from .short import ShortConvolution as ShortConvolution
