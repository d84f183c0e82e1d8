"""Tasks of the vision domain, one file each: `ImageClassifier` and `SemanticSegmenter`."""

from .classification import ImageClassifier, ImagePredictions
from .segmentation import MaskPredictions, SemanticSegmenter

__all__ = ["ImageClassifier", "ImagePredictions", "MaskPredictions", "SemanticSegmenter"]
