"""SegFormer: published sizes, parity with the published architecture in its four layouts, sizes of images, masks.

The reference below follows the paper's definitions in float64 on a state dict named as the authors name theirs; it
shares no code with the model.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from quintet.core.aside import listening
from quintet.core.attention import LinearAttention
from quintet.core.errors import QuintetError
from quintet.core.weights.described import description_of
from quintet.core.weights.pretrained import load_weights
from quintet.core.weights.records import build
from quintet.core.weights.registry import count_parameters, create_model, list_models, model_entry
from quintet.vision.models import MixTransformer, SegFormerHead, SegmentationNetwork
from quintet.vision.models.segformer import MixFeedForward, SpatialReductionAttention

TINY = {"dims": (8, 12, 20, 16), "depths": (1, 2, 1, 1), "num_heads": (1, 2, 5, 4)}
REDUCTIONS = (8, 4, 2, 1)
HEAD = 24


def relative_error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def images(height, width, batch=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


# The published architecture


def official_state(classes=5):
    """Random weights of the tiny network under the authors' names."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def draw(name, *shape, scale=0.2, mean=0.0):
        state[name] = mean + scale * torch.randn(*shape, generator=generator)

    def norm(name, width):
        draw(f"{name}.weight", width, mean=1.0)
        draw(f"{name}.bias", width)

    def layer(name, out, *shape):
        draw(f"{name}.weight", out, *shape, scale=torch.Size(shape).numel() ** -0.5)
        draw(f"{name}.bias", out)

    before = 3
    for stage, (width, depth) in enumerate(zip(TINY["dims"], TINY["depths"]), start=1):
        size = 7 if stage == 1 else 3
        layer(f"backbone.patch_embed{stage}.proj", width, before, size, size)
        norm(f"backbone.patch_embed{stage}.norm", width)
        for block in range(depth):
            name = f"backbone.block{stage}.{block}"
            norm(f"{name}.norm1", width)
            norm(f"{name}.norm2", width)
            layer(f"{name}.attn.q", width, width)
            layer(f"{name}.attn.kv", 2 * width, width)
            layer(f"{name}.attn.proj", width, width)
            ratio = REDUCTIONS[stage - 1]
            if ratio > 1:
                layer(f"{name}.attn.sr", width, width, ratio, ratio)
                norm(f"{name}.attn.norm", width)
            layer(f"{name}.mlp.fc1", 4 * width, width)
            layer(f"{name}.mlp.dwconv.dwconv", 4 * width, 1, 3, 3)
            layer(f"{name}.mlp.fc2", width, 4 * width)
        norm(f"backbone.norm{stage}", width)
        layer(f"decode_head.linear_c{stage}.proj", HEAD, width)
        before = width
    draw("decode_head.linear_fuse.conv.weight", HEAD, 4 * HEAD, 1, 1, scale=(4 * HEAD) ** -0.5)
    norm("decode_head.linear_fuse.bn", HEAD)
    draw("decode_head.linear_fuse.bn.running_mean", HEAD)
    state["decode_head.linear_fuse.bn.running_var"] = 0.5 + torch.rand(HEAD, generator=generator)
    state["decode_head.linear_fuse.bn.num_batches_tracked"] = torch.tensor(3)
    layer("decode_head.linear_pred", classes, HEAD, 1, 1)
    # mmsegmentation's base class leaves this in every file.
    layer("decode_head.conv_seg", classes, HEAD, 1, 1)
    return state


