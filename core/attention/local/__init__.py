"""Every token looks at those near it."""

from .neighborhood import NeighborhoodAttention as NeighborhoodAttention
from .window import WindowAttention as WindowAttention
