"""What other projects call the tensors of networks over graphs."""

from .layouts import GRAPHGPS as GRAPHGPS
from .layouts import PYG_GPS as PYG_GPS
