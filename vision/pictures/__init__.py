"""What a person looks at: images with their classes, images with their masks, and how often both are right."""

from .images import COUNTED, NAMED, SHOWN, Gallery, Shown, confusion_matrix, image_grid
from .masks import MaskGallery, ShownMask, class_bars, mask_rows, overlay_grid, painted

__all__ = [
    "COUNTED",
    "NAMED",
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
