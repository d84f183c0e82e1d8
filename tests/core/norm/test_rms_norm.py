"""Root mean square normalization against torch in float64."""

import pytest
import torch

from quintet.core.norm import RMSNorm


@pytest.mark.parametrize("weight", [True, False])
def test_equals_torch(weight):
    torch.manual_seed(0)
    norm, x = RMSNorm(24, eps=1e-3, weight=weight), torch.randn(2, 3, 5, 24) * 3 + 1
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    y, (norm, x) = norm(x), (norm.double(), x.double())
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * (norm.weight if weight else 1.0)
    reference = torch.nn.RMSNorm(24, eps=1e-3, elementwise_affine=weight).double()
    reference.load_state_dict(norm.state_dict())
    for truth in (expected, reference(x)):
        assert (y.double() - truth).norm() < 1e-6 * truth.norm()


def test_gradient_equals_torch():
    torch.manual_seed(0)
    norm, reference = RMSNorm(24), torch.nn.RMSNorm(24, eps=1e-6).double()
    x, probe = torch.randn(4, 7, 24, requires_grad=True), torch.randn(4, 7, 24)
    exact = x.detach().double().requires_grad_()
    (norm(x) * probe).sum().backward()
    (reference(exact) * probe.double()).sum().backward()
    for found, truth in ((x.grad, exact.grad), (norm.weight.grad, reference.weight.grad)):
        assert (found.double() - truth).norm() < 1e-6 * truth.norm()
