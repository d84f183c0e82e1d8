"""Blocks and the stacks made of them, side by side, with shared weights, of two streams, down and up again."""

from .block import Block as Block
from .block import DropPath as DropPath
from .block import LayerScale as LayerScale
from .cross_block import CrossBlock as CrossBlock
from .encoder import Encoder as Encoder
from .encoder import StagedEncoder as StagedEncoder
from .parallel import Parallel as Parallel
from .reduction import Reduction as Reduction
from .repeated import Repeated as Repeated
from .staged_decoder import Concatenation as Concatenation
from .staged_decoder import Enlargement as Enlargement
from .staged_decoder import StagedDecoder as StagedDecoder
