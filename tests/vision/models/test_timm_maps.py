"""Feature maps of timm's models: channels first, at any size, with any number of channels."""

import pytest
import timm
import torch
from timm.models import group_parameters

from quintet.core.errors import QuintetError
from quintet.vision.models.timm_maps import TimmMaps

# One of each kind: strides from 2, channels last, one stride, a fixed size, sizes off by a remainder.
FAMILIES = ("resnet10t", "mambaout_femto", "vit_tiny_patch16_224", "convit_tiny", "poolformerv2_s12")


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_where_their_strides_say(name):
    maps = TimmMaps(name, in_channels=4).eval()
    for size in ((160, 96), (97, 131)):
        with torch.inference_mode():
            found = maps.feature_maps(torch.randn(1, 4, *size))
        expected = [
            (1, channels, -(-size[0] // stride), -(-size[1] // stride)) for channels, stride in maps.feature_info
        ]
        assert [tuple(x.shape) for x in found] == expected
    assert (maps.fixed_size is not None) == (name == "convit_tiny")


def test_maps_are_timms_own():
    maps = TimmMaps("resnet10t").eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        for ours, theirs in zip(maps.feature_maps(images), maps.network(images)):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["resnet10t", "convit_tiny"])
def test_maps_are_built_ready_to_be_trained(name):
    """Trying sizes turns dropout and batch statistics off for a moment only."""
    assert all(module.training for module in TimmMaps(name).modules())


def test_weights_from_a_file_are_adapted_to_other_channels(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("resnet10t")
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    maps = TimmMaps("resnet10t", in_channels=1)
    maps.load(str(tmp_path / "weights.pth"), is_file=True)
    assert torch.equal(maps.network.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    torch.testing.assert_close(maps.network.conv1[0].weight, source.conv1[0].weight.sum(1, keepdim=True))


# Taken as lists of layers, through hooks, through timm's getter, and with names that hold underscores themselves.
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mambaout_femto", "regnetx_002", "levit_128s"])
def test_layers_are_ordered_as_timm_orders_those_of_its_classifier(name):
    maps, whole = TimmMaps(name), timm.create_model(name)
    groups = maps.layer_groups()
    assert sorted(key for group in groups for key in group) == sorted(key for key, _ in maps.named_parameters())
    theirs = group_parameters(whole, whole.group_matcher(coarse=False))
    shapes = {key: parameter.shape for key, parameter in [*maps.named_parameters(), *whole.named_parameters()]}
    # Layer by layer the same parameters, but for the head and what maps leave out.
    for ours, layer in zip(groups[:-1], sorted(theirs)):
        assert [shapes[key] for key in ours] == [shapes[key] for key in theirs[layer]]


def test_a_model_whose_layers_timm_does_not_order_has_no_groups():
    assert TimmMaps("poolformerv2_s12").layer_groups() == []


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("resnt18", {}, "timm has no model 'resnt18'; nearest: resnet18"),
        ("resnet10t", {"depht": 3}, "timm:resnet10t gives no feature maps with"),
    ],
)
def test_mistakes_are_one_line(name, arguments, complaint):
    with pytest.raises(QuintetError) as caught:
        TimmMaps(name, arguments=arguments)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
