"""Window attention against torchvision's and timm's Swin, and dense attention whose windows are spelt out."""

from itertools import product

import pytest
import torch
from torch import nn

from quintet.core.attention import WindowAttention
from quintet.core.attention.local.window import join_windows, split_windows
from quintet.core.errors import QuintetError


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(dim=16, num_heads=2, **arguments):
    torch.manual_seed(0)
    layer = WindowAttention(dim, num_heads, **arguments)
    if layer.relative_bias is not None:
        nn.init.normal_(layer.relative_bias.table)
    return layer


def home(place, length, size, shift):
    """The window of a place on one axis: windows start at the shift and every `size` tokens from there."""
    return 0 if size >= length else (place - shift) // size


def dense(layer, x, mask=None):
    """Every pair of tokens visited by a Python loop."""
    layer, grid = layer.double(), x.shape[1:-1]
    query, key, value = layer.qkv(x.double().flatten(1, -2)).unflatten(-1, (3, layer.num_heads, -1)).unbind(2)
    scores = torch.einsum("bihd,bjhd->bhij", query, key) / query.shape[-1] ** 0.5
    places = list(product(*(range(length) for length in grid)))
    axes = list(zip(grid, layer.window_size, layer.shift))
    windows = [[home(place, *axis) for place, axis in zip(here, axes)] for here in places]
    for i, j in product(range(len(places)), repeat=2):
        if windows[i] != windows[j]:
            scores[:, :, i, j] = float("-inf")
        elif layer.relative_bias is not None:
            row = 0
            for here, there, size in zip(places[i], places[j], layer.window_size):
                row = row * (2 * size - 1) + here - there + size - 1
            scores[:, :, i, j] += layer.relative_bias.table[row]
    if mask is not None:
        scores = scores.masked_fill(~mask.flatten(1)[:, None, None, :], float("-inf"))
    weights = scores.softmax(-1).nan_to_num(0.0)
    y = layer.proj(torch.einsum("bhij,bjhd->bihd", weights, value).flatten(2)).reshape(x.shape)
    return y if mask is None else y * mask.unsqueeze(-1)


CONFIGURATIONS = [
    ((12,), {"window_size": 4}),
    ((11,), {"window_size": 4, "shift": 2}),
    ((13,), {"window_size": 5, "shift": 4}),
    ((3,), {"window_size": 5, "shift": 2}),
    ((6, 9), {"window_size": 3}),
    ((6, 9), {"window_size": 3, "shift": 1}),
    ((5, 7), {"window_size": (4, 3), "shift": (2, 0)}),
    ((7, 4), {"window_size": (3, 5), "shift": (1, 2)}),
    ((5, 5), {"window_size": 2, "shift": 1, "relative_bias": False, "qkv_bias": False}),
    ((3, 4, 5), {"window_size": (2, 2, 3), "shift": (1, 0, 2)}),
]


@pytest.mark.parametrize(("grid", "arguments"), CONFIGURATIONS, ids=str)
@pytest.mark.parametrize("with_mask", [False, True], ids=["", "mask"])
def test_equals_dense_attention(grid, arguments, with_mask):
    """Also where the grid is no multiple of the window, or smaller."""
    layer = build(rank=len(grid), **arguments)
    x = torch.randn(2, *grid, 16)
    mask = (torch.rand(2, *grid) < 0.7) if with_mask else None
    assert error(layer(x, mask), dense(layer, x, mask)) < 1e-6


def test_what_learns():
    """The table has a row for each offset, (2 * 3 - 1) * (2 * 4 - 1) of them, and a column for each head."""
    arguments = {"window_size": (3, 4), "qkv_bias": False, "projection_bias": False}
    shapes = {"qkv.weight": (48, 16), "proj.weight": (16, 16)}
    without = WindowAttention(16, 2, relative_bias=False, **arguments)
    assert {name: tuple(p.shape) for name, p in without.named_parameters()} == shapes
    with_bias = WindowAttention(16, 2, relative_bias=True, **arguments)
    shapes |= {"relative_bias.table": (35, 2)}
    assert {name: tuple(p.shape) for name, p in with_bias.named_parameters()} == shapes


def copy_weights(layer, published):
    """From the names of the Swin papers' code."""
    state = {key: value for key, value in published.state_dict().items() if not key.endswith(("index", "mask"))}
    state["relative_bias.table"] = state.pop("relative_position_bias_table")
    layer.load_state_dict(state)


@pytest.mark.parametrize("shift", [(0, 0), (3, 3), (0, 2)], ids=str)
def test_agrees_with_torchvision(shift):
    from torchvision.models.swin_transformer import ShiftedWindowAttention

    torch.manual_seed(0)
    peer = ShiftedWindowAttention(24, [7, 7], list(shift), 3).eval()
    nn.init.normal_(peer.relative_position_bias_table)
    nn.init.normal_(peer.qkv.bias)
    layer = build(24, 3, window_size=7, shift=shift)
    copy_weights(layer, peer)
    for grid in ((21, 14), (7, 7), (14, 28)):
        x = torch.randn(2, *grid, 24)
        assert error(layer(x), peer(x)) < 1e-6


@pytest.mark.parametrize("shift", [0, 2])
def test_agrees_with_timm(shift):
    from timm.models.swin_transformer import SwinTransformerBlock

    torch.manual_seed(0)
    peer = SwinTransformerBlock(24, (12, 8), num_heads=3, window_size=4, shift_size=shift).eval()
    nn.init.normal_(peer.attn.relative_position_bias_table)
    layer = build(24, 3, window_size=4, shift=shift)
    copy_weights(layer, peer.attn)
    x = torch.randn(2, 12, 8, 24)
    assert error(layer(x), peer._attn(x)) < 1e-6


@pytest.mark.parametrize(("grid", "window"), [((12,), (4,)), ((6, 8), (3, 2)), ((4, 2, 6), (2, 1, 3))], ids=str)
def test_windows_are_cut_in_raster_order_and_joined_again(grid, window):
    x = torch.randn(2, *grid, 5)
    windows = split_windows(x, window)
    assert torch.equal(join_windows(windows, window, grid), x)
    corner = x[(0, *(slice(0, size) for size in window))]
    assert torch.equal(windows[0], corner.reshape(-1, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_size": 4, "shift": 4}, r"shift from 0 to window_size - 1; got \(4, 4\) and \(4, 4\)"),
        ({"window_size": 0}, "window_size of at least 1"),
        ({"window_size": (3, 3, 3)}, r"WindowAttention\(rank=2\) needs one window_size or 2 of them"),
        ({"rank": 4}, "rank 1, 2 or 3"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(QuintetError, match=message):
        WindowAttention(16, **arguments)
