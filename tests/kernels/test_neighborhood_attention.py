"""Neighborhood attention against its definition spelt out query by query, dense attention, and NATTEN."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels import neighborhood_attention as module
from quintet.kernels._spec import relative_error
from quintet.kernels.neighborhood_attention import _axis_tables, _cut_axis, neighborhood_attention


def window(position: int, length: int, size: int, stride: int, step: int, causal: bool) -> list[int]:
    """The positions that a query sees on one axis, from the definition."""
    members = list(range(position % step, length, step))
    place = members.index(position)
    group = [other for other in range(len(members)) if other // stride == place // stride]
    if causal:
        leader = min(group[0] + stride, len(members)) - 1
        return members[max(0, leader - size + 1) : place + 1]
    leader = min(group[0] + stride // 2, group[-1])
    first = max(0, min(leader - size // 2, len(members) - size))
    return members[first : first + size]


def by_definition(query, key, value, sizes, strides, steps, causal, bias, mask, scale):
    batch, *grid, heads, _ = query.shape
    y = torch.zeros_like(query)
    for b, h, *position in itertools.product(range(batch), range(heads), *map(range, grid)):
        axes = (window(*settings) for settings in zip(position, grid, sizes, strides, steps, causal))
        seen = [place for place in itertools.product(*axes) if mask is None or mask[(b, *place)]]
        scores = []
        for place in seen:
            scores.append(scale * query[(b, *position, h)] @ key[(b, *place, h)])
            if bias is not None:
                offset = [(k - q) // step + size - 1 for k, q, step, size in zip(place, position, steps, sizes)]
                scores[-1] = scores[-1] + bias[(h, *offset)]
        if seen:
            weights = torch.stack(scores).softmax(0)
            y[(b, *position, h)] = weights @ torch.stack([value[(b, *place, h)] for place in seen])
    return y


@st.composite
def problems(draw):
    grid = draw(st.sampled_from([(1,), (9,), (13,), (3, 5), (6, 4), (2, 3, 4), (3, 1, 5)]))
    rank = len(grid)
    sizes, steps = (draw(st.tuples(*[st.integers(1, most)] * rank)) for most in (6, 3))
    strides = tuple(draw(st.integers(1, size)) for size in sizes)
    causal = draw(st.tuples(*[st.booleans()] * rank))
    return grid, sizes, strides, steps, causal, draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 99))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@given(problem=problems())
def test_agrees_with_the_definition(backend, problem):
    grid, sizes, strides, steps, causal, has_bias, has_mask, seed = problem
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 2, *grid, 2, 3, generator=generator, dtype=torch.float64)
    entries = [2 * size - 1 for size in sizes]
    bias = torch.randn(2, *entries, generator=generator, dtype=torch.float64) if has_bias else None
    mask = torch.rand(2, *grid, generator=generator) < 0.6 if has_mask else None
    settings = {
        "stride": strides,
        "dilation": steps,
        "causal": causal,
        "bias": bias,
        "mask": mask,
        "scale": 0.7,
        "backend": backend,
    }
    found = neighborhood_attention(query, key, value, sizes, **settings)
    expected = by_definition(query, key, value, sizes, strides, steps, causal, bias, mask, 0.7)
    assert relative_error(found, expected) < 1e-12


AXES = [
    pytest.param(
        *(length, size, stride, step, causal),
        id=f"{length} window {size} stride {stride} dilation {step}{' causal' * causal}",
    )
    for length, size, step, causal in itertools.product((1, 2, 7, 16, 29), (1, 2, 3, 4, 7, 9), (1, 2, 3), (False, True))
    for stride in sorted({1, size // 2 + 1})
]


@pytest.mark.parametrize(("length", "size", "stride", "step", "causal"), AXES)
def test_tiles_and_halos_hold_every_window(length, size, stride, step, causal):
    """Tiles of an axis in a volume, the shortest there are: each query finds its window in the halo, and only it."""
    axis = _cut_axis(length, size, stride, step, causal, 3, torch.device("cpu"))
    for position in range(length):
        tile, slot = divmod(int(axis.slots[position]), axis.queries.shape[1])
        assert axis.queries[tile, slot] == position
        assert axis.keys[tile][axis.inside[tile, slot]].tolist() == window(position, length, size, stride, step, causal)


@pytest.mark.parametrize(("length", "size", "stride", "step", "causal"), AXES)
def test_tables_of_the_kernels_hold_every_window(length, size, stride, step, causal):
    tiles, keys, queries, place, first, stop = _axis_tables(length, size, stride, step, causal, tile=4)
    assert sorted(tiles[tiles >= 0].tolist()) == list(range(length))
    seen_by = {position: [] for position in range(length)}
    for tile, visited in zip(tiles.tolist(), keys.tolist()):
        for position in filter(lambda position: position >= 0, tile):
            expected = window(position, length, size, stride, step, causal)
            assert set(expected) <= set(visited)
            assert [key for key in expected if not first[position] <= place[key] < stop[position]] == []
            assert stop[position] - first[position] == len(expected)
            for key in expected:
                seen_by[key].append(position)
    for tile, visited in zip(tiles.tolist(), queries.tolist()):
        for position in filter(lambda position: position >= 0, tile):
            assert set(seen_by[position]) <= set(visited)


@pytest.mark.parametrize("grid", [(31,), (7, 7), (14, 9), (3, 4, 5)])
def test_window_over_the_whole_grid_is_dense_attention(grid):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, *grid, 3, 8)
    dense = (tensor.flatten(1, len(grid)).transpose(1, 2).double() for tensor in (query, key, value))
    expected = F.scaled_dot_product_attention(*dense).transpose(1, 2).reshape(query.shape)
    assert relative_error(neighborhood_attention(query, key, value, 63), expected) < 1e-6


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_bias_moves_attention_to_the_neighbour_at_its_offset(backend):
    """Everything on (row + 1, column - 2): inside, the output is the value there."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 12, 11, 2, 4)
    bias = torch.zeros(2, 9, 9)
    bias[:, 4 + 1, 4 - 2] = 100.0
    y = neighborhood_attention(query, key, value, 5, bias=bias, backend=backend)
    inside = y[:, 2:-3, 2:-2]
    assert relative_error(inside, value[:, 3:-2, 0:-4]) < 1e-6


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_masked_tokens_change_nothing_and_unseeing_queries_give_zero(backend, with_bias):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 9, 10, 2, 4).unbind()
    mask = torch.rand(2, 9, 10) < 0.7
    mask[1, :6, :6] = False
    bias = torch.randn(2, 5, 5, requires_grad=True) if with_bias else None
    inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    y = neighborhood_attention(*inputs, 3, mask=mask, bias=bias, backend=backend)
    y.square().sum().backward()

    key, value = (torch.where(mask[..., None, None], tensor, 1e3) for tensor in (key, value))
    other = neighborhood_attention(query, key, value, 3, mask=mask, bias=bias, backend=backend)
    assert relative_error(other, y.detach()) < 1e-6
    assert not y[1, :5, :5].any()
    for tensor in inputs:
        assert tensor.grad.isfinite().all()
    assert not inputs[0].grad[1, :5, :5].any()
    assert not inputs[2].grad[~mask].any()


