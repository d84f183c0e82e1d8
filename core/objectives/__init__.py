"""What is minimised: one loss a file, with the weights of classes that go with it."""

from .class_weights import balanced_weights as balanced_weights
from .cross_entropy import binary_cross_entropy as binary_cross_entropy
from .cross_entropy import cross_entropy as cross_entropy
