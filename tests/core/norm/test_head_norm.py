"""The norm over heads against torch's group norm in float64."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.norm import HeadNorm


@pytest.mark.parametrize("weight", [True, False])
def test_equals_group_norm(weight):
    torch.manual_seed(0)
    norm, x = HeadNorm(24, num_heads=3, weight=weight), torch.randn(2, 5, 3, 8) * 3 + 1
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    scale = norm.weight.double() if weight else None
    expected = F.group_norm(x.double().reshape(10, 24), 3, scale, eps=1e-5).view(2, 5, 24)
    assert (norm(x).double() - expected).norm() < 1e-6 * expected.norm()
    assert norm.to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16
