"""Tasks of the vision domain, one file each: `ImageClassifier`, `SemanticSegmenter` and `FeatureExtractor`."""

from .classification import ImageClassifier, ImagePredictions
from .features import FeatureExtractor, ImageEmbeddings
from .segmentation import MaskPredictions, SemanticSegmenter

__all__ = [
    "FeatureExtractor",
    "ImageClassifier",
    "ImageEmbeddings",
    "ImagePredictions",
    "MaskPredictions",
    "SemanticSegmenter",
]
