"""Feed-forward layers: each is built as `FeedForward(dim)` and works token by token."""

from .glu import BilinearGLU as BilinearGLU
from .glu import GatedLinearUnit as GatedLinearUnit
from .glu import GeGLU as GeGLU
from .glu import ReGLU as ReGLU
from .glu import SwiGLU as SwiGLU
from .mlp import Mlp as Mlp
