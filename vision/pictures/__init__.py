"""What a person looks at: images with their classes, images with their masks, and how often both are right."""

from ...core.pictures.charts import confusion_matrix
from .images import SHOWN, Gallery, Shown, image_grid
from .masks import MaskGallery, ShownMask, class_bars, mask_rows, overlay_grid, painted

__all__ = [
    "SHOWN",
    "Gallery",
    "MaskGallery",
    "Shown",
    "ShownMask",
    "class_bars",
    "confusion_matrix",
    "image_grid",
    "mask_rows",
    "overlay_grid",
    "painted",
]
