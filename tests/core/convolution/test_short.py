"""The short convolution against its sum, and in pieces."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.convolution.short import ShortConvolution


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize(("width", "bias", "activation"), [(4, True, "silu"), (3, False, None), (1, True, None)])
def test_equals_its_sum(width, bias, activation):
    torch.manual_seed(0)
    layer, x = ShortConvolution(5, width, bias, activation), torch.randn(2, 9, 5)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    y, state = layer(x)
    layer, wide = layer.double(), x.double()
    rows = []
    for time in range(9):
        row = sum(layer.weight[:, j] * wide[:, time - width + 1 + j] for j in range(width) if time - width + 1 + j >= 0)
        rows.append(row + layer.bias if bias else row)
    expected = torch.stack(rows, 1)
    assert error(y, F.silu(expected) if activation else expected) < 1e-6
    assert torch.equal(state, x[:, 9 - width + 1 :])


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_pieces_with_their_state_equal_the_whole(cut):
    """Also where a piece is shorter than what the convolution sees."""
    torch.manual_seed(0)
    layer, x = ShortConvolution(5), torch.randn(2, 9, 5)
    whole, last = layer(x)
    first, state = layer(x[:, :cut])
    second, state = layer(x[:, cut:], state)
    assert error(torch.cat([first, second], 1), whole) < 1e-6
    assert torch.equal(state, last)


@pytest.mark.parametrize("width", [1, 4])
def test_packed_sequences_do_not_see_each_other(width):
    """Nor does the state at the end hold more than the last of them, which is shorter than what is seen."""
    torch.manual_seed(0)
    layer, x, lengths = ShortConvolution(5, width), torch.randn(1, 9, 5), [0, 6, 0, 0, 1, 2]
    y, state = layer(x, cu_seqlens=torch.tensor([0, *lengths]).cumsum(0))
    alone = [layer(part) for part in x.split(lengths, 1) if part.shape[1]]
    assert error(y, torch.cat([part for part, _ in alone], 1)) < 1e-6
    assert torch.equal(state, alone[-1][1])


def test_state_is_float32():
    layer = ShortConvolution(4).to(torch.bfloat16)
    y, state = layer(torch.randn(1, 3, 4, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert state.dtype == torch.float32
