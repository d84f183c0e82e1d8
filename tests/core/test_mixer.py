"""The contract's helpers."""

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.mixer import (
    Mixer,
    SequenceMixer,
    flatten_grid,
    mask_tokens,
    mix_real_tokens,
    pack_real_tokens,
    resolve_num_heads,
    unflatten_grid,
)


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


def test_packed_tokens_stand_in_front_and_return_to_their_places():
    """Mixing by halves, which is not causal, sees the real tokens as if they were all there is."""
    x, mask = torch.randn(3, 2, 4, 2), torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[2] = False

    def mix(tokens, real):
        assert torch.equal(real, torch.arange(8) < mask.flatten(1).sum(1, keepdim=True))
        return tokens + tokens.sum(1, keepdim=True) + 10.0 * torch.arange(8).view(1, 8, 1)

    y = pack_real_tokens(mix, x.masked_fill(~mask.unsqueeze(-1), torch.nan), mask)
    for sample, real, found in zip(x, mask, y):
        places = 10.0 * torch.arange(int(real.sum())).unsqueeze(-1)
        assert torch.allclose(found[real], sample[real] + sample[real].sum(0) + places, atol=1e-5)
        assert (found[~real] == 0).all()
    assert torch.equal(pack_real_tokens(lambda tokens, real: tokens + (real is None), x, None), x + 1)


class Sum(SequenceMixer):
    """y_t = y_{t-1} + x_t, and remembers the mask it was given."""

    num_heads = 2

    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def recur(self, x, state, mask=None):
        self.mask = mask
        y = x.cumsum(1) + (0.0 if state is None else state.unsqueeze(1))
        return y, y[:, -1]


class SumOfReal(Sum):
    passes_over = True

    def recur(self, x, state):
        return super().recur(x + 1.0, state)


def test_a_sequence_mixer_is_its_recurrence_over_grids_stretches_and_steps():
    mixer, x = Sum(4), torch.randn(2, 3, 5, 4)
    mask = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    y = mixer(x.masked_fill(~mask.unsqueeze(-1), torch.nan), mask)
    expected = (x * mask.unsqueeze(-1)).flatten(1, 2).cumsum(1).view_as(x) * mask.unsqueeze(-1)
    assert torch.allclose(y, expected, atol=1e-6)
    assert torch.equal(mixer.mask, mask.flatten(1))
    sequence = x[:, 0]
    first, state = mixer.scan(sequence[:, :2])
    rest, _ = mixer.scan(sequence[:, 2:], state)
    assert torch.allclose(torch.cat([first, rest], 1), sequence.cumsum(1), atol=1e-6)
    assert torch.equal(mixer.step(sequence[:, 0])[0], sequence[:, 0])
    assert (mixer.causal, mixer.streaming, mixer.subquadratic) == (True, True, True)


def test_what_passes_over_masked_tokens_makes_no_step_at_them():
    mixer, x = SumOfReal(1), torch.zeros(1, 4, 1)
    y = mixer(x, torch.tensor([[True, False, False, True]]))
    assert y.flatten().tolist() == [1.0, 0.0, 0.0, 2.0]
    assert mixer.mask is None


def test_widths_that_heads_cannot_share_are_refused():
    assert Sum(8).split_width("keys", key_factor=0.5) == 4
    alone = Sum(8)
    alone.num_heads = 1
    assert alone.split_width("keys", key_factor=0.125) == 1
    with pytest.raises(QuintetError, match=r"Sum\(dim=8, key_factor=0.05\) has keys of width 0"):
        alone.split_width("keys", key_factor=0.05)
    with pytest.raises(QuintetError, match=r"Sum\(dim=8, key_factor=0.4\) has keys of width 3.*num_heads=2"):
        Sum(8).split_width("keys", key_factor=0.4)
