"""The contract's helpers."""

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.mixer import Mixer, flatten_grid, mask_tokens, mix_real_tokens, resolve_num_heads, unflatten_grid


class Identity(Mixer):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x, mask=None):
        self.check_tokens(x, mask)
        return mask_tokens(x, mask)


@pytest.mark.parametrize("grid", [(5,), (2, 3), (2, 3, 4)])
def test_flatten_is_raster_order_and_undone(grid):
    x, mask = torch.randn(2, *grid, 8), torch.rand(2, *grid) < 0.5
    sequence, flat = flatten_grid(x, mask)
    for number, place in enumerate(
        torch.cartesian_prod(*(torch.arange(length) for length in grid)).reshape(-1, len(grid))
    ):
        assert torch.equal(sequence[:, number], x[(slice(None), *place.tolist())])
        assert torch.equal(flat[:, number], mask[(slice(None), *place.tolist())])
    assert torch.equal(unflatten_grid(sequence, grid), x)


def test_mask_clears_even_nan():
    x = torch.tensor([[[float("nan")], [1.0], [float("inf")]]])
    assert torch.equal(mask_tokens(x, torch.tensor([[False, True, False]])), torch.tensor([[[0.0], [1.0], [0.0]]]))
    assert mask_tokens(x, None) is x


@pytest.mark.parametrize(("dim", "heads"), [(8, 1), (32, 1), (64, 2), (100, 2), (97, 1), (768, 24)])
def test_default_number_of_heads_divides(dim, heads):
    assert resolve_num_heads(dim, None) == heads


def test_wrong_number_of_heads_names_the_nearest():
    assert resolve_num_heads(64, 16) == 16
    with pytest.raises(QuintetError, match="dim=96 cannot be split into num_heads=7; nearest that can: 4, 6, 8"):
        resolve_num_heads(96, 7)


@pytest.mark.parametrize(
    ("x", "mask", "words"),
    [
        (torch.zeros(2, 8), None, r"tokens shaped \(batch, time, 8\) or \(batch, height, width, 8\)"),
        (torch.zeros(2, 8, 3), None, "tokens of width 3.*channels come last"),
        (
            torch.zeros(2, 4, 8),
            torch.ones(2, 5, dtype=torch.bool),
            r"a mask shaped \(2, 5\); these tokens need \(2, 4\)",
        ),
    ],
)
def test_wrong_tokens_are_named(x, mask, words):
    with pytest.raises(QuintetError, match=words):
        Identity(8).check_tokens(x, mask)


def test_without_a_state_streaming_is_refused():
    with pytest.raises(QuintetError, match="this Identity carries no state"):
        Identity(8).step(torch.zeros(1, 8))


def test_real_tokens_are_mixed_as_if_the_masked_were_not_there():
    x, mask = torch.randn(3, 4, 5, 2), torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[2] = False
    y = mix_real_tokens(lambda tokens: tokens.cumsum(1), x.masked_fill(~mask.unsqueeze(-1), torch.nan), mask)
    for sample, real, found in zip(x, mask, y):
        assert torch.allclose(found[real], sample[real].cumsum(0), atol=1e-6)
        assert (found[~real] == 0).all()
    assert torch.equal(mix_real_tokens(lambda tokens: tokens.cumsum(1), x, None), x.flatten(1, 2).cumsum(1).view_as(x))
