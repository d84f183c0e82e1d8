"""NILMFormer: parity with the published layout, any mixer, masked rows, what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F

from quintet.core.attention import Attention, NeighborhoodAttention
from quintet.core.errors import QuintetError
from quintet.core.weights.pretrained import load_weights
from quintet.core.weights.registry import count_parameters
from quintet.timeseries.models import NILMFormer

L, FEATURES, D, HEADS, DEPTH = 18, 6, 16, 4, 2
SMALL = {"calendar": FEATURES, "dim": D, "depth": DEPTH, "dropout": 0.0}


def published() -> dict[str, torch.Tensor]:
    """Random float64 weights under the names and in the shapes of the published code."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)

    state, own = {}, 3 * D // 4

    def layer(name: str, *shape: int) -> None:
        state.update({f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])})

    def norm(name: str, dim: int) -> None:
        state.update({f"{name}.weight": 1 + draw(dim), f"{name}.bias": draw(dim)})

    for unit in range(4):
        name = f"EmbedBlock.network.{unit}.layers"
        layer(f"{name}.0", own, own if unit else 1, 3)
        norm(f"{name}.2", own)
        state |= {f"{name}.2.running_mean": draw(own), f"{name}.2.running_var": 1 + draw(own).square()}
        state[f"{name}.2.num_batches_tracked"] = torch.tensor(3)
    layer("ProjEmbedding", D // 4, FEATURES, 1)
    layer("ProjStats1", D, 2)
    layer("ProjStats2", 2, D)
    for block in range(DEPTH):
        name = f"EncoderBlock.{block}"
        state |= {f"{name}.attention_layer.w{part}.weight": draw(D, D) for part in "qkvo"}
        norm(f"{name}.norm1", D)
        norm(f"{name}.norm2", D)
        layer(f"{name}.pffn.layer1", 4 * D, D)
        layer(f"{name}.pffn.layer2", D, 4 * D)
    norm(f"EncoderBlock.{DEPTH}", D)
    layer("DownstreamTaskHead", 1, D, 3)
    return state


def estimate(state: dict[str, torch.Tensor], load: torch.Tensor, calendar: torch.Tensor) -> torch.Tensor:
    """The paper's equations over the published names, written down again in float64."""

    def linear(tokens: torch.Tensor, name: str) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        return tokens @ weight.reshape(weight.shape[:2]).T + state.get(f"{name}.bias", 0.0)

    def norm(tokens: torch.Tensor, name: str) -> torch.Tensor:
        centred = tokens - tokens.mean(-1, keepdim=True)
        var = centred.pow(2).mean(-1, keepdim=True)
        return centred / (var + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]

    mean, std = load.mean(1, keepdim=True), (load.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    x = ((load - mean) / std).unsqueeze(1)
    for unit in range(4):
        name, reach = f"EmbedBlock.network.{unit}.layers", 2**unit
        wide = F.pad(x, (reach, reach))
        y = F.gelu(F.conv1d(wide, state[f"{name}.0.weight"], state[f"{name}.0.bias"], dilation=reach))
        parts = [state[f"{name}.2.{part}"].view(1, -1, 1) for part in ("running_mean", "running_var", "weight", "bias")]
        x = x + (y - parts[0]) / (parts[1] + 1e-5).sqrt() * parts[2] + parts[3]
    token = linear(torch.cat([mean, std], 1), "ProjStats1").unsqueeze(1)
    x = torch.cat([torch.cat([x.transpose(1, 2), linear(calendar, "ProjEmbedding")], -1), token], 1)
    for block in range(DEPTH):
        name = f"EncoderBlock.{block}"
        x = norm(x, f"{name}.norm1")
        query, key, value = (
            linear(x, f"{name}.attention_layer.w{part}").unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in "qkv"
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(D // HEADS)
        scores = scores.masked_fill(torch.eye(L + 1, dtype=torch.bool), -math.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = norm(x + linear(mixed, f"{name}.attention_layer.wo"), f"{name}.norm2")
        x = x + linear(F.gelu(linear(x, f"{name}.pffn.layer1")), f"{name}.pffn.layer2")
    x = norm(x, f"EncoderBlock.{DEPTH}")[:, :-1].transpose(1, 2)
    x = torch.cat([x[..., :1], x, x[..., -1:]], -1)
    y = F.conv1d(x, state["DownstreamTaskHead.weight"], state["DownstreamTaskHead.bias"]).squeeze(1)
    own = linear(token, "ProjStats2").squeeze(1)
    return y * own[:, 1:] + own[:, :1]


def test_parity_with_the_published_layout(tmp_path):
    state = published()
    torch.save({"model_state_dict": state}, tmp_path / "checkpoint.pt")
    model = NILMFormer(num_heads=HEADS, **SMALL)
    report = load_weights(model, tmp_path / "checkpoint.pt")
    assert (report.layout, report.head_replaced, report.loaded) == ("NILMFormer", [], len(model.state_dict()))
    generator = torch.Generator().manual_seed(1)
    load = 3 * torch.rand(3, L, generator=generator, dtype=torch.float64)
    calendar = torch.rand(3, L, FEATURES, generator=generator, dtype=torch.float64) - 0.5
    expected = estimate(state, load, calendar)
    single = model.eval()(load.float(), None, calendar.float()).squeeze(-1)
    assert (single - expected).norm() / expected.norm() < 1e-5
    found = model.double()
    load_weights(found, tmp_path / "checkpoint.pt")
    assert (found(load, None, calendar).squeeze(-1) - expected).norm() / expected.norm() < 1e-12


def test_as_many_parameters_as_published():
    assert count_parameters(NILMFormer()) == 383_283


def test_other_appliances_replace_the_head(tmp_path):
    torch.save(published(), tmp_path / "checkpoint.pt")
    model = NILMFormer(appliances=3, num_heads=HEADS, **SMALL)
    report = load_weights(model, tmp_path / "checkpoint.pt")
    assert len(report.head_replaced) == 4
    assert model(torch.rand(2, L), None, torch.rand(2, L, FEATURES)).shape == (2, L, 3)


def test_every_appliance_has_statistics_of_its_own():
    model = NILMFormer(appliances=2, num_heads=HEADS, **SMALL).eval()
    load, calendar = torch.rand(2, L), torch.rand(2, L, FEATURES)
    before = model(load, None, calendar)
    with torch.no_grad():
        model.output_statistics.bias[2] += 5  # the mean of the second
    after = model(load, None, calendar)
    torch.testing.assert_close(after[..., 0], before[..., 0])
    torch.testing.assert_close(after[..., 1], before[..., 1] + 5)


def test_what_was_not_observed_changes_nothing():
    model = NILMFormer(num_heads=HEADS, **SMALL).eval()
    load, calendar, observed = torch.rand(2, L), torch.rand(2, L, FEATURES), torch.ones(2, L, dtype=torch.bool)
    observed[0, 4:9] = False
    first, second = (model(values, observed, calendar) for values in (load, torch.where(observed, load, 1e3)))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first[1:], model(load[1:], None, calendar[1:]))


def test_mixers_of_all_kinds(mixer):
    model = NILMFormer(2, calendar=0, dim=32, depth=1, mixer=mixer)
    model(torch.rand(2, 9)).sum().backward()


def test_mistakes():
    with pytest.raises(QuintetError, match="dim=18 is no multiple of 4"):
        NILMFormer(dim=18)
    with pytest.raises(QuintetError, match="kernel_size=4 is even"):
        NILMFormer(kernel_size=4)
    with pytest.raises(QuintetError, match=r"reads 8 calendar features of each of 9 steps.*got none"):
        NILMFormer()(torch.rand(1, 9))
    with pytest.raises(QuintetError, match="num_heads is an argument of softmax attention"):
        NILMFormer(num_heads=2, mixer=Attention)
    with pytest.raises(QuintetError, match="give it rank=1"):
        NILMFormer(mixer=NeighborhoodAttention)


def test_layer_groups_name_every_parameter_but_the_head():
    model = NILMFormer(num_heads=HEADS, **SMALL)
    prefixes = tuple(f"{prefix}." for group in model.layer_groups() for prefix in group)
    rest = {name for name, _ in model.named_parameters() if not name.startswith(prefixes)}
    assert rest == {"norm.weight", "norm.bias", *model.head_keys}


def test_linear_layers_at_the_start():
    """Uniform up to sqrt(6 / (in + out)), without biases."""
    model = NILMFormer(1, dim=96, depth=1)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(layers) > 5
    for layer in layers:
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert layer.weight.abs().max() <= bound
        if layer.weight.numel() > 5000:
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert layer.bias is None or layer.bias.count_nonzero() == 0
