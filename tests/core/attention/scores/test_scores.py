"""Scores in attention against their papers' formulas, query by query over the keys it may see, in float64."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from quintet.core.attention import Attention
from quintet.core.attention.patterns import StridedPattern
from quintet.core.attention.scores import ReluScore, Score, SigmoidScore
from quintet.core.position import RelativePositionBias

FORMULAS = {
    "sigmoid_attention": (
        SigmoidScore,
        lambda logits: [1 / (1 + math.exp(-(s - math.log(len(logits))))) for s in logits],
    ),
    "sigmoid_attention of a fixed bias": (
        partial(SigmoidScore, bias=-2.0),
        lambda logits: [1 / (1 + math.exp(2.0 - s)) for s in logits],
    ),
    "relu_attention": (ReluScore, lambda logits: [max(s, 0.0) / len(logits) for s in logits]),
    "relu_attention of a root": (
        partial(ReluScore, exponent=0.5),
        lambda logits: [max(s, 0.0) / math.sqrt(len(logits)) for s in logits],
    ),
}


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def by_loops(layer, x, formula, seen, bias):
    """y of each query from a list of the keys it sees; `seen(sample, query)` names them."""
    heads, shared, width = layer.num_heads, layer.num_key_value_heads, layer.head_dim
    query, key, value = layer.qkv(x).unflatten(-1, (-1, width)).split((heads, shared, shared), dim=-2)
    y = torch.zeros(*x.shape[:2], heads, width, dtype=torch.float64)
    for sample in range(x.shape[0]):
        for place in range(x.shape[1]):
            keys = seen(sample, place)
            for head in range(heads):
                group = head // (heads // shared)
                logits = [
                    (query[sample, place, head] @ key[sample, other, group] / math.sqrt(width)).item()
                    + bias[sample, head, place, other].item()
                    for other in keys
                ]
                for weight, other in zip(formula(logits) if keys else [], keys):
                    y[sample, place, head] += weight * value[sample, other, group]
    return layer.proj(y.flatten(2))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", FORMULAS)
@torch.no_grad()
def test_equals_its_formula_over_the_keys_that_are_seen(name, masked, causal):
    score, formula = FORMULAS[name]
    torch.manual_seed(0)
    relative = partial(RelativePositionBias, grid=(7,))
    layer = Attention(16, 4, 2, causal=causal, score=score, relative_bias=relative).double()
    nn.init.normal_(layer.relative_bias.table)
    x, bias = torch.randn(2, 7, 16, dtype=torch.float64), torch.randn(2, 4, 7, 7, dtype=torch.float64)
    mask = torch.rand(2, 7) < 0.6 if masked else torch.ones(2, 7, dtype=torch.bool)

    def seen(sample, query):
        return [key for key in range(7) if mask[sample, key] and (key <= query or not causal)]

    expected = by_loops(layer, x, formula, seen, bias + layer.relative_bias((7,)))
    given = mask if masked else None
    assert error(layer(x, given, bias=bias)[mask], expected[mask]) < 1e-12
    fewer = layer(x, given, bias=bias, queries=3)
    assert error(fewer[mask[:, :3]], expected[:, :3][mask[:, :3]]) < 1e-12


@torch.no_grad()
def test_counts_are_of_the_keys_a_pattern_leaves():
    torch.manual_seed(0)
    layer = Attention(8, 2, causal=True, score=ReluScore, pattern=partial(StridedPattern, stride=2)).double()
    x, mask = torch.randn(1, 6, 8, dtype=torch.float64), torch.tensor([[True, True, False, True, True, True]])

    def seen(sample, query):
        return [key for key in range(query + 1) if mask[0, key] and (query - key < 2 or (query - key) % 2 == 0)]

    expected = by_loops(layer, x, FORMULAS["relu_attention"][1], seen, torch.zeros(1, 2, 6, 6))
    assert error(layer(x, mask)[mask], expected[mask]) < 1e-12


class Softmax(Score):
    """What the fused form computes, as a user would write it."""

    def __init__(self, num_heads):
        super().__init__()

    def forward(self, logits, allowed, counts):
        assert (counts == allowed.sum(-1, keepdim=True)).all()
        return logits.masked_fill(~allowed, float("-inf")).softmax(-1)


@pytest.mark.parametrize("causal", [False, True])
def test_a_score_of_the_user_s_that_is_the_softmax_is_attention(causal):
    torch.manual_seed(0)
    fused = Attention(32, 4, 2, causal=causal)
    written_out = Attention(32, 4, 2, causal=causal, score=Softmax)
    written_out.load_state_dict(fused.state_dict())
    x, mask = torch.randn(3, 9, 32), torch.rand(3, 9) < 0.7
    mask[2] = False
    for given in (None, mask):
        assert error(written_out(x, given), fused(x, given)) < 1e-6


def test_equal_logits_give_a_sigmoid_its_mean():
    """sigmoid(-log n) = 1 / (1 + n): with logits of zero the weights of n keys sum to n / (1 + n)."""
    torch.manual_seed(0)
    layer, x = Attention(8, 2, score=SigmoidScore), torch.randn(1, 5, 8)
    with torch.no_grad():
        layer.qkv.weight[:16], layer.qkv.bias[:16] = 0.0, 0.0
    value = layer.qkv(x)[..., 16:]
    assert error(layer(x), layer.proj(value.mean(1, keepdim=True) * 5 / 6).expand(1, 5, 8)) < 1e-6


def test_dropout_of_weights_only_in_training():
    torch.manual_seed(0)
    layer, x = Attention(32, dropout=0.5, score=ReluScore), torch.randn(1, 6, 32)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