def test_torch_form_of_a_biased_masked_image_has_right_gradients():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 11, 13, 1, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, 5, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(1, 11, 13) < 0.7

    def attend(*inputs):
        return neighborhood_attention(*inputs[:3], 3, bias=inputs[3], mask=mask, backend="torch")

    assert torch.autograd.gradcheck(attend, (query, key, value, bias), fast_mode=True)


def test_under_autocast_computes_in_its_dtype():
    query, key, value = torch.randn(3, 1, 5, 5, 1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert neighborhood_attention(query, key, value, 3).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 0}, "kernel_size is 0; give a positive number, or 2 of them"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size is \(3, 3, 3\)"),
        ({"kernel_size": 3, "dilation": (1, 0)}, r"dilation is \(1, 0\)"),
        ({"kernel_size": 3, "stride": (2, 4)}, r"stride \(2, 4\) is larger than kernel_size \(3, 3\)"),
        ({"kernel_size": 3, "causal": (True,)}, r"causal is \(True,\); give True or False, or 2 of them"),
        ({"kernel_size": 3, "bias": torch.zeros(2, 3, 3)}, r"bias has shape \(2, 3, 3\), windows need \(2, 5, 5\)"),
        ({"kernel_size": 3, "backend": "cuda"}, "backend 'cuda' is unknown"),
    ],
)
def test_bad_settings_are_refused_with_what_and_why(settings, message):
    with pytest.raises(ValueError, match=message):
        neighborhood_attention(*torch.randn(3, 1, 5, 5, 2, 4), **settings)


