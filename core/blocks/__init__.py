"""Blocks and the stacks made of them."""

from .block import Block as Block
from .block import DropPath as DropPath
from .block import LayerScale as LayerScale
from .encoder import Encoder as Encoder
from .encoder import StagedEncoder as StagedEncoder
