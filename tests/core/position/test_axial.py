"""Angles of grid positions, entry by entry."""

from itertools import product

import pytest
import torch

from quintet.core.position.axial import axial_angles


@pytest.mark.parametrize("grid", [(5,), (2, 3), (2, 3, 4)])
def test_every_angle(grid):
    angles = axial_angles(grid, 3, 100.0, torch.device("cpu"), torch.float64)
    assert angles.shape == (*grid, len(grid), 3)
    for place in product(*(range(length) for length in grid)):
        for axis, frequency in product(range(len(grid)), range(3)):
            expected = place[axis] / 100.0 ** (frequency / 3)
            assert angles[(*place, axis, frequency)].item() == pytest.approx(expected, rel=1e-14)