def official(state, x, eps=1e-6):
    """Maps of the four stages and the scores at stride 4, in float64."""
    state, x = {key: value.double() for key, value in state.items()}, x.double()

    def norm(x, name, eps):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def convolution(x, name, **arguments):
        y = F.conv2d(x.permute(0, 3, 1, 2), state[f"{name}.weight"], state[f"{name}.bias"], **arguments)
        return y.permute(0, 2, 3, 1)

    def attention(x, name, heads, ratio):
        context = x
        if ratio > 1:
            context = norm(convolution(x, f"{name}.sr", stride=ratio), f"{name}.norm", 1e-5)
        query, (key, value) = linear(x, f"{name}.q"), linear(context, f"{name}.kv").chunk(2, dim=-1)
        parts = []
        for q, k, v in zip(*(part.flatten(1, 2).chunk(heads, dim=-1) for part in (query, key, value))):
            parts.append((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v)
        return linear(torch.cat(parts, dim=-1).view_as(x), f"{name}.proj")

    maps, x = [], x.permute(0, 2, 3, 1)
    for stage in range(1, 5):
        size, stride = (7, 4) if stage == 1 else (3, 2)
        x = convolution(x, f"backbone.patch_embed{stage}.proj", stride=stride, padding=size // 2)
        x = norm(x, f"backbone.patch_embed{stage}.norm", 1e-5)
        for block in range(TINY["depths"][stage - 1]):
            name = f"backbone.block{stage}.{block}"
            mixed = norm(x, f"{name}.norm1", eps)
            x = x + attention(mixed, f"{name}.attn", TINY["num_heads"][stage - 1], REDUCTIONS[stage - 1])
            hidden = linear(norm(x, f"{name}.norm2", eps), f"{name}.mlp.fc1")
            hidden = convolution(hidden, f"{name}.mlp.dwconv.dwconv", padding=1, groups=hidden.shape[-1])
            x = x + linear(F.gelu(hidden), f"{name}.mlp.fc2")
        x = norm(x, f"backbone.norm{stage}", eps)
        maps.append(x)
    projected = [linear(x, f"decode_head.linear_c{stage}.proj") for stage, x in enumerate(maps, start=1)]
    projected = [x.permute(0, 3, 1, 2) for x in projected]
    projected = [F.interpolate(x, projected[0].shape[2:], mode="bilinear", align_corners=False) for x in projected]
    fused = F.conv2d(torch.cat(projected[::-1], dim=1), state["decode_head.linear_fuse.conv.weight"])
    bn = "decode_head.linear_fuse.bn"
    fused = F.batch_norm(
        fused,
        *(state[f"{bn}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")),
        training=False,
        eps=1e-5,
    )
    scores = F.conv2d(fused.relu(), state["decode_head.linear_pred.weight"], state["decode_head.linear_pred.bias"])
    return maps, scores


def as_smp(state):
    """The same weights as segmentation_models_pytorch names them."""
    renamed = {}
    names = {
        "backbone.": "encoder.",
        **{f"decode_head.linear_c{stage}.proj": f"decoder.mlp_stage.{4 - stage}.linear" for stage in range(1, 5)},
        "decode_head.linear_fuse.conv": "decoder.fuse_stage.0",
        "decode_head.linear_fuse.bn": "decoder.fuse_stage.1",
        "decode_head.linear_pred": "segmentation_head.0",
    }
    for key, value in state.items():
        if "conv_seg" not in key:
            for theirs, ours in names.items():
                key = key.replace(theirs, ours)
            renamed[key] = value
    return renamed


def as_hugging_face(state, generation):
    """The same weights as transformers names them: separate keys and values, stages counted from 0."""
    renamed = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part == "decode_head":
            theirs = {"linear_fuse.conv": "linear_fuse", "linear_fuse.bn": "batch_norm", "linear_pred": "classifier"}
            for name, short in theirs.items():
                rest = rest.replace(name, short)
            if rest.startswith("linear_c") and "." in rest:
                stage, rest = int(rest[8]) - 1, rest[10:]
                rest = f"linear_c.{stage}.{rest}" if generation == 4 else f"linear_projections.{stage}.{rest}"
            if not rest.startswith("conv_seg"):
                renamed[f"decode_head.{rest}"] = value
            continue
        stage = int(rest.split(".")[0][-1]) - 1
        inner = rest.split(".", 1)[1]
        if rest.startswith("norm"):
            name = f"encoder.layer_norm.{stage}." if generation == 4 else f"stages.{stage}.layer_norm."
        elif rest.startswith("patch_embed"):
            name = f"encoder.patch_embeddings.{stage}." if generation == 4 else f"stages.{stage}.patch_embeddings."
            inner = inner.replace("norm.", "layer_norm.")
        else:
            name = f"encoder.block.{stage}." if generation == 4 else f"stages.{stage}.blocks."
            attention = (
                {"attn.q.": "attention.self.query.", "attn.sr.": "attention.self.sr."}
                | {"attn.norm.": "attention.self.layer_norm.", "attn.proj.": "attention.output.dense."}
                | {"norm1.": "layer_norm_1.", "norm2.": "layer_norm_2.", "mlp.fc": "mlp.dense"}
                if generation == 4
                else {"attn.q.": "attention.q_proj.", "attn.proj.": "attention.o_proj."}
                | {"attn.sr.": "attention.sequence_reduction.sequence_reduction."}
                | {"attn.norm.": "attention.sequence_reduction.layer_norm."}
                | {"norm1.": "layernorm_before.", "norm2.": "layernorm_after."}
            )
            for theirs, ours in attention.items():
                if theirs in inner:
                    inner = inner.replace(theirs, ours)
                    break
        if "attn.kv." in inner:
            names = ("self.key", "self.value") if generation == 4 else ("k_proj", "v_proj")
            for half, projection in zip(value.chunk(2), names):
                renamed["segformer." + name + inner.replace("attn.kv", f"attention.{projection}")] = half.clone()
        else:
            renamed["segformer." + name + inner] = value
    return renamed


LAYOUTS = {
    "NVlabs": lambda state: state,
    "smp": as_smp,
    "Hugging Face 4": lambda state: as_hugging_face(state, 4),
    "Hugging Face 5": lambda state: as_hugging_face(state, 5),
}


def tiny(**arguments):
    backbone = MixTransformer(num_classes=0, **TINY, **arguments)
    return SegmentationNetwork(backbone, SegFormerHead(backbone.feature_info, 5, dim=HEAD)).eval()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_strictly_and_agrees_with_the_paper(layout, tmp_path):
    state = official_state()
    save_file(LAYOUTS[layout](state), tmp_path / "weights.safetensors")
    network = tiny()
    report = load_weights(network, tmp_path / "weights.safetensors")
    assert report.layout == layout
    assert report.loaded == len(network.state_dict())
    x = images(97, 131, batch=2)
    maps, scores = official(state, x)
    with torch.inference_mode():
        found = network.backbone.feature_maps(x)
        for ours, theirs in zip(found, maps, strict=True):
            assert relative_error(ours.movedim(1, -1), theirs) < 1e-5
        assert relative_error(network.decoder(found), scores) < 1e-5
        corners = layout == "smp"
        assert relative_error(network(x), bilinear(scores, (97, 131), corners)) < 1e-5
        assert relative_error(network(x), bilinear(scores, (97, 131), not corners)) > 1e-3


def test_weights_say_by_themselves_how_scores_are_enlarged(tmp_path):
    network = tiny()
    for layout, corners in (("smp", True), ("NVlabs", False), ("smp", True)):
        save_file(LAYOUTS[layout](official_state()), tmp_path / "weights.safetensors")
        load_weights(network, tmp_path / "weights.safetensors")
        torch.save(network.state_dict(), tmp_path / "ours.pth")
        others = [tiny(), tiny(), tiny()]
        load_weights(others[0], tmp_path / "ours.pth")
        others[1].load_state_dict(network.state_dict())
        others[2].load_state_dict(dict(network.backbone.state_dict()), strict=False)
        x = images(64, 96)
        with torch.inference_mode():
            scores = network.decoder(network.backbone.feature_maps(x))
            for made in (network, *others[:2]):
                assert relative_error(made(x), bilinear(scores, (64, 96), corners)) < 1e-5
        assert others[2].align_corners is None
    # While it learns, a CPU enlarges by products of matrices.
    learning = network(x)
    assert learning.requires_grad
    assert relative_error(learning, bilinear(scores, (64, 96), True)) < 1e-5


def bilinear(scores, size, corners):
    """By the formula, in float64: pixel i of n lies at i (m - 1) / (n - 1) of m, or at (i + 1/2) m / n - 1/2."""
    values = scores.double().numpy()
    for axis, count in zip((2, 3), size, strict=True):
        before, steps = values.shape[axis], np.arange(count)
        places = steps * (before - 1) / (count - 1) if corners else (steps + 0.5) * before / count - 0.5
        places = places.clip(0, before - 1)
        low = np.floor(places).astype(int).clip(0, before - 2)
        share = (places - low).reshape([-1 if at == axis else 1 for at in range(4)])
        values = values.take(low, axis) * (1 - share) + values.take(low + 1, axis) * share
    return torch.from_numpy(values)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_transformer_alone_takes_its_part_of_a_file(layout, tmp_path):
    state = official_state()
    save_file(LAYOUTS[layout](state), tmp_path / "weights.safetensors")
    alone = MixTransformer(num_classes=3, **TINY).eval()
    report = load_weights(alone, tmp_path / "weights.safetensors")
    assert report.head_replaced == ["head.weight", "head.bias"]
    with torch.inference_mode():
        assert (
            relative_error(alone.feature_maps(images(64, 96))[3].movedim(1, -1), official(state, images(64, 96))[0][3])
            < 1e-5
        )


def test_a_file_of_the_authors_transformer_alone(tmp_path):
    state = {key.removeprefix("backbone."): value for key, value in official_state().items() if "backbone" in key}
    state |= {"head.weight": torch.randn(7, 16), "head.bias": torch.randn(7)}
    save_file(state, tmp_path / "mit.safetensors")
    alone = MixTransformer(num_classes=7, **TINY)
    report = load_weights(alone, tmp_path / "mit.safetensors")
    assert (report.layout, report.loaded) == ("NVlabs", len(alone.state_dict()))
    assert torch.equal(alone.head.weight, state["head.weight"])


def test_the_eps_of_the_copies_on_hugging_face():
    state = official_state()
    # Small activations let the eps be seen.
    for key in state:
        if "patch_embed1.norm" in key:
            state[key] = state[key] * 0.01
    x = images(64, 64)
    network = tiny(norm_eps=1e-5)
    network.load_state_dict(SegmentationNetwork.layouts[0].apply(state))
    with torch.inference_mode():
        found = network.backbone.feature_maps(x)[0].movedim(1, -1)
    assert relative_error(found, official(state, x, eps=1e-5)[0][0]) < 1e-5
    assert relative_error(found, official(state, x, eps=1e-6)[0][0]) > 1e-4


# Published sizes


@pytest.mark.parametrize(
    ("size", "millions"), [("b0", 3.75), ("b1", 13.72), ("b2", 27.46), ("b3", 47.34), ("b4", 64.11), ("b5", 84.71)]
)
def test_parameter_counts_are_the_published_ones(size, millions):
    with torch.device("meta"):
        assert round(count_parameters(create_model(f"vision/segformer_{size}")) / 1e6, 2) == millions


def test_every_size_has_weights_and_says_that_they_are_not_for_commerce():
    names = list_models("vision/mit_*") + list_models("vision/segformer_*")
    assert len(names) == 12
    assert all("non-commercial" in source.licence for name in names for source in model_entry(name).pretrained.values())


# Contract


@pytest.mark.parametrize("size", [(288, 352), (97, 131), (32, 32), (5, 9)])
def test_any_image_size(size):
    model = MixTransformer(num_classes=5, **TINY)
    maps = model.feature_maps(images(*size))
    expected = [(channels, -(-size[0] // stride), -(-size[1] // stride)) for channels, stride in model.feature_info]
    assert [tuple(x.shape[1:]) for x in maps] == expected
    assert [stride for _, stride in model.feature_info] == [4, 8, 16, 32]
    assert model(images(*size)).shape == (1, 5)


def test_channels_gradients_and_no_head():
    model = MixTransformer(num_classes=0, in_channels=5, **TINY)
    features = model(torch.randn(2, 5, 40, 48))
    assert features.shape == (2, 16)
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(QuintetError, match=r"takes images shaped \(batch, 5, height, width\)"):
        model(images(32, 32))


def test_layer_groups_claim_everything_but_the_head_in_order():
    model = MixTransformer(**TINY)
    groups = model.layer_groups()
    names = [name for name, _ in model.named_parameters()]
    claimed = [[name for name in names if name.startswith(tuple(f"{prefix}." for prefix in group))] for group in groups]
    assert len(groups) == 1 + sum(TINY["depths"])
    assert sorted([*(name for group in claimed for name in group), "head.weight", "head.bias"]) == sorted(names)
    assert groups[2] == ["encoder.stages.1.blocks.0", "encoder.downsamples.0"]


def test_another_mixer_and_a_description():
    model = MixTransformer(dims=(32, 64), depths=(1, 1), mixer=LinearAttention, num_classes=3)
    assert model(images(32, 40)).shape == (1, 3)
    again = build(description_of(model))
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in model.named_parameters()]


def test_weights_at_the_start():
    """Convolutions of variance 2 / fan out, counted within a group; linear layers cut at two units of 0.02."""
    model = MixTransformer()
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "weight")}
    measured = 0
    for name, layer in layers.items():
        kind = type(layer)
        if kind is torch.nn.Conv2d and layer.weight.numel() > 2000:
            out, _, height, width = layer.weight.shape
            expected = (2 / (height * width * out / layer.groups)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.06), name
            measured += 1 + (layer.groups > 1)
        elif kind is torch.nn.Linear:
            assert layer.weight.abs().max() <= 0.04, name
            assert layer.weight.std().item() == pytest.approx(0.0176, rel=0.06), name
        if kind in (torch.nn.Conv2d, torch.nn.Linear) and layer.bias is not None:
            assert layer.bias.count_nonzero() == 0, name
    assert measured > 20


def test_mistakes():
    with pytest.raises(QuintetError, match="need one entry for each of the 2 stages"):
        MixTransformer(dims=(32, 64), depths=(1, 1))
    with pytest.raises(QuintetError, match="one to four stages"):
        MixTransformer(dims=(8,) * 5)


@pytest.mark.parametrize("reduction", [1, 2])
def test_masked_tokens_change_nothing(reduction):
    torch.manual_seed(0)
    mixer = SpatialReductionAttention(16, num_heads=2, reduction=reduction).eval()
    mask = torch.rand(3, 6, 7) > 0.4
    mask[2] = False
    x = torch.randn(3, 6, 7, 16)
    poisoned = x.masked_fill(~mask.unsqueeze(-1), float("nan"))
    y = mixer(poisoned, mask)
    torch.testing.assert_close(y, mixer(x, mask))
    assert y.isfinite().all()
    assert (y[~mask] == 0).all()


# Peers


@pytest.mark.peers
@pytest.mark.parametrize("size", [(97, 131), (96, 128)])
def test_transformers_agrees(tmp_path, size):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=7)).eval()
    shake(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    weights = str(tmp_path / "weights.pth")
    ours = create_model("vision/segformer_b0", num_classes=7, norm_eps=1e-5, pretrained=weights).eval()
    with torch.inference_mode():
        found = ours.decoder(ours.backbone.feature_maps(images(*size, batch=2)))
        assert relative_error(found, theirs(images(*size, batch=2)).logits) < 1e-5


@pytest.mark.peers
def test_segmentation_models_pytorch_agrees(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    theirs = smp.Segformer("mit_b0", encoder_weights=None, classes=7).eval()
    shake(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = create_model("vision/segformer_b0", num_classes=7, pretrained=str(tmp_path / "weights.pth")).eval()
    x = images(96, 128, batch=2)
    with torch.inference_mode():
        expected = theirs.segmentation_head[0](theirs.decoder(theirs.encoder(x)))
        assert relative_error(ours.decoder(ours.backbone.feature_maps(x)), expected) < 1e-5
        assert relative_error(ours(x), theirs(x)) < 1e-5
        assert (ours(x).argmax(1) == theirs(x).argmax(1)).all()


def shake(module):
    """Moves every weight and statistic away from where its initialisation put it."""
    for parameter in module.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.2 * torch.rand_like(buffer))


def test_attention_starts_as_the_authors_draw_it():
    """N(0, 0.02²) cut at two units has a deviation of 0.88 * 0.02; torch's own layers would have 0.07 to 0.1."""
    torch.manual_seed(0)
    net = MixTransformer(num_classes=0, dims=(32, 64), depths=(1, 1), num_heads=(1, 2), reductions=(2, 1))
    mixers = [stage.blocks[0].mixer for stage in net.encoder.stages]
    for layer in (layer for mixer in mixers for layer in (mixer.query, mixer.key_value, mixer.proj)):
        assert layer.weight.std().item() == pytest.approx(0.0176, rel=0.1)
        assert not layer.bias.any()


def test_weights_said_aside_times_values_are_the_output():
    torch.manual_seed(0)
    layer = SpatialReductionAttention(8, num_heads=2, reduction=2).double()
    layer.proj = torch.nn.Identity()
    x, mask = torch.randn(2, 4, 6, 8).double(), torch.arange(6).expand(2, 4, 6) < 4
    with listening(layer, "weights") as heard:
        y = layer(x, mask)
    (weights,) = heard["weights"][""]
    seen = x.masked_fill(~mask.unsqueeze(-1), 0.0)
    context = layer.norm(layer.reduction(seen.movedim(-1, 1)).movedim(1, -1))
    value = layer.key_value(context)[..., 8:].flatten(1, 2).unflatten(-1, (2, 4))
    assert (weights.grid, weights.key_grid) == ((4, 6), (2, 3))
    found = torch.einsum("bhqk,bkhd->bqhd", weights.dense(), value).flatten(2).view_as(y)
    assert relative_error(found, y) < 1e-12
    assert not weights.dense().unflatten(-1, (2, 3))[..., 2:].any()  # nothing real stands there


def test_the_convolution_of_the_feed_forward_layer_sees_no_masked_tokens():
    torch.manual_seed(0)
    layer, x = MixFeedForward(8), torch.randn(1, 4, 6, 8)
    mask = torch.arange(6).expand(1, 4, 6) < 4
    spoiled = x.masked_fill(~mask.unsqueeze(-1), 7.0)
    assert relative_error(layer(spoiled, mask)[:, :, :4], layer(x[:, :, :4])) < 1e-6
