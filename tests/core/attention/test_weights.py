"""Weights said aside: the output of every attention is their sum over the values, which are projected here by hand."""

import sys
from functools import partial

import pytest
import torch
from torch import nn

from quintet.core.aside import listening
from quintet.core.attention import (
    Attention,
    CrossAttention,
    NeighborhoodAttention,
    ProbSparseAttention,
    SegmentAttention,
    WindowAttention,
)
from quintet.core.norm import RMSNorm
from quintet.core.position import RelativePositionBias, RotaryPosition

LAYERS = [
    (Attention, (7,)),
    (partial(Attention, num_key_value_heads=1, rotary=RotaryPosition, qk_norm=RMSNorm, causal=True), (7,)),
    (partial(Attention, relative_bias=partial(RelativePositionBias, grid=(3, 4))), (3, 4)),
    (NeighborhoodAttention, (5, 4)),
    (partial(NeighborhoodAttention, kernel_size=3, dilation=2), (6, 7)),
    (partial(NeighborhoodAttention, kernel_size=3, rank=1, causal=True, relative_bias=False), (8,)),
    (partial(NeighborhoodAttention, kernel_size=(2, 3, 3), rank=3, stride=2), (3, 4, 3)),
    (partial(WindowAttention, window_size=3), (6, 6)),
    (partial(WindowAttention, window_size=4, shift=2), (7, 9)),
    (partial(WindowAttention, window_size=3, shift=1, rank=1, relative_bias=False), (8,)),
    (partial(ProbSparseAttention, factor=1), (5, 6)),
    (partial(ProbSparseAttention, factor=9), (6,)),
]


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("make", "grid"), LAYERS)
def test_weights_times_values_are_the_output(make, grid, masked):
    torch.manual_seed(0)
    layer = make(16, num_heads=2).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    layer.proj = nn.Identity()
    x = torch.randn(2, *grid, 16, dtype=torch.float64)
    mask = (torch.rand(2, *grid) < 0.7) if masked else None
    with listening(layer, "weights") as heard:
        y = layer(x, mask).flatten(1, -2)
    (weights,) = heard["weights"][""]
    assert weights.grid == weights.key_grid == grid
    heads = getattr(layer, "num_key_value_heads", 2)
    clean = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)
    value = layer.qkv(clean)[..., -heads * 8 :].flatten(1, -2).unflatten(-1, (heads, 8))
    value = value.repeat_interleave(2 // heads, 2)
    dense = weights.dense()
    assert error(torch.einsum("bhqk,bkhd->bqhd", dense, value).flatten(2), y) < 1e-12
    real = torch.ones(y.shape[:2], dtype=torch.bool) if mask is None else mask.flatten(1)
    sums = dense.sum(-1).transpose(1, 2)
    assert torch.allclose(sums[real], torch.ones(()).double())
    assert not sums[~real].any()
    # One token by itself, and what it can see.
    assert torch.equal(weights.of(3), dense[:, :, 3].unflatten(-1, grid))
    assert not weights.of(3)[:, :, ~weights.seen(3)].any()


def test_weights_of_the_first_tokens_and_of_a_context():
    torch.manual_seed(0)
    layer, x = Attention(16, num_heads=2), torch.randn(2, 5, 16)
    with listening(layer, "weights") as heard:
        layer(x)
        layer(x, queries=1)
    whole, first = heard["weights"][""]
    assert torch.equal(whole.values[:, :, :1], first.values)
    assert (first.grid, first.key_grid) == ((1,), (5,))
    cross, context = CrossAttention(16, num_heads=2), torch.randn(2, 3, 4, 16)
    seen = torch.ones(2, 3, 4, dtype=torch.bool)
    seen[0, 1:], seen[1] = False, False
    cross.proj = nn.Identity()
    with listening(cross, "weights") as heard:
        y = cross(x, context, seen)
    (weights,) = heard["weights"][""]
    value = cross.kv(context).flatten(1, 2)[..., 16:].unflatten(-1, (2, 8))
    assert weights.key_grid == (3, 4)
    assert error(torch.einsum("bhqk,bkhd->bqhd", weights.values, value).flatten(2), y) < 1e-6
    assert not weights.values[1].any()


def test_nothing_is_computed_where_nobody_listens(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("weights were computed")

    for kind in (Attention, WindowAttention, CrossAttention):
        monkeypatch.setattr(sys.modules[kind.__module__], "softmax_weights", refuse)
    monkeypatch.setattr(sys.modules[NeighborhoodAttention.__module__], "neighborhood_weights", refuse)
    for layer in (Attention(16), WindowAttention(16), NeighborhoodAttention(16)):
        layer(torch.randn(1, 4, 4, 16))
    other = Attention(16)
    with listening(other, "weights"):
        Attention(16)(torch.randn(1, 4, 16))


@pytest.mark.parametrize("causal", [False, True])
def test_weights_within_segments(causal):
    torch.manual_seed(0)
    layer = SegmentAttention(16, num_heads=2, causal=causal).double()
    layer.proj = nn.Identity()
    x, borders = torch.randn(9, 16).double(), torch.tensor([0, 4, 4, 9])
    index, bias = torch.tensor([[0, 5, 5, 8], [1, 7, 7, 4]]), torch.randn(4, 2).double()
    with listening(layer, "weights") as heard:
        y = layer(x, borders, index, bias)
    (weights,) = heard["weights"][""]
    value = layer.qkv(x)[:, -16:].unflatten(-1, (2, 8))
    assert error(torch.einsum("hqk,khd->qhd", weights.dense()[0], value).flatten(1), y) < 1e-12
    assert weights.seen(2).tolist() == [True, True, True, not causal] + [False] * 5
