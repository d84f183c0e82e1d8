"""The classifier of patches: padding changes nothing, gaps hide what stands there, any mixer fits."""

import pytest
import torch

from quintet.core.attention import GatedLinearAttention
from quintet.core.errors import QuintetError
from quintet.core.ssm import MinGRU
from quintet.core.weights.registry import create_model
from quintet.timeseries.models import PatchClassifier, PatchEncoder


def series(length: int = 21, channels: int = 2):
    values = torch.randn(3, length, channels, generator=torch.Generator().manual_seed(0))
    return values, torch.ones(3, length, channels, dtype=torch.bool)


@pytest.mark.parametrize("mixer", [None, GatedLinearAttention, MinGRU])
@pytest.mark.parametrize(("patch_size", "stride"), [(8, 4), (5, 5), (3, 1)])
def test_padding_changes_nothing(mixer, patch_size, stride):
    torch.manual_seed(0)
    network = PatchClassifier(2, 3, dim=16, depth=1, patch_size=patch_size, stride=stride, mixer=mixer).eval().double()
    values, observed = series()
    values = values.double()
    alone = network(values, observed, None)
    garbage = torch.cat([values, torch.full((3, 13, 2), torch.nan, dtype=torch.float64)], 1)
    mask = torch.arange(34).expand(3, 34) < 21
    padded = network(garbage, torch.ones_like(garbage, dtype=torch.bool), mask)
    assert torch.allclose(alone, padded, rtol=1e-10, atol=1e-12)


def test_what_is_not_observed_changes_nothing():
    network = PatchClassifier(2, 3, dim=16, depth=1).eval()
    values, observed = series()
    observed[0, 4:9, 1] = False
    spoiled = values.clone()
    spoiled[0, 4:9, 1] = torch.nan
    assert torch.equal(network(values, observed), network(spoiled, observed))
    assert not torch.equal(network(values, observed), network(values, torch.ones_like(observed)))


def test_every_step_reaches_a_token_and_every_parameter_learns():
    network = PatchEncoder(2, dim=16, depth=1, patch_size=6, stride=4, dropout=0.0)
    values, observed = series(18)
    values.requires_grad_()
    tokens, mask = network(values, observed)
    assert tokens.shape == (3, 5, 16)
    assert mask is None
    tokens.square().sum().backward()
    assert (values.grad != 0).all()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_one_step_is_enough():
    network = create_model("timeseries/patch_classifier", channels=1, num_classes=2)
    assert network(torch.zeros(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)).shape == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"stride": 9, "patch_size": 8}, "stride=9 of patch_size=8; give 1 to 8, so that no step is lost"),
        ({"num_heads": 2, "mixer": MinGRU}, "num_heads is an argument of softmax attention"),
    ],
)
def test_what_is_refused(arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        PatchClassifier(2, 3, dim=16, **arguments)


def test_other_channels_are_refused():
    with pytest.raises(QuintetError, match="this model takes 2 channels; got values shaped"):
        PatchClassifier(2, 3, dim=16)(*series(channels=3))
