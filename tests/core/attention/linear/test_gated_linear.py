"""Gated linear attention against its equations, one token at a time in float64."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.attention import GatedLinearAttention
from quintet.core.errors import QuintetError


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(**arguments):
    torch.manual_seed(0)
    layer = GatedLinearAttention(24, 3, **arguments)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def projections(layer, x):
    """Query, key, value and decay of every head, (time, heads, dim)."""
    down, up = layer.decay
    decay = torch.sigmoid(x @ down.weight.T @ up.weight.T + up.bias) ** (1 / layer.temperature)
    parts = (layer.query(x), layer.key(x), layer.value(x), decay)
    return [part.unflatten(-1, (layer.num_heads, -1)) for part in parts]


def equations(layer, x):
    """Of one sample (time, dim), head by head."""
    layer, x = layer.double(), x.double()
    query, key, value, decay = projections(layer, x)
    heads = []
    for head in range(layer.num_heads):
        state, rows = torch.zeros(query.shape[-1], value.shape[-1]).double(), []
        for q, k, v, a in zip(query[:, head], key[:, head], value[:, head], decay[:, head]):
            state = a[:, None] * state + torch.outer(k, v)
            rows.append(q @ state / len(q) ** 0.5)
        rows = torch.stack(rows)
        heads.append(rows / (rows.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.norm.weight)
    return layer.proj(torch.cat(heads, dim=-1) * F.silu(layer.gate(x)))


@pytest.mark.parametrize(
    "arguments",
    [{}, {"key_factor": 1.0, "gate_rank": 4, "temperature": 0.2, "bias": True}],
    ids=["default", "forgetful"],
)
def test_equals_its_equations(arguments):
    layer, x = build(**arguments), torch.randn(70, 24)
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x)) < 1e-5


def test_a_masked_token_leaves_the_memory_as_it_is():
    layer, x = build(temperature=1.0), torch.randn(2, 13, 24)
    mask = torch.rand(2, 13, generator=torch.Generator().manual_seed(1)) < 0.6
    for sample, real, found in zip(x, mask, layer(x, mask)):
        assert error(found[real], layer(sample[real].unsqueeze(0))[0]) < 1e-5


def test_a_new_layer_forgets_slowly():
    """sigmoid around one half, to the power of a sixteenth: memories last for some twenty tokens."""
    layer = GatedLinearAttention(64)
    decay = torch.sigmoid(layer.decay(torch.randn(50, 64))) ** (1 / layer.temperature)
    assert decay.mean().item() == pytest.approx(0.5 ** (1 / 16), abs=5e-3)


def test_bfloat16_tokens_under_autocast():
    layer, x = build(), torch.randn(2, 20, 24)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.to(torch.bfloat16))
    assert error(y, layer(x)) < 5e-2


def test_keys_must_be_split_into_heads():
    with pytest.raises(QuintetError, match="keys of width 12, which cannot be split into num_heads=8"):
        GatedLinearAttention(24, 8)


@pytest.mark.peers
def test_memory_agrees_with_fla():
    naive = pytest.importorskip("fla.ops.gla.naive", reason="needs fla-core, of [peers]")
    layer, x = build(), torch.randn(2, 33, 24)
    captured = []
    layer.norm.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
    layer(x)
    query, key, value, decay = projections(layer, x)
    expected, _ = naive.naive_recurrent_gla(query, key, value, decay.log())
    assert error(captured[0], expected) < 1e-5
