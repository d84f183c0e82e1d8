"""The residual addition with its norm against torch in float64."""

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.norm import AddNorm


@pytest.mark.parametrize(("kind", "bias"), [("rms", False), ("layer", True)])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_equals_torch(kind, bias, offset):
    torch.manual_seed(0)
    norm = AddNorm(24, eps=1e-3, kind=kind, bias=bias, offset=offset)
    assert (norm.weight + offset == 1).all()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x, residual = torch.randn(2, 3, 5, 24), torch.randn(2, 3, 5, 24)
    total, y = norm(x, residual)
    expected = x.double() + residual.double()
    assert (total.double() - expected).norm() < 1e-6 * expected.norm()
    if kind == "rms":
        reference = torch.nn.RMSNorm(24, eps=1e-3).double()
    else:
        reference = torch.nn.LayerNorm(24, eps=1e-3).double()
        reference.bias.data.copy_(norm.bias)
    reference.weight.data.copy_(norm.weight.double() + offset)
    expected = reference(expected)
    assert (y.double() - expected).norm() < 1e-6 * expected.norm()


def test_without_parameters():
    assert not list(AddNorm(24, weight=False).parameters())
    with pytest.raises(QuintetError, match=r"offset=1\.0 is added to its weight"):
        AddNorm(24, weight=False, offset=1.0)
