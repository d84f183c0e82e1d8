"""Vision Transformer: parity with timm at several sizes and poolings, mixers on the grid, contracts."""

from functools import partial

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from quintet.core.attention import Attention, LinearAttention, NeighborhoodAttention
from quintet.core.errors import QuintetError
from quintet.core.optim.parameter_groups import parameter_groups
from quintet.core.weights.described import description_of
from quintet.core.weights.pretrained import load_weights
from quintet.core.weights.records import build
from quintet.core.weights.registry import count_parameters, create_model
from quintet.vision.models import VisionTransformer

SMALL = {"dim": 64, "depth": 2, "patch_size": 8, "image_size": 32, "num_classes": 5}


def relative_error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def peer(name="vit_tiny_patch16_224", **arguments):
    """timm's model with random weights, of which none is left at zero or one."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def images(height, width, batch=2, seed=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


# Published sizes


@pytest.mark.parametrize(
    ("name", "timm_name"),
    [
        ("vit_tiny", "vit_tiny_patch16_224"),
        ("vit_small", "vit_small_patch16_224"),
        ("vit_small_patch8", "vit_small_patch8_224"),
        ("vit_small_patch32", "vit_small_patch32_224"),
        ("vit_base", "vit_base_patch16_224"),
        ("vit_base_patch8", "vit_base_patch8_224"),
        ("vit_base_patch32", "vit_base_patch32_224"),
        ("vit_large", "vit_large_patch16_224"),
        ("vit_large_patch32", "vit_large_patch32_224"),
    ],
)
def test_parameter_counts_are_those_of_timm(name, timm_name):
    with torch.device("meta"):
        ours, theirs = create_model(f"vision/{name}"), timm.create_model(timm_name, num_classes=1000)
    # The position of the class token is part of the class token.
    assert count_parameters(ours) == count_parameters(theirs) - theirs.embed_dim


@pytest.mark.parametrize(
    ("name", "millions"), [("vit_tiny", 5.72), ("vit_small", 22.05), ("vit_base", 86.57), ("vit_large", 304.33)]
)
def test_parameter_counts_are_the_published_ones(name, millions):
    with torch.device("meta"):
        assert round(count_parameters(create_model(f"vision/{name}")) / 1e6, 2) == millions


# Parity with timm


def test_loads_files_of_timm_and_agrees(tmp_path):
    theirs = peer()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "weights.pth")
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    x = images(224, 224)
    with torch.inference_mode():
        expected, features = theirs(x), theirs.forward_features(x)
        for name in ("weights.pth", "weights.safetensors"):
            ours = create_model("vision/vit_tiny", pretrained=str(tmp_path / name)).eval()
            assert relative_error(ours(x), expected) < 1e-5
        assert relative_error(ours.forward_features(x), features) < 1e-5


VARIANTS = {
    "larger image, positions resampled": ({"dynamic_img_size": True}, {}, (96, 160)),
    "image padded": ({"dynamic_img_size": True, "dynamic_img_pad": True}, {}, (83, 70)),
    "average of patches": (
        {"global_pool": "avg", "class_token": False, "fc_norm": False},
        {"pooling": "average"},
        (64, 64),
    ),
    "registers with positions": ({"reg_tokens": 3}, {"register_tokens": 3}, (64, 64)),
    "registers without positions": ({"reg_tokens": 3, "no_embed_class": True}, {"register_tokens": 3}, (64, 64)),
    "average beside registers": (
        {"global_pool": "avg", "class_token": False, "fc_norm": False, "reg_tokens": 2},
        {"pooling": "average", "register_tokens": 2},
        (64, 64),
    ),
    "layer scale": ({"init_values": 0.1}, {"layer_scale": 0.1}, (64, 64)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_agree_with_timm(variant, tmp_path):
    theirs, ours, size = VARIANTS[variant]
    theirs = peer(img_size=64, depth=3, num_classes=7, **theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = VisionTransformer(image_size=64, depth=3, num_classes=7, **ours)
    report = load_weights(ours, tmp_path / "weights.pth")
    assert report.layout == "timm"
    assert report.loaded == len(ours.state_dict())
    with torch.inference_mode():
        x = images(*size)
        assert relative_error(ours.eval()(x), theirs(x)) < 1e-5


def test_gradients_agree_with_timm(tmp_path):
    theirs = peer(img_size=32, depth=2, num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = VisionTransformer(image_size=32, depth=2, num_classes=7)
    load_weights(ours, tmp_path / "weights.pth")
    x, target = images(32, 32, batch=3), torch.tensor([1, 0, 6])
    for model in (ours, theirs):
        torch.nn.functional.cross_entropy(model(x), target).backward()
    named = dict(ours.named_parameters())
    for key, value in theirs.named_parameters():
        if key.startswith("blocks.0.attn.qkv"):
            assert relative_error(named[key.replace("blocks.0.attn", "encoder.blocks.0.mixer")].grad, value.grad) < 1e-4
    patches = named["position.position"].grad.flatten(0, 1)
    assert relative_error(patches, theirs.pos_embed.grad[0, 1:]) < 1e-4
    assert relative_error(named["class_token"].grad, theirs.cls_token.grad) < 1e-4


@pytest.mark.parametrize("registers", [0, 2])
def test_the_class_token_alone_is_that_among_all(registers):
    network = VisionTransformer(image_size=32, dim=32, depth=3, num_heads=2, num_classes=5, register_tokens=registers)
    images = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(network(images), network.forward_head(network.forward_features(images)))


def test_a_head_of_another_size_is_left_as_initialised(tmp_path):
    torch.save(peer(img_size=32, depth=2).state_dict(), tmp_path / "weights.pth")
    report = load_weights(VisionTransformer(image_size=32, depth=2, num_classes=3), tmp_path / "weights.pth")
    assert sorted(report.head_replaced) == ["head.bias", "head.weight"]
    assert report.missing == report.unexpected == []


def test_weights_of_another_size_are_refused(tmp_path):
    torch.save(peer(img_size=32, depth=2).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(QuintetError, match=r"position\.position"):
        load_weights(VisionTransformer(image_size=64, depth=2), tmp_path / "weights.pth")


# Mixers


def test_a_mixer_of_images_works_where_the_patches_keep_their_grid():
    seen = []

    class Spy(NeighborhoodAttention):
        def forward(self, x, mask=None):
            seen.append(tuple(x.shape))
            return super().forward(x, mask)

    model = VisionTransformer(**SMALL, pooling="average", mixer=partial(Spy, kernel_size=3))
    assert model(images(24, 40)).shape == (2, 5)
    assert seen == [(2, 3, 5, 64)] * 2
    assert model.forward_features(images(24, 40)).shape == (2, 3, 5, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixer": NeighborhoodAttention}, r"takes tokens on 2 grid axes, here they have 1: class token stand"),
        (
            {"mixer": NeighborhoodAttention, "pooling": "average", "register_tokens": 2},
            r"takes tokens on 2 grid axes, here they have 1: register tokens stand.*register_tokens=0",
        ),
        ({"mixer": partial(NeighborhoodAttention, rank=1), "pooling": "average"}, "here they have 2: pooling='token'"),
        ({"mixer": Attention, "num_heads": 2}, "num_heads"),
        ({"pooling": "maximum"}, "pooling"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message):
    with pytest.raises(QuintetError, match=message) as refusal:
        VisionTransformer(**SMALL | arguments)
    assert "\n" not in str(refusal.value)


def test_images_of_other_channels_are_refused():
    with pytest.raises(QuintetError, match=r"\(batch, 1, height, width\).*in_channels"):
        VisionTransformer(**SMALL, in_channels=1)(images(32, 32))


@pytest.mark.parametrize("mixer", [LinearAttention, partial(NeighborhoodAttention, rank=1, kernel_size=3)])
def test_another_mixer_learns(mixer):
    model = VisionTransformer(**SMALL, mixer=mixer, drop_path=0.1)
    torch.nn.functional.cross_entropy(model(images(32, 32)), torch.tensor([1, 3])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# Contracts of vision models


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["token", "average"]), st.integers(0, 2))
def test_feature_maps_are_those_of_the_patches_at_any_size(height, width, pooling, registers):
    model = VisionTransformer(**SMALL, pooling=pooling, register_tokens=registers).eval()
    x = images(height, width)
    (features,) = model.feature_maps(x)
    ((channels, stride),) = model.feature_info
    assert features.shape == (2, channels, -(-height // stride), -(-width // stride))
    if pooling == "average":
        torch.testing.assert_close(model.head(features.mean(dim=(2, 3))), model(x))


def test_layer_groups_claim_everything_but_head_and_last_norm():
    model = VisionTransformer(**SMALL, register_tokens=2)
    groups = model.layer_groups()
    assert len(groups) == 3
    claimed = tuple(prefix for group in groups for prefix in group)
    rest = {name for name, _ in model.named_parameters() if not name.startswith(claimed)}
    assert rest == {"encoder.norm.weight", "encoder.norm.bias", *model.head_keys}


def test_tokens_and_positions_are_not_decayed():
    model = VisionTransformer(**SMALL, register_tokens=2)
    decayed = [
        parameter
        for group in parameter_groups(model, 1e-3, 0.1, model.layer_groups(), 0.7)
        if group["weight_decay"]
        for parameter in group["params"]
    ]
    for parameter in (model.class_token, model.register_tokens, model.position.position, model.head.bias):
        assert all(parameter is not other for other in decayed)
    assert any(model.head.weight is other for other in decayed)


def test_describes_itself():
    model = VisionTransformer(**SMALL, mixer=partial(LinearAttention, num_heads=4)).eval()
    again = build(description_of(model)).eval()
    again.load_state_dict(model.state_dict())
    x = images(32, 32)
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


def test_without_a_head_the_pooled_features_come_out():
    model = VisionTransformer(**SMALL | {"num_classes": 0}).eval()
    x = images(32, 32)
    torch.testing.assert_close(model(x), model.forward_features(x)[:, 0])
    assert not [key for key in model.state_dict() if key.startswith("head")]


def test_initialisation_is_truncated_normal_and_leaves_other_mixers_alone():
    model = VisionTransformer(dim=192, depth=1)
    for weight in (
        model.head.weight,
        model.encoder.blocks[0].mixer.qkv.weight,
        model.encoder.blocks[0].feedforward.fc1.weight,
    ):
        assert weight.abs().max() <= 0.04
        # The standard deviation of a normal distribution cut at two units is 0.88 of a unit.
        assert abs(weight.std().item() / 0.0176 - 1) < 0.02
    torch.manual_seed(0)
    expected = LinearAttention(64)
    torch.manual_seed(0)
    model = VisionTransformer(**SMALL | {"depth": 1}, mixer=lambda dim: _seeded(dim))
    for name, parameter in model.encoder.blocks[0].mixer.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), rtol=0, atol=0)


def _seeded(dim):
    torch.manual_seed(0)
    return LinearAttention(dim)


@pytest.mark.compilation
@pytest.mark.parametrize("pooling", ["token", "average"])
def test_compiles_whole(pooling):
    model = VisionTransformer(**SMALL | {"depth": 1}, pooling=pooling).eval()
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        x = images(30, 40)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
