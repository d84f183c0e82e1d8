"""The two-layer perceptron against its formula."""

import pytest
import torch
from torch import nn

from quintet.core.feedforward import Mlp


@pytest.mark.parametrize(("activation", "formula"), [(nn.GELU, torch.nn.functional.gelu), (nn.ReLU, torch.relu)])
def test_equals_its_formula(activation, formula):
    torch.manual_seed(0)
    layer, x = Mlp(24, activation=activation), torch.randn(2, 3, 5, 24)
    weights = [parameter.double() for parameter in (layer.fc1.weight, layer.fc1.bias, layer.fc2.weight, layer.fc2.bias)]
    expected = formula(x.double() @ weights[0].T + weights[1]) @ weights[2].T + weights[3]
    assert (layer(x).double() - expected).norm() < 1e-6 * expected.norm()


def test_widths_biases_and_dropout():
    assert Mlp(24).fc1.out_features == 96
    assert Mlp(24, ratio=2.5).fc1.out_features == 60
    assert Mlp(24, hidden_dim=7).fc1.out_features == 7
    assert {key for key, _ in Mlp(24, bias=False).named_parameters()} == {"fc1.weight", "fc2.weight"}
    layer, x = Mlp(24, dropout=0.5), torch.randn(2, 24)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))
