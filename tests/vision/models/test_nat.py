"""Neighborhood Attention Transformer: parity with the published architecture, sizes of images, contracts.

The reference below follows the papers' definitions in float64 on a state dict named as the authors name theirs; it
shares no code with the model.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from quintet.core.attention import Attention, LinearAttention, NeighborhoodAttention, WindowAttention
from quintet.core.errors import QuintetError
from quintet.core.optim.parameter_groups import parameter_groups
from quintet.core.weights.described import description_of
from quintet.core.weights.pretrained import load_weights
from quintet.core.weights.records import build
from quintet.core.weights.registry import count_parameters, create_model
from quintet.vision.models import NeighborhoodAttentionTransformer
from quintet.vision.models.nat import alternating_dilations

SMALL = {"dim": 32, "depths": [2, 2], "kernel_size": 3, "num_classes": 5}


def relative_error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def images(height, width, batch=1, seed=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


# The published architecture


def official_state(dim, depths, mlp_ratio, kernel_size, classes, layer_scale):
    """Random weights under the authors' names."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def draw(name, *shape, scale=0.1, mean=0.0):
        state[name] = mean + scale * torch.randn(*shape, generator=generator)

    def norm(name, width):
        draw(f"{name}.weight", width, mean=1.0)
        draw(f"{name}.bias", width)

    def linear(name, out, width):
        draw(f"{name}.weight", out, width, scale=width**-0.5)
        draw(f"{name}.bias", out)

    for number, (before, after) in enumerate([(3, dim // 2), (dim // 2, dim)]):
        draw(f"patch_embed.proj.{number}.weight", after, before, 3, 3, scale=(9 * before) ** -0.5)
        draw(f"patch_embed.proj.{number}.bias", after)
    norm("patch_embed.norm", dim)
    for level, depth in enumerate(depths):
        width = dim * 2**level
        for block in range(depth):
            name = f"levels.{level}.blocks.{block}"
            norm(f"{name}.norm1", width)
            norm(f"{name}.norm2", width)
            draw(f"{name}.attn.rpb", width // 32, 2 * kernel_size - 1, 2 * kernel_size - 1, scale=1.0)
            linear(f"{name}.attn.qkv", 3 * width, width)
            linear(f"{name}.attn.proj", width, width)
            linear(f"{name}.mlp.fc1", int(mlp_ratio * width), width)
            linear(f"{name}.mlp.fc2", width, int(mlp_ratio * width))
            if layer_scale:
                draw(f"{name}.gamma1", width, mean=0.5)
                draw(f"{name}.gamma2", width, mean=0.5)
        if level < len(depths) - 1:
            draw(f"levels.{level}.downsample.reduction.weight", 2 * width, width, 3, 3, scale=(9 * width) ** -0.5)
            norm(f"levels.{level}.downsample.norm", 2 * width)
    norm("norm", dim * 2 ** (len(depths) - 1))
    linear("head", classes, dim * 2 ** (len(depths) - 1))
    return state


def neighbours(length, kernel_size, dilation):
    """For each place the places of its neighbours, and the offsets to them in units of dilation."""
    places, offsets = [], []
    for place in range(length):
        # A place meets only those it is a multiple of the dilation away from; among them its window is kept inside.
        residue = list(range(place % dilation, length, dilation))
        here = residue.index(place)
        first = min(max(here - kernel_size // 2, 0), len(residue) - kernel_size)
        places.append(residue[first : first + kernel_size])
        offsets.append([index - here for index in range(first, first + kernel_size)])
    return torch.tensor(places), torch.tensor(offsets)


def official_attention(x, state, name, kernel_size, dilation):
    batch, height, width, dim = x.shape
    heads = dim // 32
    qkv = F.linear(x, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"])
    query, key, value = qkv.reshape(batch, height, width, 3, heads, 32).permute(3, 0, 4, 1, 2, 5)
    rows, row_offsets = neighbours(height, kernel_size, dilation)
    columns, column_offsets = neighbours(width, kernel_size, dilation)
    pick = (slice(None), slice(None), rows[:, None, :, None], columns[None, :, None, :])
    bias = state[f"{name}.rpb"][
        :, row_offsets[:, None, :, None] + kernel_size - 1, column_offsets[None, :, None, :] + kernel_size - 1
    ]
    scores = torch.einsum("bhijd,bhijkld->bhijkl", query, key[pick]) / 32**0.5 + bias
    weights = scores.flatten(-2).softmax(dim=-1).unflatten(-1, (kernel_size, kernel_size))
    y = torch.einsum("bhijkl,bhijkld->bijhd", weights, value[pick]).flatten(3)
    return F.linear(y, state[f"{name}.proj.weight"], state[f"{name}.proj.bias"])


def official_features(state, x, depths, kernel_size=7, dilations=None):
    """Tokens of each level, and the logits, in float64."""
    state, x = {key: value.double() for key, value in state.items()}, x.double()

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    for number in range(2):
        name = f"patch_embed.proj.{number}"
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)
    x = norm(x.permute(0, 2, 3, 1), "patch_embed.norm")
    levels = []
    for level, depth in enumerate(depths):
        for block in range(depth):
            name = f"levels.{level}.blocks.{block}"
            one = torch.ones(())
            dilation = 1 if dilations is None else dilations[level][block]
            mixed = official_attention(norm(x, f"{name}.norm1"), state, f"{name}.attn", kernel_size, dilation)
            x = x + state.get(f"{name}.gamma1", one) * mixed
            hidden = F.linear(norm(x, f"{name}.norm2"), state[f"{name}.mlp.fc1.weight"], state[f"{name}.mlp.fc1.bias"])
            hidden = F.linear(F.gelu(hidden), state[f"{name}.mlp.fc2.weight"], state[f"{name}.mlp.fc2.bias"])
            x = x + state.get(f"{name}.gamma2", one) * hidden
        levels.append(x)
        if level < len(depths) - 1:
            name = f"levels.{level}.downsample"
            x = F.conv2d(x.permute(0, 3, 1, 2), state[f"{name}.reduction.weight"], stride=2, padding=1)
            x = norm(x.permute(0, 2, 3, 1), f"{name}.norm")
    x = norm(x, "norm")
    return levels, F.linear(x.mean(dim=(1, 2)), state["head.weight"], state["head.bias"])


# Published sizes


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("nat_mini", 19.98),
        ("nat_tiny", 27.90),
        ("nat_small", 50.74),
        ("nat_base", 89.77),
        ("dinat_mini", 19.98),
        ("dinat_tiny", 27.90),
        ("dinat_small", 50.72),
        ("dinat_base", 89.77),
        ("dinat_large", 200.94),
    ],
)
def test_parameter_counts_are_the_published_ones(name, millions):
    with torch.device("meta"):
        assert round(count_parameters(create_model(f"vision/{name}")) / 1e6, 2) == millions


def test_multiplications_of_dinat_mini_are_the_published_ones():
    """2.69 G at 224 pixels: of convolutions and linear layers, and 2 K^2 for each token and channel of an attention."""
    model, total = create_model("vision/dinat_mini").eval(), 0

    def count(layer, inputs, y):
        nonlocal total
        if isinstance(layer, NeighborhoodAttention):
            total += 2 * 49 * y.numel()
        elif isinstance(layer, nn.Conv2d):
            total += y.numel() * layer.weight[0].numel()
        else:
            total += y.numel() * layer.in_features

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | NeighborhoodAttention):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        model(images(224, 224))
    assert round(total / 1e9, 2) == 2.69


def test_dilations_alternate_as_published():
    assert alternating_dilations([3, 4, 6, 5]) == [[1, 8, 1], [1, 4, 1, 4], [1, 2, 1, 2, 1, 2], [1, 1, 1, 1, 1]]
    with torch.device("meta"):
        model = create_model("vision/dinat_large_384")
    assert model.encoder.stages[1].blocks[3].mixer.dilation == (6, 6)
    assert model.encoder.stages[2].blocks[4].mixer.dilation == (1, 1)


@pytest.mark.parametrize(
    ("name", "scaled"), [("nat_mini", False), ("nat_small", True), ("nat_base", True), ("dinat_small", False)]
)
def test_layer_scale_is_where_it_is_published(name, scaled):
    block = create_model(f"vision/{name}", depths=(1,)).encoder.stages[0].blocks[0]
    assert hasattr(block.scale1, "gamma") == scaled


# Parity


def test_nat_mini_agrees_with_the_published_architecture(tmp_path):
    depths = (3, 4, 6, 5)
    state = official_state(64, depths, 3, 7, 1000, layer_scale=False)
    torch.save(state, tmp_path / "nat_mini.pth")
    model = create_model("vision/nat_mini", pretrained=str(tmp_path / "nat_mini.pth")).eval()
    # The smallest image whose last map has the 7 x 7 tokens of 224 pixels.
    x = images(193, 193)
    levels, logits = official_features(state, x, depths)
    with torch.inference_mode():
        assert relative_error(model(x), logits) < 1e-5
        for found, expected in zip(model.feature_maps(x)[:3], levels):
            assert relative_error(found.movedim(1, -1), expected) < 1e-5


VARIANTS = {
    "layer scale": ({"layer_scale": 1e-5}, (120, 136)),
    "kernel 5": ({"kernel_size": 5}, (97, 131)),
    "dilation": ({"kernel_size": 3, "dilations": [[1, 4], [2, 1], [1, 2]]}, (101, 120)),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layout", ["SHI-Labs", "Hugging Face"])
def test_variants_agree_with_the_published_architecture(variant, layout, tmp_path):
    arguments, size = VARIANTS[variant]
    depths, kernel_size = (2, 2, 2), arguments.get("kernel_size", 7)
    state = official_state(32, depths, 2.5, kernel_size, 6, layer_scale="layer_scale" in arguments)
    save_file(state if layout == "SHI-Labs" else as_hugging_face(state), tmp_path / "weights.safetensors")
    model = NeighborhoodAttentionTransformer(num_classes=6, dim=32, depths=depths, mlp_ratio=2.5, **arguments).eval()
    report = load_weights(model, tmp_path / "weights.safetensors")
    assert report.layout == layout
    assert report.loaded == len(model.state_dict())
    x = images(*size, batch=2)
    levels, logits = official_features(state, x, depths, kernel_size, arguments.get("dilations"))
    with torch.inference_mode():
        assert relative_error(model(x), logits) < 1e-5
        assert relative_error(model.feature_maps(x)[1].movedim(1, -1), levels[1]) < 1e-5


def as_hugging_face(state):
    """The same weights as transformers names them: separate projections, both layer scales in one tensor."""
    renamed = {}
    names = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "attn.rpb": "attention.self.rpb",
    }
    for key, value in state.items():
        if key.startswith("levels"):
            _, level, kind, rest = key.split(".", 3)
            if kind == "downsample":
                renamed[f"dinat.encoder.levels.{level}.downsample.{rest}"] = value
                continue
            block, rest = rest.split(".", 1)
            prefix = f"dinat.encoder.levels.{level}.layers.{block}"
            if rest.startswith("attn.qkv."):
                for name, part in zip(("query", "key", "value"), value.chunk(3)):
                    renamed[f"{prefix}.attention.self.{name}.{rest.rsplit('.', 1)[1]}"] = part.clone()
            elif rest == "gamma1":
                pair = torch.stack([value, state[key.replace("gamma1", "gamma2")]])
                renamed[f"{prefix}.layer_scale_parameters"] = pair
            elif rest != "gamma2":
                for ours, theirs in names.items():
                    rest = rest.replace(ours, theirs)
                renamed[f"{prefix}.{rest}"] = value
        elif key.startswith("patch_embed"):
            key = key.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
            renamed["dinat." + key.replace("patch_embed.norm", "embeddings.norm")] = value
        else:
            renamed[key.replace("norm.", "dinat.layernorm.").replace("head.", "classifier.")] = value
    return renamed


def test_gradients_agree_with_the_published_architecture(tmp_path):
    depths = (2, 1)
    state = official_state(32, depths, 2, 3, 4, layer_scale=False)
    torch.save(state, tmp_path / "weights.pth")
    model = NeighborhoodAttentionTransformer(
        num_classes=4, dim=32, depths=depths, mlp_ratio=2.0, kernel_size=3, dilations=[[1, 2], 1]
    ).double()
    load_weights(model, tmp_path / "weights.pth")
    reference = {key: value.double().requires_grad_() for key, value in state.items()}
    x, target = images(40, 44, batch=2), torch.tensor([1, 3])
    F.cross_entropy(model(x.double()), target).backward()
    F.cross_entropy(official_features(reference, x, depths, 3, [[1, 2], [1]])[1], target).backward()
    named = dict(model.named_parameters())
    for ours, theirs in (
        ("stem.convolutions.0.weight", "patch_embed.proj.0.weight"),
        ("encoder.stages.0.blocks.1.mixer.rpb", "levels.0.blocks.1.attn.rpb"),
        ("encoder.stages.1.blocks.0.mixer.qkv.weight", "levels.1.blocks.0.attn.qkv.weight"),
        ("encoder.downsamples.0.reduction.weight", "levels.0.downsample.reduction.weight"),
    ):
        assert relative_error(named[ours].grad, reference[theirs].grad) < 1e-8


# Sizes


@pytest.mark.parametrize("size", [(97, 131), (288, 352)])
def test_nat_mini_takes_any_size(size):
    model = create_model("vision/nat_mini", num_classes=3, depths=(1, 1, 1, 1)).eval()
    with torch.inference_mode():
        maps = model.feature_maps(images(*size))
        assert model.forward_head(maps[-1].movedim(1, -1)).isfinite().all()
    assert model.feature_info == [(64, 4), (128, 8), (256, 16), (512, 32)]
    for features, (channels, stride) in zip(maps, model.feature_info, strict=True):
        assert features.shape == (1, channels, *(-(-side // stride) for side in size))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4]), st.sampled_from([3, 7]))
def test_any_size_gives_finite_maps_at_the_strides(height, width, stem_stride, kernel_size):
    arguments = SMALL | {"stem_stride": stem_stride, "kernel_size": kernel_size, "dilations": [[1, 3], 1]}
    model = NeighborhoodAttentionTransformer(**arguments).eval()
    with torch.inference_mode():
        maps = model.feature_maps(images(height, width))
    assert [info[1] for info in model.feature_info] == [stem_stride, 2 * stem_stride]
    for features, (channels, stride) in zip(maps, model.feature_info, strict=True):
        assert features.shape == (1, channels, -(-height // stride), -(-width // stride))
        assert features.isfinite().all()


def test_a_map_narrower_than_the_kernel_attends_to_all_of_it(tmp_path):
    """On a 3 x 5 grid, kernel 7 sees every token: the same as kernel 3 by 5 with the middle of the bias."""
    torch.manual_seed(0)
    wide = NeighborhoodAttentionTransformer(dim=32, depths=[2], num_classes=4, stem_stride=1).eval()
    exact = NeighborhoodAttentionTransformer(
        dim=32, depths=[2], num_classes=4, stem_stride=1, mixer=partial(NeighborhoodAttention, kernel_size=(3, 5))
    ).eval()
    state = wide.state_dict()
    exact.load_state_dict({key: value[:, 4:9, 2:11] if key.endswith("rpb") else value for key, value in state.items()})
    with torch.inference_mode():
        assert relative_error(wide(images(3, 5)), exact(images(3, 5))) < 1e-6


# Mixers and refusals


@pytest.mark.parametrize("mixer", [LinearAttention, Attention, partial(NeighborhoodAttention, relative_bias=False)])
def test_another_mixer_learns(mixer):
    model = NeighborhoodAttentionTransformer(num_classes=5, dim=32, depths=[1, 1], mixer=mixer, drop_path=0.1)
    F.cross_entropy(model(images(40, 32, batch=2)), torch.tensor([1, 3])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dilations": [1, 2, 3]}, r"dilations=\[1, 2, 3\] do not fit depths=\[2, 2\]"),
        ({"dilations": [[1, 2, 1], 1]}, "do not fit depths"),
        ({"mixer": Attention}, "kernel_size and dilations are of neighborhood attention"),
        ({"stem_stride": 3}, "stem_stride is 1, 2 or 4"),
        ({"kernel_size": None, "mixer": partial(NeighborhoodAttention, rank=1)}, "1 grid axes, here they have 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message):
    with pytest.raises(QuintetError, match=message) as refusal:
        NeighborhoodAttentionTransformer(**SMALL | arguments)
    assert "\n" not in str(refusal.value)


def test_images_of_other_channels_are_refused():
    with pytest.raises(QuintetError, match=r"\(batch, 1, height, width\).*in_channels"):
        NeighborhoodAttentionTransformer(**SMALL, in_channels=1)(images(32, 32))


# Contracts of vision models


def test_layer_groups_claim_everything_but_head_and_last_norm():
    model = NeighborhoodAttentionTransformer(**SMALL)
    groups = model.layer_groups()
    assert len(groups) == 5
    assert groups[3] == ["encoder.stages.1.blocks.0", "encoder.downsamples.0"]
    claimed = tuple(prefix for group in groups for prefix in group)
    rest = {name for name, _ in model.named_parameters() if not name.startswith(claimed)}
    assert rest == {"norm.weight", "norm.bias", *model.head_keys}


def test_relative_position_bias_and_vectors_are_not_decayed():
    model = NeighborhoodAttentionTransformer(**SMALL, layer_scale=1e-5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {
        names[id(parameter)]
        for group in parameter_groups(model, 1e-3, 0.1, model.layer_groups(), 0.7)
        if group["weight_decay"]
        for parameter in group["params"]
    }
    assert {name for name in names.values() if name.endswith(("weight",)) and "norm" not in name} == decayed


def test_describes_itself():
    model = NeighborhoodAttentionTransformer(**SMALL, dilations=[[1, 2], 1]).eval()
    again = build(description_of(model)).eval()
    again.load_state_dict(model.state_dict())
    x = images(33, 20)
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


def test_without_a_head_the_pooled_features_come_out():
    model = NeighborhoodAttentionTransformer(**SMALL | {"num_classes": 0}).eval()
    x = images(32, 32)
    torch.testing.assert_close(model(x), model.feature_maps(x)[-1].mean(dim=(2, 3)))


def test_layer_scale_and_initialisation():
    model = NeighborhoodAttentionTransformer(dim=64, depths=[1, 1], layer_scale=1e-5)
    block = model.encoder.stages[1].blocks[0]
    assert (block.scale2.gamma == 1e-5).all()
    for weight in (model.head.weight, block.mixer.qkv.weight, block.mixer.rpb, block.feedforward.fc1.weight):
        assert weight.abs().max() <= 0.04
        # The standard deviation of a normal distribution cut at two units is 0.88 of a unit.
        assert weight.std().item() == pytest.approx(0.0176, rel=0.05)


@pytest.mark.compilation
def test_compiles_whole():
    model = NeighborhoodAttentionTransformer(**SMALL | {"depths": [1, 1]}, dilations=[2, 1]).eval()
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        x = images(30, 40)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize(("grid", "dilation"), [((9, 11), 1), ((15, 14), 2)])
def test_agrees_with_natten_with_the_bias(grid, dilation):
    """natten no longer has the bias. It is written as more channels of it: a query holds its row of biases to every
    place, a key holds the one place it is at, and their product is the bias."""
    natten = pytest.importorskip("natten", reason="needs natten, of [peers]")
    torch.manual_seed(0)
    mixer = NeighborhoodAttention(64, kernel_size=7, dilation=dilation)
    nn.init.normal_(mixer.rpb)
    x = torch.randn(2, *grid, 64)
    query, key, value = mixer.qkv(x).unflatten(-1, (3, 2, 32)).unbind(-3)
    places = torch.cartesian_prod(*map(torch.arange, grid))
    steps = places[None] - places[:, None]  # from query to key
    inside = ((steps % dilation == 0) & (steps.abs() <= 6 * dilation)).all(-1)
    rows, columns = (steps // dilation + 6).clamp(0, 12).unbind(-1)
    biases = torch.where(inside, mixer.rpb[:, rows, columns], 0.0)  # (heads, queries, keys)
    more = biases.movedim(0, 1).unflatten(0, grid).expand(2, -1, -1, -1, -1) * 32**0.5
    where = torch.eye(len(places)).unflatten(0, grid)[None, :, :, None].expand(2, -1, -1, 2, -1)
    # natten takes heads of a power of two.
    wide = torch.cat([query, more], -1), torch.cat([key, where], -1), value
    parts = [F.pad(part.detach(), (0, 256 - part.shape[-1])) for part in wide]
    with torch.no_grad():
        y = natten.na2d(*parts, kernel_size=7, dilation=dilation, scale=32**-0.5)[..., :32]
        assert relative_error(mixer(x), mixer.proj(y.flatten(-2))) < 1e-5


@pytest.mark.parametrize("mixer", [None, WindowAttention, Attention])
def test_attention_of_any_kind_starts_as_the_authors_draw_it(mixer):
    """N(0, 0.02²) cut at two units has a deviation of 0.88 * 0.02; torch's own layers would have 0.1."""
    torch.manual_seed(0)
    net = NeighborhoodAttentionTransformer(num_classes=0, dim=32, depths=(1, 1), mixer=mixer)
    for stage in net.encoder.stages:
        for layer in (stage.blocks[0].mixer.qkv, stage.blocks[0].mixer.proj):
            assert layer.weight.std().item() == pytest.approx(0.0176, rel=0.1)
            assert not layer.bias.any()


def test_mixers_that_rely_on_how_they_start_keep_it():
    torch.manual_seed(0)
    net = NeighborhoodAttentionTransformer(num_classes=0, dim=32, depths=(1,), mixer=LinearAttention)
    assert net.encoder.stages[0].blocks[0].mixer.qkv.weight.std().item() == pytest.approx(32**-0.5 / 3**0.5, rel=0.1)
