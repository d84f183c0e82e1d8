"""Every model of images whose tokens lie on a grid refuses a mixer of sequences when it is built."""

import pytest

from quintet.core.attention import Attention
from quintet.core.errors import QuintetError
from quintet.vision import models


class OfSequences(Attention):
    grid_ranks = frozenset({1})


MODELS = {
    "NeighborhoodAttentionTransformer": {"dim": 32, "depths": [1]},
    "MixTransformer": {"dims": [32], "depths": [1]},
    "VisionTransformer": {"dim": 32, "depth": 1, "pooling": "average"},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_mixer_of_sequences_is_refused(name):
    with pytest.raises(QuintetError, match="OfSequences takes tokens on 1 grid axes, here they have 2: "):
        getattr(models, name)(mixer=OfSequences, **MODELS[name])
    getattr(models, name)(mixer=Attention, **MODELS[name])
