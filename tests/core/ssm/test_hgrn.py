"""The layer of HGRN against its equations, one token at a time in float64."""

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.ssm import HGRN


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(dim=12, **arguments):
    torch.manual_seed(0)
    layer = HGRN(dim, **arguments)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def equations(layer, x):
    """Of one sample (time, dim)."""
    layer, x = layer.double(), x.double()
    h, rows = 0.0, []
    for token in x:
        forget = layer.lower_bound + (1 - layer.lower_bound) * sigmoid(layer.forget_gate(token))
        candidate, gate = layer.input(token), layer.output_gate(token)
        h = forget * h + (1 - forget) * candidate * sigmoid(candidate)
        normed = h / (h.square().mean() + 1e-6).sqrt() * layer.norm.weight
        rows.append(normed * gate * sigmoid(gate))
    return layer.proj(torch.stack(rows))


@pytest.mark.parametrize("arguments", [{}, HGRN.variants["bounded"]])
def test_equals_its_equations(arguments):
    layer, x = build(**arguments), torch.randn(60, 12)
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x)) < 1e-5


@pytest.mark.parametrize("lower_bound", [0.0, 0.9])
def test_saturated_gates_keep_their_digits(lower_bound):
    """Where a forget gate is within 1e-8 of one, what is written is 1e-8, not zero; where it is 1e-30, it is that."""
    layer, x = build(lower_bound=lower_bound, bias=True), torch.randn(30, 12)
    with torch.no_grad():
        layer.forget_gate.bias.copy_(torch.linspace(-70.0, 20.0, 12))
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x)) < 1e-5


def test_a_lower_bound_keeps_the_past():
    """At l the first token still has l^t of its weight t tokens later, however the gates stand."""
    layer = build(lower_bound=0.9)
    _, state = layer.scan(torch.randn(1, 1, 12))
    _, later = layer.scan(torch.zeros(1, 20, 12), state)
    assert (later.abs() >= 0.9**20 * state.abs() * (1 - 1e-5)).all()


def test_a_masked_token_leaves_the_state_as_it_is():
    layer, x = build(), torch.randn(2, 13, 12)
    mask = torch.rand(2, 13, generator=torch.Generator().manual_seed(1)) < 0.6
    for sample, real, found in zip(x, mask, layer(x, mask)):
        assert error(found[real], layer(sample[real].unsqueeze(0))[0]) < 1e-5


def test_a_lower_bound_out_of_range_is_refused():
    with pytest.raises(QuintetError, match=r"in \[0, 1\); got 1.0"):
        HGRN(12, lower_bound=1.0)
