"""Gated linear units against the formulas of the paper."""

from math import erf

import pytest
import torch

from quintet.core.feedforward import BilinearGLU, GatedLinearUnit, GeGLU, Mlp, ReGLU, SwiGLU

FORMULAS = {
    GatedLinearUnit: lambda gate: 1 / (1 + (-gate).exp()),
    SwiGLU: lambda gate: gate / (1 + (-gate).exp()),
    GeGLU: lambda gate: gate * gate.clone().apply_(lambda value: 0.5 * (1 + erf(value / 2**0.5))),
    ReGLU: lambda gate: gate * (gate > 0),
    BilinearGLU: lambda gate: gate,
}


@pytest.mark.parametrize("unit", FORMULAS)
@pytest.mark.parametrize("bias", [False, True])
def test_equals_its_formula(unit, bias):
    torch.manual_seed(0)
    layer, x = unit(24, bias=bias), torch.randn(2, 3, 24)
    y, layer = layer(x), layer.double()
    w, v = layer.fc1.weight.detach().chunk(2)
    b, c = layer.fc1.bias.detach().chunk(2) if bias else (0.0, 0.0)
    hidden = FORMULAS[unit](x.double() @ w.T + b) * (x.double() @ v.T + c)
    expected = hidden @ layer.fc2.weight.T + (layer.fc2.bias if bias else 0.0)
    assert (y.double() - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize(("dim", "width"), [(64, 176), (96, 256), (192, 512), (768, 2048)])
def test_hidden_width_is_eight_thirds_rounded_up(dim, width):
    layer = SwiGLU(dim)
    assert layer.fc2.in_features == width
    weights = sum(parameter.numel() for parameter in layer.parameters())
    perceptron = sum(parameter.numel() for parameter in Mlp(dim, bias=False).parameters())
    assert perceptron <= weights < perceptron + 3 * 8 * dim


def test_hidden_width_as_given():
    assert SwiGLU(64, hidden_dim=100).fc2.in_features == 100
    assert SwiGLU(64, ratio=4.0, multiple_of=1).fc2.in_features == 256
