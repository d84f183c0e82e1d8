"""Neighbourhood attention against a dense float64 attention whose neighbourhoods are found by sorting distances."""

from itertools import product

import pytest
import torch
from torch import nn

from quintet.core.attention import NeighborhoodAttention
from quintet.core.errors import QuintetError


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def neighbors(place, length, kernel_size, stride, dilation, causal):
    """The nearest tokens `dilation` apart, of two equally near the earlier; or the last ones up to the token itself.

    Nearest to the middle of the token's group, or to its end, which holds every `stride` tokens that far apart.
    """
    members = range(place % dilation, length, dilation)
    group = [other for other in members if other // dilation // stride == place // dilation // stride]
    leader = group[-1] if causal else group[min(stride // 2, len(group) - 1)]
    candidates = [other for other in members if other <= leader or not causal]
    nearest = sorted(candidates, key=lambda other: (abs(other - leader), other))[:kernel_size]
    return {other for other in nearest if other <= place or not causal}


def dense(layer, x, mask=None):
    """Every pair of tokens visited by a Python loop."""
    layer, grid = layer.double(), x.shape[1:-1]
    projected = layer.qkv(x.double().flatten(1, -2)).unflatten(-1, (3, layer.num_heads, -1))
    query, key, value = projected.unbind(2)
    scores = torch.einsum("bihd,bjhd->bhij", query, key) / query.shape[-1] ** 0.5
    places = list(product(*(range(length) for length in grid)))
    axes = list(zip(grid, layer.kernel_size, layer.stride, layer.dilation, layer.causal_axes))
    for i, here in enumerate(places):
        windows = [neighbors(place, *axis) for place, axis in zip(here, axes)]
        for j, there in enumerate(places):
            if not all(place in window for place, window in zip(there, windows)):
                scores[:, :, i, j] = float("-inf")
            elif layer.rpb is not None:
                offset = [(b - a) // d + k - 1 for a, b, k, d in zip(here, there, layer.kernel_size, layer.dilation)]
                scores[:, :, i, j] += layer.rpb[(slice(None), *offset)]
    if mask is not None:
        scores = scores.masked_fill(~mask.flatten(1)[:, None, None, :], float("-inf"))
    weights = scores.softmax(-1).nan_to_num(0.0)
    y = layer.proj(torch.einsum("bhij,bjhd->bihd", weights, value).flatten(2)).reshape(x.shape)
    return y if mask is None else y * mask.unsqueeze(-1)


CONFIGURATIONS = [
    ((11,), {"kernel_size": 5}),
    ((11,), {"kernel_size": 4}),
    ((11,), {"kernel_size": 3, "dilation": 3}),
    ((11,), {"kernel_size": 4, "dilation": 2, "causal": True}),
    ((11,), {"kernel_size": 5, "stride": 4, "causal": True}),
    ((6, 7), {"kernel_size": 3}),
    ((6, 7), {"kernel_size": (3, 5), "dilation": (2, 1)}),
    ((6, 7), {"kernel_size": 3, "causal": (True, False)}),
    ((6, 7), {"kernel_size": (4, 3), "stride": (2, 3), "dilation": (1, 2)}),
    ((3, 5), {"kernel_size": 7}),
    ((6, 7), {"kernel_size": 3, "relative_bias": False, "qkv_bias": False}),
    ((3, 4, 5), {"kernel_size": 3}),
    ((4, 4, 5), {"kernel_size": (2, 3, 3), "dilation": (2, 1, 1), "causal": (True, False, False)}),
]


@pytest.mark.parametrize(("grid", "arguments"), CONFIGURATIONS)
@pytest.mark.parametrize("with_mask", [False, True])
def test_equals_dense_attention(grid, arguments, with_mask):
    torch.manual_seed(0)
    layer = NeighborhoodAttention(16, num_heads=2, rank=len(grid), **arguments)
    if layer.rpb is not None:
        nn.init.normal_(layer.rpb)
    x = torch.randn(2, *grid, 16)
    mask = (torch.rand(2, *grid) < 0.7) if with_mask else None
    y = layer(x, mask)
    assert error(y, dense(layer, x, mask)) < 1e-6


def test_parameters_are_laid_out_as_published():
    shapes = {key: tuple(value.shape) for key, value in NeighborhoodAttention(64).state_dict().items()}
    assert shapes == {
        "rpb": (2, 13, 13),
        "qkv.weight": (192, 64),
        "qkv.bias": (192,),
        "proj.weight": (64, 64),
        "proj.bias": (64,),
    }


@pytest.mark.parametrize("causal", [False, True])
def test_how_far_padding_reaches(causal):
    """What the docstring says of padding: equal from K // 2 * dilation off the border on, and everywhere if causal."""
    torch.manual_seed(0)
    layer = NeighborhoodAttention(32, kernel_size=5, dilation=2, rank=1, causal=causal)
    x = torch.randn(1, 20, 32)
    padded, mask = torch.cat([x, torch.randn(1, 7, 32)], dim=1), (torch.arange(27) < 20).unsqueeze(0)
    differs = (layer(padded, mask)[:, :20] - layer(x)).abs().amax(-1).squeeze(0) > 1e-6
    assert layer.padding_invariant == causal
    assert not differs[: 20 - 4].any()
    assert bool(differs[20 - 4 :].any()) != causal


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 4}, "rank 1, 2 or 3"),
        ({"kernel_size": (3, 3, 3)}, r"rank=2\) needs one kernel_size or 2 of them"),
        ({"rank": 3, "dilation": (1, 2)}, r"rank=3\) needs one dilation or 3 of them"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(QuintetError, match=words):
        NeighborhoodAttention(32, **arguments)
