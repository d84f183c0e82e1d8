"""The layer of Mamba-2 against its equations, one token at a time in float64, and against the first Mamba's scan."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.errors import QuintetError
from quintet.core.ssm import Mamba2
from quintet.kernels.selective_scan import selective_scan


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(dim=12, num_heads=3, states=6, **arguments):
    torch.manual_seed(0)
    layer = Mamba2(dim, num_heads, states, **arguments)
    for name, parameter in layer.named_parameters():
        if name != "A_log":
            torch.nn.init.normal_(parameter, std=0.5)
    return layer


def equations(layer, x):
    """Of one sample (time, dim), head by head."""
    layer, x = layer.double(), x.double()
    heads, states, width = layer.num_heads, layer.states, layer.conv1d.width
    inner = layer.inner
    size = inner // heads
    projected = layer.in_proj(x)
    gate, seen, steps = projected[:, :inner], projected[:, inner:-heads], projected[:, -heads:]
    past = [torch.zeros_like(seen[0])] * (width - 1)
    memory = [torch.zeros(size, states).double() for _ in range(heads)]
    rows = []
    for z, token, raw in zip(gate, seen, steps):
        past = [*past, token]
        token = F.silu(sum(w * p for w, p in zip(layer.conv1d.weight.T, past[-width:])) + layer.conv1d.bias)
        u, B, C = token[:inner], token[inner : inner + states], token[inner + states :]
        row = []
        for head in range(heads):
            delta = torch.log(1 + torch.exp(raw[head] + layer.dt_bias[head]))
            value = u[head * size : (head + 1) * size]
            decay = torch.exp(-delta * torch.exp(layer.A_log[head]))
            memory[head] = decay * memory[head] + delta * torch.outer(value, B)
            row.append(memory[head] @ C + layer.D[head] * value)
        y = torch.cat(row) * z * torch.sigmoid(z)
        rows.append(y / (y.square().mean() + 1e-5).sqrt() * layer.norm.weight)
    return layer.out_proj(torch.stack(rows))


@pytest.mark.parametrize("arguments", [{}, {"expansion": 1.0, "convolution_width": 2, "bias": True}])
def test_equals_its_equations(arguments):
    layer, x = build(**arguments), torch.randn(70, 12)
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x)) < 1e-4


def test_a_masked_token_is_passed_over():
    layer, x = build(), torch.randn(2, 13, 12)
    mask = torch.rand(2, 13, generator=torch.Generator().manual_seed(1)) < 0.6
    for sample, real, found in zip(x, mask, layer(x, mask)):
        assert error(found[real], layer(sample[real].unsqueeze(0))[0]) < 1e-5


def test_is_a_selective_scan_with_one_decay_a_head():
    """The state space of both generations, by different operations."""
    layer, x = build().double(), torch.randn(2, 50, 12).double()
    gate, u, steps = layer.in_proj(x).split((24, 24 + 12, 3), -1)
    u, B, C = layer.conv1d(u)[0].split((24, 6, 6), -1)
    by_channel = [tensor.repeat_interleave(8, -1) for tensor in (steps, layer.A_log, layer.D, layer.dt_bias)]
    steps, A_log, D, bias = by_channel
    y, _ = selective_scan(u, steps, -A_log.exp().unsqueeze(-1).expand(-1, 6), B, C, D, gate, bias, backend="reference")
    assert error(layer(x), layer.out_proj(layer.norm(y))) < 1e-10


def test_starts_as_published():
    """Steps log-uniform from 1e-3 to 1e-1, -A uniform from 1 to 16."""
    torch.manual_seed(0)
    layer = Mamba2(1024)
    steps, A = F.softplus(layer.dt_bias), layer.A_log.exp()
    assert 1e-3 <= steps.min() < steps.median() < 2e-2 < steps.max() <= 1e-1
    assert 1.0 <= A.min() < 3.0
    assert 14.0 < A.max() <= 16.0


def test_heads_must_divide_the_width():
    with pytest.raises(QuintetError, match="dim=24 cannot be split into num_heads=5"):
        Mamba2(12, num_heads=5)
