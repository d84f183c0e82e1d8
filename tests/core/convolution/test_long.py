"""Long convolutions against their sums, token by token in float64, and what their kernels look like."""

import math

import pytest
import torch

from quintet.core.convolution import ImplicitFilter, LongConvolution
from quintet.core.errors import QuintetError
from quintet.core.optim.parameter_groups import parameter_groups


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(dim=6, **arguments):
    torch.manual_seed(0)
    layer = LongConvolution(dim, length=16, **arguments)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def kernel_at(filter, t):
    """The kernels of all channels at one place."""
    angles = [2 * math.pi * t / filter.length * band for band in range(filter.bands)]
    e = torch.tensor([t / filter.length, *map(math.cos, angles), *map(math.sin, angles)], dtype=torch.float64)
    h = torch.sin(filter.frequencies[0] * (filter.first.weight @ e + filter.first.bias))
    h = torch.sin(filter.frequencies[1] * (filter.second.weight @ h + filter.second.bias))
    window = []
    for channel in range(filter.channels):
        shortest, longest = filter.memory
        memory = shortest + (longest - shortest) * channel / (filter.channels - 1)
        decay = 0.01 ** (1 / (filter.length * memory))
        window.append(math.sqrt(1 - decay**2) * decay**t)
    return filter.last.weight @ h * torch.tensor(window, dtype=torch.float64)


def equations(layer, x):
    """Of one sample (time, dim)."""
    layer, x = layer.double(), x.double()
    time, width = len(x), layer.short.width
    projected = layer.in_proj(x)
    rows = []
    for t in range(time):
        seen = [layer.short.weight[:, width - 1 - j] * projected[t - j] for j in range(width) if t >= j]
        rows.append(sum(seen) + layer.short.bias)
    z, *gates = torch.stack(rows).tensor_split(layer.order + 1, -1)
    for n, gate in enumerate(gates):
        behind = [kernel_at(layer.filters[n], lag) for lag in range(time)]
        mixed = [sum(behind[t - s] * z[s] for s in range(t + 1)) + layer.D[n] * z[t] for t in range(time)]
        if not layer.causal:
            ahead = [kernel_at(layer.filters_ahead[n], lag) for lag in range(time)]
            mixed = [row + sum(ahead[s - t] * z[s] for s in range(t, time)) for t, row in enumerate(mixed)]
        z = gate * torch.stack(mixed)
    return layer.out_proj(z)


@pytest.mark.parametrize("arguments", [{}, {"order": 1}, {"order": 3, "causal": False}])
def test_equals_its_sums(arguments):
    layer, x = build(**arguments), torch.randn(25, 6)
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x)) < 1e-5


def test_windows_have_unit_energy_and_end_where_they_should():
    torch.manual_seed(0)
    filter = ImplicitFilter(3, length=100, memory=(0.5, 1.5))
    with torch.no_grad():  # a network that says sin(1) * 64 / 64 everywhere leaves the window
        for parameter in (*filter.first.parameters(), *filter.second.parameters()):
            parameter.zero_()
        filter.second.bias.fill_(1.0)
        filter.last.weight.fill_(1 / 64 / math.sin(1.0))
    window = filter(2000)
    assert torch.allclose(window.square().sum(1), torch.ones(3), rtol=1e-4)
    for channel, end in enumerate((50, 100, 150)):
        assert abs(window[channel, end] / window[channel, 0] - 0.01) < 1e-5


def test_kernels_of_any_length_begin_alike():
    filter = ImplicitFilter(5, length=10)
    assert error(filter(7), filter(300)[:, :7]) < 1e-6


def test_outputs_have_the_scale_of_inputs_at_first():
    torch.manual_seed(0)
    kernels = ImplicitFilter(256)(4096)
    assert 0.5 < kernels.square().sum(1).mean() < 2.0


def test_filters_at_the_start():
    """All layers see sines, whose mean square is one half."""
    filter = ImplicitFilter(512)
    for layer in (filter.first, filter.second, filter.last):
        assert layer.weight.std().item() == pytest.approx((2 / layer.in_features) ** 0.5, rel=0.05)


def test_a_masked_token_counts_as_zero_at_its_place():
    layer, x = build(bias=False), torch.randn(2, 13, 6)
    with torch.no_grad():
        layer.short.bias.zero_()
    mask = torch.arange(13).expand(2, 13) < torch.tensor([[13], [8]])
    y = layer(x, mask)
    assert error(y[1, :8], layer(x[1:, :8])[0]) < 1e-5


def test_neither_skips_nor_frequencies_decay():
    layer = LongConvolution(8)
    kept = [group["params"] for group in parameter_groups(layer, 1.0, 0.1) if not group["weight_decay"]]
    kept = {id(parameter) for group in kept for parameter in group}
    assert {id(layer.D), id(layer.filters[0].frequencies)} <= kept


def test_an_order_below_one_is_refused():
    with pytest.raises(QuintetError, match="positive order, length and memory; got 0, 1024"):
        LongConvolution(8, order=0)
