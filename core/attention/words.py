"""Mixers known by their own word that are another mixer with a part of their own.

The line of `quintet list mixers` is the first of the part's docstring.
"""

from functools import partial

from ..weights.registry import register_mixer
from .dense.softmax import Attention
from .feature_maps.cosine import CosineReweighting
from .feature_maps.hedgehog import HedgehogFeatures
from .feature_maps.positive_random import PositiveRandomFeatures
from .feature_maps.taylor import TaylorFeatures
from .linear.linear import LinearAttention
from .scores.relu import ReluScore
from .scores.sigmoid import SigmoidScore

# Further configurations for the property tests.
CAUSAL = {"causal": {"causal": True}}

# Causal keys are not divided by their largest, so that small denominators are as they should be.
register_mixer("performer", CAUSAL)(partial(LinearAttention, feature_map=PositiveRandomFeatures, eps=1e-30))
register_mixer("hedgehog", CAUSAL)(partial(LinearAttention, feature_map=HedgehogFeatures))
register_mixer("based", CAUSAL)(partial(LinearAttention, feature_map=TaylorFeatures))
register_mixer("cosformer")(partial(LinearAttention, feature_map=CosineReweighting))

register_mixer("sigmoid_attention", CAUSAL)(partial(Attention, score=SigmoidScore))
register_mixer("relu_attention", CAUSAL)(partial(Attention, score=ReluScore))
