"""The gated norm against its formula in float64, whole and head by head."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.norm import GatedNorm


@pytest.mark.parametrize(("kind", "activation"), [("rms", "silu"), ("layer", "sigmoid")])
def test_equals_its_formula(kind, activation):
    torch.manual_seed(0)
    norm = GatedNorm(24, eps=1e-3, kind=kind, activation=activation, bias=True, offset=1.0)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x, gate = torch.randn(2, 3, 24) + 1, torch.randn(2, 3, 24)
    wide = x.double()
    if kind == "layer":
        wide = wide - wide.mean(-1, keepdim=True)
    normalized = wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    expected = normalized * (norm.weight.double() + 1) + norm.bias.double()
    expected = expected * torch.sigmoid(gate.double()) * (gate.double() if activation == "silu" else 1.0)
    assert (norm(x, gate).double() - expected).norm() < 1e-6 * expected.norm()


def test_heads_are_normalized_by_themselves():
    torch.manual_seed(0)
    x, gate = torch.randn(2, 5, 4, 8), torch.randn(2, 5, 4, 8)
    y = GatedNorm(8)(x, gate)
    for head in range(4):
        expected = F.rms_norm(x[:, :, head], (8,), eps=1e-6) * F.silu(gate[:, :, head])
        assert (y[:, :, head] - expected).norm() < 1e-6 * expected.norm()
