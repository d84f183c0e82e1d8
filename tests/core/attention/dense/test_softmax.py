"""Softmax attention against a derivation by einsum in float64 and against torch.nn.MultiheadAttention."""

from functools import partial

import pytest
import torch
from torch import nn

from quintet.core.attention import Attention
from quintet.core.attention.dense import softmax
from quintet.core.attention.dense.softmax import attend, score_mask
from quintet.core.errors import QuintetError
from quintet.core.norm import RMSNorm
from quintet.core.position import RelativePositionBias, RotaryPosition


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def by_einsum(layer, x, mask=None, bias=None):
    """Scores head by head, softmax written out, in float64; groups by repeating keys and values."""
    layer = layer.double()
    x = x.double().flatten(1, -2)
    heads, shared, width = layer.num_heads, layer.num_key_value_heads, layer.head_dim
    weight, offset = layer.qkv.weight, layer.qkv.bias
    projected = torch.einsum("btc,oc->bto", x, weight) + (0.0 if offset is None else offset)
    query = projected[..., : heads * width].unflatten(-1, (heads, width))
    key = projected[..., heads * width : (heads + shared) * width].unflatten(-1, (shared, width))
    value = projected[..., (heads + shared) * width :].unflatten(-1, (shared, width))
    key, value = (part.repeat_interleave(heads // shared, dim=2) for part in (key, value))
    scores = torch.einsum("bihd,bjhd->bhij", query, key) / width**0.5
    if bias is not None:
        scores = scores + bias.double()
    if layer.causal:
        places = torch.arange(x.shape[1])
        scores = scores.masked_fill(places[None, :] > places[:, None], float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask.flatten(1)[:, None, None, :], float("-inf"))
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    y = torch.einsum("bhij,bjhd->bihd", weights, value).flatten(2)
    y = torch.einsum("bto,co->btc", y, layer.proj.weight) + layer.proj.bias
    return y if mask is None else y * mask.flatten(1).unsqueeze(-1)


@pytest.mark.parametrize(
    "arguments", [{}, {"num_key_value_heads": 2, "qkv_bias": False}, {"causal": True}, {"head_dim": 12}]
)
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_its_formula(arguments, with_mask, with_bias):
    torch.manual_seed(0)
    layer = Attention(48, num_heads=4, **arguments)
    x = torch.randn(3, 4, 5, 48)
    mask = (torch.rand(3, 4, 5) < 0.6) if with_mask else None
    if with_mask:
        mask[:, 0, 0] = True
    bias = torch.randn(3, 4, 20, 20) if with_bias else None
    y = layer(x, mask, bias=bias).flatten(1, 2)
    assert error(y, by_einsum(layer, x, mask, bias)) < 1e-6


def test_equals_torch_on_the_same_weights():
    torch.manual_seed(0)
    layer, reference = Attention(64, num_heads=4), nn.MultiheadAttention(64, 4, batch_first=True)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(std=0.2)
        layer.qkv.weight.copy_(reference.in_proj_weight)
        layer.qkv.bias.copy_(reference.in_proj_bias)
    layer.proj.load_state_dict(reference.out_proj.state_dict())
    x, bias = torch.randn(2, 9, 64), torch.randn(2, 4, 9, 9)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    assert error(layer(x), reference(x, x, x, need_weights=False)[0]) < 1e-6
    padding = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
    expected, _ = reference(x, x, x, key_padding_mask=padding, attn_mask=bias.flatten(0, 1), need_weights=False)
    assert error(layer(x, mask, bias=bias)[mask], expected[mask]) < 1e-6


def test_rotary_norms_and_relative_bias_are_where_they_belong():
    """The layer with everything injected equals the pieces put together by hand."""
    torch.manual_seed(0)
    layer = Attention(
        32,
        num_heads=2,
        qk_norm=RMSNorm,
        rotary=partial(RotaryPosition, base=100.0),
        relative_bias=partial(RelativePositionBias, grid=(4, 4)),
    )
    nn.init.normal_(layer.relative_bias.table)
    nn.init.normal_(layer.q_norm.weight)
    x, bias = torch.randn(2, 3, 4, 32), torch.randn(1, 1, 12, 12)
    query, key, value = layer.qkv(x).unflatten(-1, (3, 2, 16)).unbind(-3)
    query, key = layer.rotary(layer.q_norm(query), layer.k_norm(key))
    scores = torch.einsum("bihd,bjhd->bhij", query.flatten(1, 2), key.flatten(1, 2)) / 4 + bias
    weights = (scores + layer.relative_bias((3, 4))).softmax(-1)
    expected = layer.proj(torch.einsum("bhij,bjhd->bihd", weights, value.flatten(1, 2)).flatten(2))
    assert error(layer(x, bias=bias).flatten(1, 2), expected) < 1e-6


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_no_query_is_left_with_nothing_to_attend_to(causal, with_bias):
    """Not every backend of torch's attention gives zero, and a finite gradient, for a softmax over nothing."""
    mask = torch.tensor([[False, True, True], [False, False, True], [False, False, False]])
    combined = score_mask(mask, torch.zeros(1, 1, 3, 3) if with_bias else None, causal)
    assert ((combined == 0) if with_bias else combined).any(-1).all()


def test_gradient_reaches_the_bias():
    layer, bias = Attention(32, num_heads=2), torch.zeros(2, 2, 5, 5, requires_grad=True)
    layer(torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.bool), bias=bias).square().sum().backward()
    assert bias.grad.abs().max() > 0


def test_dropout_only_in_training():
    torch.manual_seed(0)
    layer, x = Attention(32, dropout=0.5, projection_dropout=0.5), torch.randn(1, 6, 32)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_padding_may_stand_anywhere():
    """Order among the others is all attention sees, so masked rows and columns of an image change nothing."""
    torch.manual_seed(0)
    for causal in (False, True):
        layer, x = Attention(32, causal=causal), torch.randn(2, 3, 4, 32)
        padded, mask = torch.randn(2, 5, 7, 32), torch.zeros(2, 5, 7, dtype=torch.bool)
        padded[:, 1:4, 2:6], mask[:, 1:4, 2:6] = x, True
        assert error(layer(padded, mask)[:, 1:4, 2:6], layer(x)) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_heads": 5}, "dim=64 cannot be split into num_heads=5; nearest that can: 2, 4, 8"),
        ({"num_heads": 4, "num_key_value_heads": 3}, "num_heads=4 is no multiple of num_key_value_heads=3"),
        ({"head_dim": 7, "rotary": RotaryPosition}, "even head_dim; got 7"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(QuintetError, match=words):
        Attention(64, **arguments)


def test_relative_bias_decides_the_rank():
    layer = Attention(32, relative_bias=partial(RelativePositionBias, grid=(4, 4)))
    with pytest.raises(QuintetError, match=r"Attention takes tokens shaped \(batch, height, width, 32\)"):
        layer(torch.zeros(1, 4, 32))


@pytest.mark.parametrize("keys", [1, 7, 16, 33])
@pytest.mark.parametrize("masking", ["none", "tokens", "bias", "causal"])
def test_attention_with_dropout_is_that_without_where_nothing_is_dropped(keys, masking, monkeypatch):
    monkeypatch.setattr(softmax, "dropout", lambda x, rate: x)
    queries = keys if masking == "causal" else 5
    given = [torch.randn(2, heads, size, 8, requires_grad=True) for heads, size in ((4, queries), (2, keys), (2, keys))]
    mask = {"tokens": torch.rand(2, 1, 1, keys) > 0.5, "bias": torch.randn(2, 4, queries, keys)}.get(masking)
    if masking == "tokens":
        mask[..., 0] = True
    found, expected = (attend(*given, mask, rate, masking == "causal") for rate in (0.5, 0.0))
    assert error(found, expected) < 1e-6
    slope = torch.randn_like(expected)
    for own, other in zip(torch.autograd.grad(found, given, slope), torch.autograd.grad(expected, given, slope)):
        # Of one key the score has no slope: what is left is rounding.
        assert (own - other).norm() < (1e-5 if keys == 1 else 2e-6 * other.norm())


@pytest.mark.parametrize("keys", [7, 33])
def test_dropout_of_attention_weights_keeps_their_mean(keys):
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, keys, 4) for _ in range(3))
    many = attend(*(part.expand(4000, -1, -1, -1) for part in (query, key, value)), None, 0.25)
    deviation = many.std(0) / 4000**0.5
    assert ((many.mean(0) - attend(query, key, value)[0]).abs() < 5 * deviation).all()
