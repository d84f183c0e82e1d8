"""Segment attention against dense attention in float64, one graph at a time."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.attention import Attention, SegmentAttention
from quintet.core.errors import QuintetError
from quintet.core.norm import RMSNorm

LENGTHS = [7, 1, 0, 12, 5]
CU_SEQLENS = torch.tensor([0, *LENGTHS]).cumsum(0)


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(**arguments):
    torch.manual_seed(0)
    return SegmentAttention(24, 3, **arguments), torch.randn(sum(LENGTHS), 24)


def edges():
    """Rings within the segments, one edge twice."""
    pairs = [
        (first + place, first + (place + 1) % length)
        for first, length in zip(CU_SEQLENS.tolist(), LENGTHS)
        for place in range(length)
    ]
    return torch.tensor([*pairs, pairs[3]]).T


def dense(layer, x, edge_index=None, edge_bias=None):
    layer, outputs = layer.double(), []
    for first, stop in zip(CU_SEQLENS[:-1].tolist(), CU_SEQLENS[1:].tolist()):
        query, key, value = layer.qkv(x[first:stop].double()).unflatten(-1, (3, 3, 8)).unbind(1)
        query, key = layer.q_norm(query), layer.k_norm(key)
        scores = torch.einsum("ihd,jhd->ijh", query, key) / 8**0.5
        for number in range(0 if edge_index is None else edge_index.shape[1]):
            source, target = (edge_index[:, number] - first).tolist()
            if 0 <= target < stop - first:
                scores[target, source] += edge_bias[number].double()
        if layer.causal:
            for i in range(stop - first):
                scores[i, i + 1 :] = float("-inf")
        outputs.append(torch.einsum("ijh,jhd->ihd", scores.softmax(1), value).flatten(1))
    return layer.proj(torch.cat(outputs))


@pytest.mark.parametrize(
    "arguments", [{}, {"causal": True}, {"qk_norm": RMSNorm, "qkv_bias": False}], ids=["default", "causal", "qk_norm"]
)
@pytest.mark.parametrize("with_edges", [False, True], ids=["", "edges"])
def test_equals_dense_attention(arguments, with_edges):
    layer, x = build(**arguments)
    given = (edges(), torch.randn(edges().shape[1], 3)) if with_edges else ()
    assert error(layer(x, CU_SEQLENS, *given), dense(layer, x, *given)) < 1e-6


def test_gradients_equal_those_of_dense_attention():
    layer, x = build()
    leaves = [x.double().requires_grad_(), torch.randn(edges().shape[1], 3, dtype=torch.float64, requires_grad=True)]
    layer, weight = layer.double(), torch.randn(sum(LENGTHS), 24)
    leaves += layer.parameters()
    found = torch.autograd.grad((layer(leaves[0], CU_SEQLENS, edges(), leaves[1]) * weight).sum(), leaves)
    expected = torch.autograd.grad((dense(layer, leaves[0], edges(), leaves[1]) * weight).sum(), leaves)
    for one, other in zip(found, expected):
        assert error(one, other) < 1e-10


def test_segments_do_not_contaminate_each_other():
    """Changing one leaves the others as they were, bit by bit, and no gradient reaches them."""
    layer, x = build()
    y = layer(x, CU_SEQLENS)
    changed = x.clone()
    changed[8:20] = float("nan")
    outside = torch.ones(len(x), dtype=torch.bool)
    outside[8:20] = False
    assert torch.equal(layer(changed, CU_SEQLENS)[outside], y[outside])
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x, CU_SEQLENS)[8:20].sum(), x)
    assert gradient[8:20].abs().min() > 0
    assert not gradient[outside].any()


def test_equals_attention_over_padded_samples_on_the_same_weights():
    layer, x = build()
    padded = Attention(24, 3)
    padded.load_state_dict(layer.state_dict())
    samples = [part for part in x.split(LENGTHS) if len(part)]
    mask = torch.arange(12) < torch.tensor([len(sample) for sample in samples])[:, None]
    batch = torch.stack([F.pad(sample, (0, 0, 0, 12 - len(sample))) for sample in samples])
    assert error(layer(x, CU_SEQLENS), padded(batch, mask)[mask]) < 1e-6


def test_under_autocast():
    layer, x = build()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x, CU_SEQLENS, edges(), torch.ones(edges().shape[1], 3))
    assert y.dtype == torch.bfloat16
    assert error(y, layer(x, CU_SEQLENS, edges(), torch.ones(edges().shape[1], 3))) < 2e-2


def test_what_does_not_fit_is_refused():
    layer, x = build()
    with pytest.raises(QuintetError, match=r"packed tokens \(tokens, 24\); got \(25, 20\)"):
        layer(x[:, :20], CU_SEQLENS)
    with pytest.raises(QuintetError, match=r"3 heads, but edge_bias, shaped \(26, 2\), has 2"):
        layer(x, CU_SEQLENS, edges(), torch.zeros(edges().shape[1], 2))
    with pytest.raises(ValueError, match="must rise from 0 to the number of tokens, 20"):
        layer(x[:20], CU_SEQLENS)
