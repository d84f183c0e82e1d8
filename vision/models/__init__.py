"""Image models; importing this registers them."""

from .nat import NeighborhoodAttentionTransformer as NeighborhoodAttentionTransformer
from .vit import VisionTransformer as VisionTransformer
