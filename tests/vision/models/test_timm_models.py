"""Our backbones in timm's registry: what timm's users do with a model, and published weights in timm's way."""

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from quintet.core.errors import QuintetError
from quintet.core.registry import create_model, list_models
from quintet.vision.models.timm_models import TimmModel

# One of each kind, as small as it may be made.
SMALL = {
    "quintet_vit_tiny": {"depth": 1, "img_size": 32},
    "quintet_nat_mini": {"dim": 32, "depths": (1, 1, 1, 1)},
    "quintet_dinat_mini": {"dim": 32, "depths": (1, 2, 1, 1)},
    "quintet_mit_b0": {"depths": (1, 1, 1, 1)},
}


def small(name, **arguments):
    torch.manual_seed(0)
    return timm.create_model(name, **SMALL[name] | arguments).eval()


def test_every_backbone_is_registered():
    ours = {f"quintet_{name.split('/')[1]}" for name in list_models("vision/*") if "segformer" not in name}
    assert set(timm.list_models("quintet_*")) == ours
    assert len(ours) >= 26
    assert "quintet_nat_tiny.in1k" in timm.list_pretrained("quintet_nat_*")


def test_timm_may_be_imported_later_and_is_not_by_us():
    code = "import sys, quintet.vision\nprint('timm' in sys.modules)\nimport timm\n"
    code += "print(timm.is_model('quintet_nat_tiny'), timm.__spec__.loader.__class__.__name__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["False", "True", "SourceFileLoader"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(288, 352), (97, 131)])
def test_features_only_are_maps_at_strides_4_to_32_of_any_size(name, size):
    model = small(name, features_only=True, in_chans=4, num_classes=0)
    with torch.inference_mode():
        maps = model(torch.randn(1, 4, *size))
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    expected = [
        (1, channels, -(-size[0] // stride), -(-size[1] // stride))
        for channels, stride in zip(model.feature_info.channels(), model.feature_info.reduction())
    ]
    assert [tuple(x.shape) for x in maps] == expected
    last = small(name, features_only=True, in_chans=4, out_indices=(-1,))
    assert last.feature_info.reduction() == [32]


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_of_the_maps_learns(name):
    model = small(name, features_only=True).train()
    sum(x.square().mean() for x in model(torch.randn(2, 3, 64, 64))).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", SMALL)
def test_what_timms_users_do_with_a_classifier(name):
    model, images = small(name, num_classes=7), torch.randn(2, 3, 64, 48)
    with torch.inference_mode():
        features = model.forward_features(images)
        assert features.ndim == (3 if "vit" in name else 4)
        pooled = model.forward_head(features, pre_logits=True)
        torch.testing.assert_close(model(images), model.get_classifier()(pooled))
        assert model(images).shape == (2, 7)
        assert pooled.shape == (2, model.num_features)
        last, maps = model.forward_intermediates(images, indices=1)
        torch.testing.assert_close(last, features)
        assert len(maps) == 1
        model.reset_classifier(0)
        torch.testing.assert_close(model(images), pooled)
        model.reset_classifier(3)
        assert model(images).shape == (2, 3)
    assert model.pretrained_cfg["first_conv"].startswith("network.")
    assert isinstance(model.get_submodule(model.pretrained_cfg["first_conv"]), nn.Conv2d)
    assert isinstance(model.get_submodule(model.pretrained_cfg["classifier"]), nn.Linear)
    assert timm.data.resolve_model_data_config(model)["input_size"] == (3, 224, 224)


@pytest.mark.parametrize("name", SMALL)
def test_layers_are_in_order(name):
    from timm.models import group_parameters
    from timm.optim import param_groups_layer_decay

    model = small(name, num_classes=7)
    groups = group_parameters(model, model.group_matcher(coarse=False))
    assert "network.head.weight" in groups[max(groups)]
    assert any("embedding" in key or "stem" in key for key in groups[0])
    assert sorted(groups) == list(range(len(groups)))
    coarse = group_parameters(model, model.group_matcher(coarse=True))
    assert len(coarse) == (3 if "vit" in name else 6)
    assert len(param_groups_layer_decay(model, layer_decay=0.5)) >= len(groups)


@pytest.mark.parametrize("name", SMALL)
def test_published_weights_load_by_timm(name, tmp_path):
    """From our names, with other channels and another head, in the way timm adapts both."""
    source = small(name, num_classes=1000)
    torch.save(source.network.state_dict(), tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth")}
    again = small(name, pretrained=True, pretrained_cfg_overlay=overlay)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in source.state_dict().items())
    other = small(name, pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1, num_classes=5)
    stem = source.pretrained_cfg["first_conv"]
    summed = source.get_submodule(stem).weight.sum(1, keepdim=True)
    torch.testing.assert_close(other.get_submodule(stem).weight, summed)
    maps = small(name, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True)
    assert torch.equal(maps.model.get_submodule(stem).weight, source.get_submodule(stem).weight)


def test_weights_in_the_layout_of_their_authors(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32).eval()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth")}
    ours = small("quintet_vit_tiny", pretrained=True, pretrained_cfg_overlay=overlay)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_quintet_reads_what_timm_trained(tmp_path):
    trained = small("quintet_nat_mini", num_classes=4)
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    ours = create_model("nat_mini", num_classes=4, pretrained=str(tmp_path / "weights.pth"), dim=32, depths=(1,) * 4)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), trained(images))


def test_dropout_before_the_head():
    model = small("quintet_mit_b0", drop_rate=0.5).train()
    features = model.forward_features(torch.randn(1, 3, 64, 64))
    assert (model.forward_head(features, pre_logits=True) == 0).any()


@pytest.mark.parametrize(
    ("ask", "complaint"),
    [
        (lambda: small("quintet_nat_mini", global_pool="max"), "global_pool is 'avg'"),
        (
            lambda: small("quintet_nat_mini").forward_intermediates(torch.zeros(1, 3, 32, 32), norm=True),
            "leave norm out",
        ),
        (lambda: small("quintet_nat_mini").forward_intermediates(torch.zeros(1, 3, 32, 32), [4]), "the maps 0 to 3"),
        (lambda: small("quintet_vit_tiny").reset_classifier(3, "avg"), "this model pools by 'token'"),
    ],
)
def test_what_a_model_does_not_have_is_refused(ask, complaint):
    with pytest.raises(QuintetError, match=complaint):
        ask()


def test_a_mixer_by_argument():
    from quintet.core.attention import LinearAttention

    model = small("quintet_nat_mini", mixer=LinearAttention, features_only=True)
    assert any(isinstance(module, LinearAttention) for module in model.modules())
    assert isinstance(model.model, TimmModel)
