"""Data modules of images: `Digits` (scans of scikit-learn); of one's own files `ImageFolder` and `MaskFolder`."""

from .digits import Digits
from .folder import ImageFolder
from .images import ImageDescription, ImageSample
from .mask_folder import MaskFolder
from .masks import MaskDescription, MaskSample

__all__ = [
    "Digits",
    "ImageDescription",
    "ImageFolder",
    "ImageSample",
    "MaskDescription",
    "MaskFolder",
    "MaskSample",
]
