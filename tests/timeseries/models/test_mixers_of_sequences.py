"""Every model of series refuses a mixer of images when it is built, and takes one of sequences."""

import pytest

from quintet.core.attention import GatedLinearAttention, NeighborhoodAttention
from quintet.core.errors import QuintetError
from quintet.timeseries import models

MODELS = {
    "ITransformer": {"context": 8, "horizon": 4},
    "Informer": {"context": 8, "horizon": 4},
    "PatchClassifier": {},
    "PatchTST": {"context": 8, "horizon": 4, "patch_size": 4, "stride": 4},
    "NILMFormer": {},
    "TiRex": {},
    "TiRex2": {"recipe": ("mlstm",), "depth": None},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_mixer_of_images_is_refused(name):
    arguments = {"dim": 32, "depth": 1} | MODELS[name]
    arguments = {key: value for key, value in arguments.items() if value is not None}
    with pytest.raises(QuintetError, match="NeighborhoodAttention takes tokens on 2 grid axes; a forecaster's"):
        getattr(models, name)(mixer=NeighborhoodAttention, **arguments)
    getattr(models, name)(mixer=GatedLinearAttention, **arguments)
