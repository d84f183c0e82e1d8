"""Relative position bias, pair by pair, and against timm's index."""

from itertools import product

import pytest
import torch
from timm.models.swin_transformer import get_relative_position_index

from quintet.core.errors import QuintetError
from quintet.core.position import RelativePositionBias
from quintet.core.position.relative_bias import relative_index


@pytest.mark.parametrize(
    ("largest", "grid"), [((6,), (6,)), ((6,), (4,)), ((3, 4), (3, 4)), ((3, 4), (3, 2)), ((2, 3, 2),) * 2]
)
def test_every_pair(largest, grid):
    layer = RelativePositionBias(2, largest)
    bias = layer(grid)
    table = layer.table.unflatten(0, [2 * length - 1 for length in largest])
    places = list(product(*(range(length) for length in grid)))
    for (i, query), (j, key) in product(enumerate(places), enumerate(places)):
        offset = tuple(a - b + length - 1 for a, b, length in zip(query, key, largest))
        assert torch.equal(bias[:, i, j], table[offset])


def test_images_are_indexed_like_swin():
    assert torch.equal(relative_index((3, 5), (3, 5)), get_relative_position_index(3, 5))


def test_gradient_is_summed_over_pairs():
    layer = RelativePositionBias(1, (3,))
    layer((3,)).sum().backward()
    assert layer.table.grad.flatten().tolist() == [1, 2, 3, 2, 1]


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (3,)])
def test_larger_grids_are_refused(grid):
    with pytest.raises(QuintetError, match=r"of a grid \(3, 4\) do not reach across"):
        RelativePositionBias(2, (3, 4))(grid)


def test_index_is_not_saved():
    assert set(RelativePositionBias(2, (3, 4)).state_dict()) == {"table"}


def test_the_table_at_the_start():
    """N(0, 0.02²) cut at two units, whose deviation is 0.88 of a unit."""
    table = RelativePositionBias(8, (20, 20)).table
    assert table.abs().max() <= 0.04
    assert table.std().item() == pytest.approx(0.0176, rel=0.02)
