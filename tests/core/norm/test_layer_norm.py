"""Layer normalization against torch in float64."""

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.norm import LayerNorm


@pytest.mark.parametrize(("weight", "bias"), [(True, True), (True, False), (False, False)])
def test_equals_torch(weight, bias):
    torch.manual_seed(0)
    norm, x = LayerNorm(24, eps=1e-3, weight=weight, bias=bias), torch.randn(2, 3, 5, 24) * 3 + 1
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    y, (norm, x) = norm(x), (norm.double(), x.double())
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-3).sqrt()
    expected = expected * (norm.weight if weight else 1.0) + (norm.bias if bias else 0.0)
    reference = torch.nn.LayerNorm(24, eps=1e-3, elementwise_affine=weight, bias=bias).double()
    reference.load_state_dict(norm.state_dict())
    for truth in (expected, reference(x)):
        assert (y.double() - truth).norm() < 1e-6 * truth.norm()


def test_offset_makes_the_weight_a_deviation_from_one():
    torch.manual_seed(0)
    norm, x = LayerNorm(24, offset=1.0), torch.randn(3, 24)
    assert torch.equal(norm.weight, torch.zeros(24))
    torch.nn.init.normal_(norm.weight)
    expected = torch.nn.functional.layer_norm(x.double(), (24,), norm.weight.double() + 1, norm.bias.double(), 1e-6)
    assert (norm(x).double() - expected).norm() < 1e-6 * expected.norm()
    with pytest.raises(QuintetError, match=r"offset=1\.0 is added to its weight"):
        LayerNorm(24, weight=False, offset=1.0)
