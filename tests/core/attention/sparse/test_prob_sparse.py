"""ProbSparse attention against its definition, query by query in float64; what is drawn; the cheaper forms."""

import math

import pytest
import torch

from quintet.core.attention import Attention, ProbSparseAttention
from quintet.core.attention.sparse import prob_sparse
from quintet.core.attention.sparse.prob_sparse import sampled_scores, spread_keys
from quintet.core.errors import QuintetError

DIM, HEADS = 16, 2


def built(**arguments) -> ProbSparseAttention:
    torch.manual_seed(0)
    mixer = ProbSparseAttention(DIM, HEADS, **arguments).double().eval()
    with torch.no_grad():
        mixer.qkv.weight.mul_(4)  # scores that differ, so that active queries stand out
    return mixer


def by_definition(mixer: ProbSparseAttention, x: torch.Tensor) -> torch.Tensor:
    """One sample (n, DIM), one query after the other."""
    n, width = len(x), DIM // HEADS
    count = min(mixer.factor * math.ceil(math.log(n)), n)
    drawn = spread_keys(n, max(1, count), torch.tensor([n]), x.device)[0]
    heads = []
    for query, key, value in zip(*(part.split(width, -1) for part in mixer.qkv(x).chunk(3, -1))):
        measures = []
        for i in range(n):
            scores = [(query[i] @ key[j]).item() for j in drawn[i].tolist()]
            measures.append(max(scores) - sum(scores) / n)
        active = sorted(range(n), key=lambda i: -measures[i])[:count]
        rows = []
        for i in range(n):
            end = i + 1 if mixer.mask_future else n
            if i in active:
                rows.append((key[:end] @ query[i] / width**0.5).softmax(0) @ value[:end])
            else:
                rows.append(value[:end].sum(0) / (1 if mixer.mask_future else n))
        heads.append(torch.stack(rows))
    joined = torch.cat(heads).reshape(n, DIM) if mixer.interleave_heads else torch.cat(heads, -1)
    return mixer.proj(joined)


@pytest.mark.parametrize("mask_future", [False, True])
@pytest.mark.parametrize("interleave_heads", [False, True])
@pytest.mark.parametrize("length", [1, 2, 9, 30])
def test_definition(length, mask_future, interleave_heads):
    mixer = built(factor=2, mask_future=mask_future, interleave_heads=interleave_heads)
    x = torch.randn(2, length, DIM, dtype=torch.float64)
    expected = torch.stack([by_definition(mixer, sample) for sample in x])
    assert (mixer(x) - expected).norm() / expected.norm() < 1e-12


@pytest.mark.parametrize("mask_future", [False, True])
@pytest.mark.parametrize("interleave_heads", [False, True])
def test_masked_tokens_are_as_if_they_were_not_there(mask_future, interleave_heads):
    mixer = built(factor=2, mask_future=mask_future, interleave_heads=interleave_heads)
    x = torch.randn(4, 30, DIM, dtype=torch.float64)
    mask = torch.rand(4, 30) < torch.tensor([0.3, 0.6, 0.9, 0.0]).unsqueeze(1)
    mask[2] = torch.arange(30) == 7
    y = mixer(x, mask)
    for sample, real, found in zip(x, mask, y):
        if real.any():
            expected = by_definition(mixer, sample[real])
            assert (found[real] - expected).norm() / expected.norm() < 1e-12


def test_all_queries_active_is_softmax_attention():
    mixer, softmax = built(factor=100), Attention(DIM, HEADS).double().eval()
    softmax.load_state_dict(mixer.state_dict())
    x = torch.randn(2, 30, DIM, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), softmax(x))


@pytest.mark.parametrize("variant", [{}, *ProbSparseAttention.variants.values()])
def test_the_tail_alone(variant):
    mixer = ProbSparseAttention(DIM, **variant | {"num_heads": 4}).eval()
    x = torch.randn(2, 30, DIM)
    for count in (1, 10, 29, 30):
        torch.testing.assert_close(mixer.tail(x, count), mixer(x)[:, -count:])


def test_many_tokens_are_measured_by_draws(monkeypatch):
    query, key = torch.randn(2, 2, HEADS, 40, 8, dtype=torch.float64).unbind(0)
    drawn = torch.randint(40, (2, 40, 6))
    matrix = sampled_scores(query, key, drawn)
    monkeypatch.setattr(prob_sparse, "DENSE", 10)
    torch.testing.assert_close(sampled_scores(query, key, drawn), matrix)


def test_draws():
    mixer, x = ProbSparseAttention(DIM, HEADS, factor=1).train(), torch.randn(1, 200, DIM)
    torch.manual_seed(0)
    first, second = mixer(x), mixer(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(mixer(x), first)
    mixer.eval()
    assert torch.equal(mixer(x), mixer(x))


def test_drawn_keys_are_spread():
    keys = spread_keys(100, 20, torch.tensor([100, 7]), torch.device("cpu"))
    assert keys.shape == (2, 100, 20)
    assert keys.amin(dim=(1, 2)).tolist() == [0, 0]
    assert keys.amax(dim=(1, 2)).tolist() == [99, 6]
    gaps = keys[0].sort(-1).values.diff(dim=-1)
    assert gaps.max() <= 16  # of 20 independent draws among 100 the widest gap is about 18
    counts = keys[0].flatten().bincount(minlength=100)
    assert counts.min() >= 10
    assert counts.max() <= 30


def test_a_factor_that_leaves_nothing():
    with pytest.raises(QuintetError, match="factor=0 would leave no query active"):
        ProbSparseAttention(DIM, factor=0)
