"""Sinusoidal positions, entry by entry, and against the original's order of channels."""

from itertools import product
from math import cos, sin

import pytest
import torch

from quintet.core.position import SinCosPosition, sincos_position


@pytest.mark.parametrize(("grid", "dim"), [((7,), 8), ((3, 4), 12), ((3, 4), 14), ((2, 3, 2), 32)])
def test_every_entry(grid, dim):
    table = sincos_position(grid, dim, dtype=torch.float64)
    each = dim // (2 * len(grid))
    expected = torch.zeros(*grid, dim, dtype=torch.float64)
    for place in product(*(range(length) for length in grid)):
        row = []
        for coordinate in place:
            angles = [coordinate * 10000.0 ** (-number / each) for number in range(each)]
            row += [sin(angle) for angle in angles] + [cos(angle) for angle in angles]
        expected[place][: len(row)] = torch.tensor(row, dtype=torch.float64)
    assert (table - expected).abs().max() < 1e-12


def test_sequences_have_the_original_channels_in_another_order():
    table = sincos_position((50,), 16, dtype=torch.float64)
    position, channel = torch.arange(50).unsqueeze(1).double(), torch.arange(8).double()
    angle = position / 10000 ** (2 * channel / 16)
    assert torch.allclose(table, torch.cat([angle.sin(), angle.cos()], dim=1), rtol=0, atol=1e-12)


def test_is_added_in_the_precision_of_the_tokens():
    x = torch.randn(2, 3, 4, 16)
    y = SinCosPosition(16)(x)
    assert (y - x - sincos_position((3, 4), 16, dtype=torch.float32)).abs().max() < 1e-6
    assert SinCosPosition(16)(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.compilation
def test_compiles_in_one_graph():
    x, layer = torch.randn(2, 3, 4, 16), SinCosPosition(16)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert (compiled(x) - layer(x)).abs().max() < 1e-6
    torch._dynamo.reset()
