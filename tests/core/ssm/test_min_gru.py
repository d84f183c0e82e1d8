"""The minimal gated recurrent unit against its equations, one token at a time in float64."""

import pytest
import torch

from quintet.core.ssm import MinGRU


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(dim=12, **arguments):
    torch.manual_seed(0)
    layer = MinGRU(dim, **arguments)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def positive(x):
    return torch.stack([value + 0.5 if value >= 0 else 1 / (1 + torch.exp(-value)) for value in x])


def equations(layer, x, candidate):
    """Of one sample (time, dim)."""
    layer, x = layer.double(), x.double()
    h, rows = 0.0, []
    for token in x:
        update = 1 / (1 + torch.exp(-layer.update_gate(token)))
        h = (1 - update) * h + update * candidate(layer.candidate(token))
        rows.append(h)
    return layer.proj(torch.stack(rows))


@pytest.mark.parametrize(("arguments", "candidate"), [({}, positive), (MinGRU.variants["wide"], torch.tanh)])
def test_equals_its_equations(arguments, candidate):
    layer, x = build(**arguments), torch.randn(60, 12)
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x, candidate)) < 1e-5


def test_saturated_gates_keep_their_digits():
    layer, x = build(), torch.randn(30, 12)
    with torch.no_grad():
        layer.update_gate.bias.copy_(torch.linspace(-70.0, 70.0, 12))
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x, positive)) < 1e-5


def test_a_masked_token_leaves_the_state_as_it_is():
    layer, x = build(), torch.randn(2, 13, 12)
    mask = torch.rand(2, 13, generator=torch.Generator().manual_seed(1)) < 0.6
    for sample, real, found in zip(x, mask, layer(x, mask)):
        assert error(found[real], layer(sample[real].unsqueeze(0))[0]) < 1e-5
