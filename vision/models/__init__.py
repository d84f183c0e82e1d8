"""Image models; importing this registers them."""

from ...core.weights.registry import entries_so_far
from .decoders import LinearProbe as LinearProbe
from .decoders import SegFormerHead as SegFormerHead
from .decoders import UNetDecoder as UNetDecoder
from .decoders import UPerNet as UPerNet
from .nat import NeighborhoodAttentionTransformer as NeighborhoodAttentionTransformer
from .segformer import MixTransformer as MixTransformer
from .segmentation import SegmentationNetwork as SegmentationNetwork
from .timm_models import register_once_timm_is_there
from .vit import VisionTransformer as VisionTransformer

# Networks that segment have no place in timm; their backbones have.
register_once_timm_is_there(
    [entry for entry in entries_so_far("vision/*") if not entry.name.startswith("vision/segformer_")]
)
