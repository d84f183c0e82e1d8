"""Image models; importing this registers them."""

from .decoders import LinearProbe as LinearProbe
from .decoders import SegFormerHead as SegFormerHead
from .decoders import UNetDecoder as UNetDecoder
from .decoders import UPerNet as UPerNet
from .nat import NeighborhoodAttentionTransformer as NeighborhoodAttentionTransformer
from .segformer import MixTransformer as MixTransformer
from .segmentation import SegmentationNetwork as SegmentationNetwork
from .vit import VisionTransformer as VisionTransformer
