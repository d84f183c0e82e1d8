"""Beside `Block` and `Encoder`: branches side by side, shared weights, two streams, fewer tokens, the way up again."""

from .cross_block import CrossBlock as CrossBlock
from .parallel import Parallel as Parallel
from .reduction import Reduction as Reduction
from .repeated import Repeated as Repeated
from .staged_decoder import Concatenation as Concatenation
from .staged_decoder import Enlargement as Enlargement
from .staged_decoder import StagedDecoder as StagedDecoder
