"""Dropout: the rate, independent elements, the scale, the seed, and where torch's own takes over."""

import pytest
import torch
from torch import nn

from quintet.core.regularization.dropout import Dropout, random_words


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_rate_scale_and_independence(rate):
    torch.manual_seed(0)
    count = 400_001  # no multiple of four
    y = Dropout(rate)(torch.ones(count))
    dropped = (y == 0).double()
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert abs(dropped.mean().item() - rate) < 4 * deviation
    assert y[y != 0].unique().numel() == 1
    assert y.max().item() == pytest.approx(1 / (1 - rate), rel=1e-3)
    # The elements that share a draw do not know of each other.
    for distance in (1, 2, 3, 4):
        both = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert abs(both - rate**2) < 4 * (rate**2 * (1 - rate**2) / count) ** 0.5 + 4 * rate * deviation


def test_gradient_and_seed():
    layer = Dropout(0.3)
    x = torch.randn(3, 5, 7, requires_grad=True)
    torch.manual_seed(1)
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
    torch.manual_seed(1)
    assert torch.equal(layer(x), y)


def test_dtype_and_evaluation():
    assert Dropout(0.3)(torch.ones(8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    x = torch.randn(4)
    assert Dropout(0.3).eval()(x) is x


@pytest.mark.parametrize("rate", [0.0, 1e-6, 1.0])
def test_rates_of_no_such_multiple_are_those_of_torch(rate):
    x = torch.randn(1000)
    torch.manual_seed(0)
    expected = nn.Dropout(rate)(x)
    torch.manual_seed(0)
    assert torch.equal(Dropout(rate)(x), expected)


def test_words_are_the_published_sequence(monkeypatch):
    """The first numbers of SplitMix64 from the seed 1234567, as in its authors' C code."""
    monkeypatch.setattr(torch.Tensor, "random_", lambda tensor, *_: tensor.fill_(1234567))
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert random_words(4).tolist() == expected
