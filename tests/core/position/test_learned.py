"""Learned positions: resampling against numpy, axis by axis, and against timm."""

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed

from quintet.core.errors import QuintetError
from quintet.core.position import LearnedPosition, resample_position


def linear(table, axis, length):
    """Values at the centres of `length` equal cells, linear between the centres of the table's own cells."""
    old = table.shape[axis]
    centres = (np.arange(length) + 0.5) * old / length - 0.5
    return np.apply_along_axis(lambda row: np.interp(centres, np.arange(old), row), axis, table)


@pytest.mark.parametrize(("old", "new"), [((7,), (12,)), ((7,), (4,)), ((2, 3, 4), (5, 3, 6)), ((4, 4, 4), (3, 2, 5))])
def test_sequences_and_volumes_are_linear(old, new):
    table = torch.randn(*old, 5, dtype=torch.float64)
    expected = table.numpy()
    for axis, length in enumerate(new):
        expected = linear(expected, axis, length)
    assert np.abs(resample_position(table, new).numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("new", [(9, 11), (3, 4), (7, 5)])
def test_images_equal_timm(new):
    table = torch.randn(7, 5, 6)
    expected = resample_abs_pos_embed(table.flatten(0, 1).unsqueeze(0), list(new), [7, 5], num_prefix_tokens=0)
    found = resample_position(table, new)
    assert found.shape == (*new, 6)
    assert (found.flatten(0, 1) - expected[0]).abs().max() < 1e-6


@pytest.mark.parametrize("grid", [(6,), (3, 4), (2, 3, 4)])
def test_is_added_and_learns(grid):
    position, x = LearnedPosition(8, grid), torch.randn(2, *grid, 8)
    assert torch.equal(position(x), x + position.position)
    assert 0.015 < position.position.std() < 0.025
    other = tuple(length + 1 for length in grid)
    position(torch.randn(2, *other, 8)).square().sum().backward()
    assert (position.position.grad != 0).all()
    assert position.to(torch.bfloat16)(torch.randn(2, *other, 8).bfloat16()).dtype == torch.bfloat16


def test_wrong_ranks_are_refused():
    with pytest.raises(QuintetError, match=r"1-axis grid \(6,\) cannot serve the 2-axis grid \(2, 3\)"):
        LearnedPosition(8, (6,))(torch.zeros(1, 2, 3, 8))
    with pytest.raises(QuintetError, match="one to three axes"):
        LearnedPosition(8, (2, 2, 2, 2))


@pytest.mark.compilation
@pytest.mark.parametrize("grid", [(6,), (3, 4), (2, 3, 4)])
def test_compiles_in_one_graph(grid):
    layer, x = LearnedPosition(8, grid), torch.randn(2, *(length + 2 for length in grid), 8)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert (compiled(x) - layer(x)).abs().max() < 1e-6
    torch._dynamo.reset()
