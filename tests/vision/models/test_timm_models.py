"""Our backbones in timm's registry: what timm's users do with a model, and published weights in timm's way."""

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from quintet.core.errors import QuintetError
from quintet.core.optim.parameter_groups import parameter_groups
from quintet.core.weights.registry import create_model, list_models
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
    assert model.pretrained_cfg["pool_size"] == (None if "vit" in name else (7, 7))


@pytest.mark.parametrize("name", SMALL)
def test_features_without_a_pool(name):
    images = torch.randn(2, 3, 64, 48)
    model = small(name, num_classes=0, global_pool="")
    with torch.inference_mode():
        torch.testing.assert_close(model(images), model.forward_features(images))
        pooled = small(name, num_classes=0)
        expected = pooled(images)
        pooled.reset_classifier(0, "")
        torch.testing.assert_close(pooled(images), pooled.forward_features(images))
        pooled.reset_classifier(0, "token" if "vit" in name else "avg")
        torch.testing.assert_close(pooled(images), expected)
        if "vit" in name:
            pooled.reset_classifier(0, "avg")
            torch.testing.assert_close(pooled(images), pooled.forward_features(images)[:, 1:].mean(1))


def test_another_size_gets_the_positions_resampled():
    model, images = small("quintet_vit_tiny", dynamic_img_size=True), torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        expected = model(images)
        model.set_input_size((96, 64))
        torch.testing.assert_close(model(images), expected)
    assert model.network.position.position.shape == (6, 4, 192)
    assert model.network.position.position.requires_grad
    maps = small("quintet_nat_mini")
    maps.set_input_size(96)
    assert maps(images).shape == (1, 1000)


def test_intermediates_of_a_vision_transformer_are_timms(tmp_path):
    arguments = {"depth": 3, "img_size": 32}
    theirs = timm.create_model("vit_tiny_patch16_224", **arguments).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth")}
    ours = timm.create_model("quintet_vit_tiny", pretrained=True, pretrained_cfg_overlay=overlay, **arguments).eval()
    assert [info["reduction"] for info in ours.feature_info] == [info["reduction"] for info in theirs.feature_info]
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        for asked in (
            {"indices": 2, "norm": True, "output_fmt": "NLC"},
            {"indices": [0, -1], "return_prefix_tokens": True},
            {"indices": [1], "stop_early": True},
            {"indices": None, "intermediates_only": True},
        ):
            found, expected = (model.forward_intermediates(images, **asked) for model in (ours, theirs))
            torch.testing.assert_close(flat(found), flat(expected), rtol=1e-4, atol=1e-4)
        for model in (ours, theirs):
            assert model.prune_intermediate_layers([0, 1], prune_norm=True) == [0, 1]
        found, expected = (model.forward_intermediates(images, [1], norm=True) for model in (ours, theirs))
        torch.testing.assert_close(flat(found), flat(expected), rtol=1e-4, atol=1e-4)
    assert len(ours.network.encoder.blocks) == 2


def flat(found):
    """All tensors of nested lists and pairs, in order."""
    return [found] if isinstance(found, torch.Tensor) else [x for part in found for x in flat(part)]


@pytest.mark.parametrize("name", ["quintet_nat_mini", "quintet_mit_b0"])
def test_intermediates_of_a_pyramid_are_its_stages(name):
    model, images = small(name), torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        maps = model.network.feature_maps(images)
        last, found = model.forward_intermediates(images, norm=True)
        torch.testing.assert_close(flat(found), maps)
        torch.testing.assert_close(last, model.forward_features(images))
        tokens = model.forward_intermediates(images, [1], output_fmt="NLC", intermediates_only=True)
        torch.testing.assert_close(tokens, [maps[1].flatten(2).transpose(1, 2)])
        early, (second,) = model.forward_intermediates(images, [1], stop_early=True)
        torch.testing.assert_close(early, second)
        if "nat" in name:
            raw = model.forward_intermediates(images, 1, intermediates_only=True)
            normed = model.network.norm(raw[0].movedim(1, -1)).movedim(-1, 1)
            torch.testing.assert_close(normed, maps[-1])
        assert model.prune_intermediate_layers([1], prune_norm=True) == [1]
        assert len(model.network.encoder.stages) == 2
        torch.testing.assert_close(model.forward_intermediates(images, [1], intermediates_only=True), [maps[1]])


@pytest.mark.parametrize("name", SMALL)
def test_timms_optimizer_decays_what_ours_does(name):
    from timm.optim import create_optimizer_v2

    model = small(name, num_classes=3)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    decayed = {names[id(p)] for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    ours = parameter_groups(model.network, 1e-3, 0.05)
    assert decayed == {names[id(p)] for group in ours if group["weight_decay"] for p in group["params"]}
    assert not {"network.class_token", "network.position.position"} & decayed
    layered = create_optimizer_v2(model, opt="sgd", lr=1.0, weight_decay=0.05, layer_decay=0.5)
    assert len({group["lr_scale"] for group in layered.param_groups}) == len(model.network.layer_groups()) + 1


@pytest.mark.compilation
@pytest.mark.parametrize("name", SMALL)
def test_tracing(name):
    model, images = small(name), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(torch.jit.trace(model, images)(images), model(images))


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
        (lambda: small("quintet_nat_mini", global_pool="max"), "global_pool is 'avg' or '' for this model; got 'max'"),
        (lambda: small("quintet_nat_mini", global_pool=""), "add num_classes=0"),
        (lambda: small("quintet_nat_mini", dynamic_img_size=False), "images of any size"),
        (lambda: small("quintet_nat_mini").set_input_size(64, patch_size=8), "leave patch_size out"),
        (
            lambda: small("quintet_nat_mini").forward_intermediates(torch.zeros(1, 3, 32, 32), output_fmt="NHWC"),
            "output_fmt is 'NCHW' or 'NLC'; got 'NHWC'",
        ),
        (
            lambda: small("quintet_mit_b0").forward_intermediates(torch.zeros(1, 3, 32, 32), return_prefix_tokens=True),
            "only the blocks of a Vision Transformer have prefix tokens",
        ),
        (lambda: torch.jit.script(small("quintet_mit_b0")), "TorchScript cannot read quintet's models"),
        (lambda: torch.fx.symbolic_trace(small("quintet_mit_b0")), "torch.fx.symbolic_trace cannot follow quintet's"),
        (lambda: small("quintet_nat_mini").forward_intermediates(torch.zeros(1, 3, 32, 32), [4]), "the maps 0 to 3"),
        (
            lambda: small("quintet_vit_tiny", global_pool="avg").reset_classifier(3, "token"),
            "global_pool is 'avg' or '' for this model; got 'token'",
        ),
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
