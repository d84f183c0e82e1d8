"""Data modules of images: `Digits` (scans that ship with scikit-learn) and `ImageFolder` (photographs of one's own)."""

from .digits import Digits
from .folder import ImageFolder
from .images import ImageDescription, ImageSample

__all__ = ["Digits", "ImageDescription", "ImageFolder", "ImageSample"]
