"""The adaptive norm: its formula in float64, and how it starts."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.norm import AdaptiveNorm


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("grid", [(), (7,), (3, 4)])
def test_equals_its_formula(kind, grid):
    torch.manual_seed(0)
    norm = AdaptiveNorm(24, condition_dim=10, kind=kind)
    x, condition = torch.randn(3, *grid, 24), torch.randn(3, 10)
    plain = {"layer": F.layer_norm, "rms": F.rms_norm}[kind](x.double(), (24,), eps=1e-6)
    assert (norm(x, condition).double() - plain).norm() < 1e-6 * plain.norm(), "starts as the plain norm"
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    weight, bias = norm.linear.weight.double(), norm.linear.bias.double()
    condition_64 = condition.double()
    modulation = (condition_64 * torch.sigmoid(condition_64)) @ weight.T + bias
    shift, scale = (part.view(3, *[1] * len(grid), 24) for part in (modulation[:, :24], modulation[:, 24:]))
    expected = plain * (1 + scale) + shift
    assert (norm(x, condition).double() - expected).norm() < 1e-6 * expected.norm()


def test_the_condition_learns_from_the_start():
    torch.manual_seed(0)
    norm = AdaptiveNorm(8)
    (norm(torch.randn(2, 5, 8), torch.randn(2, 8)) ** 3).sum().backward()
    assert (norm.linear.weight.grad != 0).all()
