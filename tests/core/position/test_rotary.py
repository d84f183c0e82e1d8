"""Rotary positions against multiplication by unit complex numbers."""

from itertools import product

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.position import RotaryPosition


def by_complex_numbers(x, base, layout):
    """Channel pairs as complex numbers, each multiplied by exp(i angle), place by place, in complex128."""
    grid, pairs = x.shape[1:-2], x.shape[-1] // 2
    each = pairs // len(grid)
    x = x.double()
    pair = (
        torch.complex(x[..., :pairs], x[..., pairs:]) if layout == "half" else torch.complex(x[..., ::2], x[..., 1::2])
    )
    for place in product(*(range(length) for length in grid)):
        angles = [place[a] * base ** (-j / each) for a in range(len(grid)) for j in range(each)]
        angles += [0.0] * (pairs - len(angles))
        pair[(slice(None), *place)] *= torch.exp(1j * torch.tensor(angles, dtype=torch.float64))
    if layout == "half":
        return torch.cat([pair.real, pair.imag], dim=-1)
    return torch.view_as_real(pair).flatten(-2)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize(("grid", "head_dim"), [((9,), 8), ((3, 4), 8), ((3, 4), 10), ((2, 3, 4), 16)])
def test_equals_complex_multiplication(layout, grid, head_dim):
    torch.manual_seed(0)
    rotary = RotaryPosition(head_dim, base=100.0, layout=layout)
    query, key = torch.randn(2, *grid, 4, head_dim), torch.randn(2, *grid, 1, head_dim)
    for found, given in zip(rotary(query, key), (query, key)):
        expected = by_complex_numbers(given, 100.0, layout)
        assert (found.double() - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_scores_depend_on_differences_only(layout):
    torch.manual_seed(0)
    rotary = RotaryPosition(16, layout=layout)
    query, key = (torch.randn(16, dtype=torch.float64).expand(1, 6, 7, 1, 16) for _ in range(2))
    query, key = rotary(query, key)
    scores = torch.einsum("hwd,HWd->hwHW", query[0, :, :, 0], key[0, :, :, 0])
    assert torch.allclose(scores[1:, 2:, 1:, 2:], scores[:-1, :-2, :-1, :-2], rtol=0, atol=1e-12)


def test_low_precision_is_rotated_in_float32():
    """At place 4000 a bfloat16 angle would be off by several turns."""
    torch.manual_seed(0)
    x = torch.randn(1, 4096, 1, 32).bfloat16()
    found, _ = RotaryPosition(32)(x, x)
    expected = by_complex_numbers(x, 10000.0, "half")
    assert found.dtype == torch.bfloat16
    assert (found.double() - expected).norm() < 4e-3 * expected.norm()


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(QuintetError, match="even head_dim; got 7"):
        RotaryPosition(7)
    x = torch.zeros(1, 2, 2, 2, 1, 4)
    with pytest.raises(QuintetError, match="head_dim=4 has fewer channel pairs"):
        RotaryPosition(4)(x, x)
