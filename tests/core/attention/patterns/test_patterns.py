"""Patterns in attention against attention along lines and against softmax over listed keys."""

from functools import partial
from itertools import product

import pytest
import torch

from quintet.core.attention import Attention
from quintet.core.attention.patterns import AxialPattern, Pattern, StridedPattern
from quintet.core.errors import QuintetError


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def over_listed_keys(layer, x, seen):
    """Softmax of each query over the keys that `seen(query)` names, one query at a time."""
    query, key, value = layer.qkv(x.flatten(1, -2)).unflatten(-1, (3, layer.num_heads, -1)).unbind(2)
    rows = []
    for place in range(query.shape[1]):
        keys = seen(place)
        logits = torch.einsum("bhd,bjhd->bhj", query[:, place], key[:, keys]) / query.shape[-1] ** 0.5
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        rows.append(torch.einsum("bhj,bjhd->bhd", weights, value[:, keys]).flatten(1))
    return layer.proj(torch.stack(rows, 1)).view(x.shape)


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 3, 4)])
def test_axial_tokens_see_the_lines_through_them(grid):
    torch.manual_seed(0)
    layer, x = Attention(8, 2, pattern=AxialPattern).double(), torch.randn(2, *grid, 8, dtype=torch.float64)
    places = list(product(*map(range, grid)))

    def seen(query):
        lines = []
        for axis in range(len(grid)):
            line = [list(places[query]) for _ in range(grid[axis])]
            for step, place in enumerate(line):
                place[axis] = step
            lines += line
        return sorted({places.index(tuple(place)) for place in lines})

    assert error(layer(x), over_listed_keys(layer, x, seen)) < 1e-12


@pytest.mark.parametrize("causal", [False, True])
def test_strided_tokens_see_near_ones_and_every_so_manieth(causal):
    torch.manual_seed(0)
    layer = Attention(8, 2, pattern=partial(StridedPattern, stride=3), causal=causal).double()
    x = torch.randn(2, 11, 8, dtype=torch.float64)

    def seen(query):
        near = {query - 2, query - 1, query, query + 1, query + 2}
        far = set(range(query % 3, 11, 3))
        return [key for key in sorted(near | far) if 0 <= key < (query + 1 if causal else 11)]

    assert error(layer(x), over_listed_keys(layer, x, seen)) < 1e-12
    if not causal:
        reached = layer.pattern((11,))[0].float()
        assert (reached @ reached > 0).all(), "two layers join every pair"


class Nobody(Pattern):
    """Meets nothing, and differs by head in shape only."""

    def __init__(self, num_heads):
        super().__init__()
        self.num_heads = num_heads

    def forward(self, grid, device=None):
        return torch.zeros(self.num_heads, *grid, *grid, dtype=torch.bool, device=device)


def test_a_token_always_sees_itself_and_masked_ones_stay_finite():
    torch.manual_seed(0)
    layer, x = Attention(8, 2, pattern=Nobody), torch.randn(2, 4, 8)
    mask = torch.tensor([[True, False, True, True], [False] * 4])
    alone = layer.proj(layer.qkv(x)[..., 16:])
    assert error(layer(x), alone) < 1e-6
    found = layer(x, mask)
    assert error(found[mask], alone[mask]) < 1e-6
    assert (found[~mask] == 0).all()


def test_fewer_queries_with_a_pattern_are_the_first_of_all():
    torch.manual_seed(0)
    layer, x = Attention(8, 2, pattern=StridedPattern), torch.randn(1, 40, 8)
    assert error(layer(x, queries=5), layer(x)[:, :5]) < 1e-6


def test_a_stride_below_one_is_refused():
    with pytest.raises(QuintetError, match="stride of at least 1; got 0"):
        StridedPattern(2, stride=0)
