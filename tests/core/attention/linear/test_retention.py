"""Retention against the recurrence of its paper, one token at a time in complex float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from quintet.core.attention import Retention
from quintet.core.errors import QuintetError


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(dim=24, num_heads=3, **arguments):
    torch.manual_seed(0)
    layer = Retention(dim, num_heads, **arguments)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def turn(x, base):
    """Channels (j, j + half) of the token at place n are one complex number, turned by n base^(-j / half)."""
    real, imaginary = x.chunk(2, dim=-1)
    half = real.shape[-1]
    speed = base ** (-torch.arange(half).double() / half)
    return torch.complex(real, imaginary) * torch.exp(1j * torch.arange(len(x)).double()[:, None] * speed)


def gammas(heads):
    """1 - exp(linspace(log 1/32, log 1/512)), section 3.1 of the paper."""
    return 1 - torch.exp(torch.linspace(-math.log(32), -math.log(512), heads, dtype=torch.float64))


def equations(layer, x):
    """Of one sample (time, dim), head by head: S_n = gamma S_{n-1} + k_n* v_n, o_n = Re q_n S_n."""
    layer, x = layer.double(), x.double()
    split = (linear(x).unflatten(-1, (layer.num_heads, -1)) for linear in (layer.query, layer.key, layer.value))
    query, key, value = split
    heads = []
    for head, gamma in enumerate(gammas(layer.num_heads)):
        q, k = (turn(part[:, head], layer.rotary_base) for part in (query, key))
        state, rows = torch.zeros(q.shape[-1], value.shape[-1], dtype=torch.complex128), []
        for n in range(len(x)):
            state = gamma * state + torch.outer(k[n].conj(), value[n, head].to(state.dtype))
            rows.append((q[n] @ state).real / query.shape[-1] ** 0.5)
        rows = torch.stack(rows)
        deviation = (rows.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        heads.append((rows - rows.mean(-1, keepdim=True)) / deviation)
    return layer.proj(torch.cat(heads, dim=-1) * F.silu(layer.gate(x)))


@pytest.mark.parametrize(
    "arguments", [{}, {"value_factor": 1.0, "bias": True}, {"num_heads": 1, "rotary_base": 100.0}], ids=str
)
def test_equals_its_equations(arguments):
    layer, x = build(**arguments), torch.randn(70, 24)
    found = layer(x.unsqueeze(0))[0]
    assert error(found, equations(layer, x)) < 1e-5


def test_decays_are_those_of_the_paper():
    layer = Retention(96, 3)
    assert error(layer.log_decay(torch.zeros(1, dtype=torch.float64)).exp(), gammas(3)) < 1e-6
    assert error(layer.log_decay(torch.zeros(1)).exp(), torch.tensor([1 - 2**-5, 1 - 2**-7, 1 - 2**-9])) < 1e-6


def test_masked_tokens_at_the_front_only_take_time():
    """Positions are relative, so a sample that starts later gives the same."""
    layer, x = build().double(), torch.randn(1, 9, 24, dtype=torch.float64)
    late = F.pad(x, (0, 0, 5, 0), value=3.0)
    mask = torch.arange(14)[None] >= 5
    assert error(layer(late, mask)[:, 5:], layer(x)) < 1e-9


def test_an_image_is_read_in_raster_order():
    layer, x = build(), torch.randn(2, 4, 5, 24)
    assert error(layer(x).flatten(1, 2), layer(x.flatten(1, 2))) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 24, "num_heads": 8}, "heads of width 3, which must be even"),
        ({"dim": 24, "num_heads": 4, "value_factor": 1.1}, "values of width 26, which the heads must divide"),
    ],
)
def test_widths_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(QuintetError, match=message):
        Retention(**arguments)


@pytest.mark.peers
def test_memory_agrees_with_fla():
    """With five heads, evenly spaced decays are the integer powers that fla's reference has."""
    naive = pytest.importorskip("fla.ops.retention.naive", reason="needs fla-core, of [peers]")
    layer, x = build(40, 5), torch.randn(1, 33, 40)
    captured = []
    layer.norm.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
    layer(x)
    parts = [linear(x).unflatten(-1, (5, -1))[0].transpose(0, 1) for linear in (layer.query, layer.key, layer.value)]
    turned = [torch.stack([turn(head.double(), layer.rotary_base) for head in part]) for part in parts[:2]]
    query, key = (torch.cat([part.real, part.imag], -1)[None].float() for part in turned)
    expected = naive.naive_retention(query, key, parts[2][None])
    assert error(captured[0], expected.transpose(1, 2)) < 1e-5
