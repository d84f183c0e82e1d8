"""The mask of a token's own place: what attention gives with it, and alone."""

import torch

from quintet.core.attention import Attention, DiagonalMask


def test_a_token_says_what_the_others_make_of_it():
    torch.manual_seed(0)
    mixer = Attention(16, num_heads=2, relative_bias=DiagonalMask).double().eval()
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    query, key, value = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in mixer.qkv(x).chunk(3, -1))
    scores = (query @ key.transpose(-1, -2) / 8**0.5).masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    expected = mixer.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixer(x), expected)


def test_alone_it_sees_itself():
    mixer = Attention(16, num_heads=2, relative_bias=DiagonalMask).eval()
    x, mask = torch.randn(2, 5, 16), torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 3] = True
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        y = mixer.to(dtype)(x.to(dtype), mask)
        assert torch.isfinite(y).all()
        assert y[0, 3].abs().max() > 0
        assert y[1].count_nonzero() == 0


def test_it_takes_any_grid_and_stores_nothing():
    bias = DiagonalMask(3)
    assert bias((2, 2)).shape == (3, 4, 4)
    assert bias.state_dict() == {}
