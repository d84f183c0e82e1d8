"""Gated DeltaNet against its equations, one token at a time in float64."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.attention import GatedDeltaNet
from quintet.core.errors import QuintetError


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(**arguments):
    torch.manual_seed(0)
    layer = GatedDeltaNet(24, 3, **arguments)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def equations(layer, x):
    """Of one sample (time, dim), head by head."""
    layer, x = layer.double(), x.double()
    qkv = layer.qkv(x)
    if layer.convolution is not None:
        width = layer.convolution.width
        qkv = (F.pad(qkv, (0, 0, width - 1, 0)).unfold(0, width, 1) * layer.convolution.weight).sum(-1)
    query, key, value = (part.unflatten(-1, (layer.num_heads, -1)) for part in F.silu(qkv).split(layer.widths, dim=-1))
    beta = torch.sigmoid(layer.beta(x))
    keep = torch.ones_like(beta)
    if layer.decay is not None:
        keep = torch.exp(-layer.log_rate.exp() * F.softplus(layer.decay(x)))
    heads = []
    for head in range(layer.num_heads):
        memory, rows = torch.zeros(query.shape[-1], value.shape[-1]).double(), []
        for q, k, v, b, a in zip(query[:, head], key[:, head], value[:, head], beta[:, head], keep[:, head]):
            q, k = q / q.norm(), k / k.norm()
            memory = a * memory
            memory = memory + torch.outer(k, b * (v - k @ memory))
            rows.append(q @ memory / len(q) ** 0.5)
        rows = torch.stack(rows)
        heads.append(rows / (rows.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight)
    output = torch.cat(heads, dim=-1)
    return layer.proj(output if layer.gate is None else output * F.silu(layer.gate(x)))


@pytest.mark.parametrize(
    "arguments", [{}, {"decay": False, "output_gate": False}, {"value_factor": 0.5, "convolution_width": 0}]
)
def test_equals_its_equations(arguments):
    layer, x = build(**arguments), torch.randn(70, 24)
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x)) < 1e-4


def test_a_masked_token_leaves_the_memory_as_it_is():
    layer, x = build(convolution_width=0), torch.randn(2, 13, 24)
    mask = torch.rand(2, 13, generator=torch.Generator().manual_seed(1)) < 0.6
    for sample, real, found in zip(x, mask, layer(x, mask)):
        assert error(found[real], layer(sample[real].unsqueeze(0))[0]) < 1e-5


def test_memories_start_with_lives_of_one_to_a_hundred_thousand_tokens():
    layer = GatedDeltaNet(256, 256)
    rate = layer.log_rate.exp() * F.softplus(layer.decay.bias)
    assert rate.max() <= 1.6 * 1.001
    assert rate.min() >= 1e-5 * 0.999
    assert rate.max() / rate.min() > 100


def test_bfloat16_tokens_under_autocast():
    """As they come from a layer before; the gates stay in float32."""
    layer, x = build(), torch.randn(2, 20, 24)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.to(torch.bfloat16))
    assert error(y, layer(x)) < 5e-2


def test_values_must_be_split_into_heads():
    with pytest.raises(QuintetError, match="values of width 36, which cannot be split into num_heads=8"):
        GatedDeltaNet(24, 8, value_factor=1.5)