def test_grid_of_four_axes_and_mixed_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"not \(batch, \*grid, heads, head_dim\)"):
        neighborhood_attention(*torch.randn(3, 1, 2, 2, 2, 2, 1, 4), 3)
    query, key, value = torch.randn(3, 1, 5, 1, 4)
    with pytest.raises(ValueError, match="must be alike"):
        neighborhood_attention(query, key, value.double(), 3)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("grid", "size", "stride", "step", "causal"),
    [
        ((33,), 7, 1, 1, False),
        ((33,), 6, 4, 2, True),
        ((33,), 8, 8, 1, False),
        ((14, 17), 7, 1, 1, False),
        ((14, 17), 6, (3, 4), 1, False),
        ((15, 13), (3, 4), (1, 2), (4, 2), False),
        ((9, 12), (5, 3), (4, 2), (1, 3), (True, False)),
        ((5, 6, 7), (3, 2, 5), (2, 1, 4), 1, False),
        ((6, 7, 8), (3, 3, 2), 1, (2, 1, 3), (False, True, False)),
    ],
    ids=str,
)
def test_agrees_with_natten(grid, size, stride, step, causal):
    natten = pytest.importorskip("natten", reason="natten is not installed (pip install quintet[peers])")
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, *grid, 2, 32)
    peer = {1: natten.na1d, 2: natten.na2d, 3: natten.na3d}[len(grid)]
    settings = {"kernel_size": size, "stride": stride, "dilation": step}
    expected = peer(query, key, value, **settings, is_causal=causal, scale=1 / math.sqrt(32))
    for backend in ("reference", "torch"):
        found = neighborhood_attention(query, key, value, **settings, causal=causal, backend=backend)
        assert relative_error(found, expected) < 1e-5, backend


# One stride is told to the kernels for all three

LAUNCH = {"bias": None, "mask": None, "kernel_size": (3, 3), "stride": (1, 1), "dilation": (1, 1)}
LAUNCH |= {"causal": (False, False), "scale": 1.0}
NAMES = ("query", "key", "value")
STRIDES = ("batch_stride", "token_stride", "head_stride")


@pytest.mark.parametrize("name", NAMES)
def test_kernels_get_tensors_of_one_layout(name):
    given = dict(zip(NAMES, torch.randn(3, 2, 4, 5, 3, 8, generator=torch.Generator().manual_seed(0))))
    other = given | {name: given[name].transpose(0, 3).contiguous().transpose(0, 3)}
    for tensors in (other, {key: tensor.mT.contiguous().mT for key, tensor in given.items()}):
        launch = module._launch(**tensors, **LAUNCH)
        for key, tensor in given.items():
            assert launch.tensors[f"{key}_ptr"].is_contiguous()
            assert torch.equal(launch.tensors[f"{key}_ptr"], tensor.flatten(1, 2))
        assert [launch.numbers[stride] for stride in STRIDES] == [480, 24, 8]


def test_parts_of_one_projection_are_not_copied():
    parts = dict(zip(NAMES, torch.zeros(2, 4, 5, 3, 3, 8).unbind(3)))
    launch = module._launch(**parts, **LAUNCH)
    assert all(launch.tensors[f"{key}_ptr"].data_ptr() == tensor.data_ptr() for key, tensor in parts.items())
    assert [launch.numbers[stride] for stride in STRIDES] == [1440, 72, 8]
