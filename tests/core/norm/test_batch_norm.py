"""Batch normalization of tokens: torch's over the real ones, statistics and gradients included."""

import pytest
import torch
from torch import nn

from quintet.core.norm import BatchNorm


@pytest.mark.parametrize("lengths", [[7, 2, 4], [7, 7, 7]])
def test_real_tokens_are_those_of_torch(lengths):
    norm, plain = BatchNorm(2).double(), nn.BatchNorm1d(2).double()
    x = torch.randn(3, 7, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    y, expected = norm(x, mask), plain(x[mask])
    assert torch.allclose(y[mask], expected)
    assert not y[~mask].any()
    for name, buffer in plain.named_buffers():
        assert torch.allclose(norm.get_buffer(name), buffer), name
    slope = torch.randn_like(y)
    whole = torch.zeros_like(y).masked_scatter(mask.unsqueeze(-1), expected)
    found, wanted = (torch.autograd.grad((part * slope).sum(), x)[0] for part in (y, whole))
    assert torch.allclose(found, wanted)
    norm.eval(), plain.eval()
    assert torch.allclose(norm(x, mask)[mask], plain(x[mask]))
    assert not norm(x, mask)[~mask].any()


@pytest.mark.parametrize("grid", [(5,), (3, 4)])
def test_a_mask_of_real_tokens_changes_nothing(grid):
    x = torch.randn(2, *grid, 3, dtype=torch.float64)
    masked, plain = BatchNorm(3).double(), BatchNorm(3).double()
    mask = torch.ones(2, *grid, dtype=torch.bool)
    assert torch.allclose(masked(x, mask), plain(x))
    assert torch.allclose(masked.running_var, plain.running_var)


def test_what_is_masked_reaches_nothing():
    x = torch.randn(2, 5, 3, requires_grad=True)
    mask = torch.tensor([5, 2])[:, None] > torch.arange(5)
    spoiled = x.detach().masked_fill(~mask.unsqueeze(-1), torch.nan)
    assert torch.equal(BatchNorm(3)(x, mask), BatchNorm(3)(spoiled, mask))
    BatchNorm(3)(x, mask).square().sum().backward()
    assert not x.grad[~mask].any()
