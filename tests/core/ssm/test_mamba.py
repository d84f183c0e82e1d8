"""The layer of Mamba against its equations, one token at a time in float64, and against mambapy."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.optim.parameter_groups import parameter_groups
from quintet.core.ssm import Mamba


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(dim=12, **arguments):
    torch.manual_seed(0)
    layer = Mamba(dim, **arguments)
    for name, parameter in layer.named_parameters():
        if name != "A_log":
            torch.nn.init.normal_(parameter, std=0.5)
    return layer


def equations(layer, x):
    """Of one sample (time, dim), channel by channel of the state space."""
    layer, x = layer.double(), x.double()
    rank, states, width = layer.time_step_rank, layer.states, layer.conv1d.width
    u, gate = layer.in_proj(x).tensor_split(2, -1)
    inner = u.shape[-1]
    state, past, rows = torch.zeros(inner, states).double(), [torch.zeros(inner).double()] * (width - 1), []
    for token, z in zip(u, gate):
        past = [*past, token]
        token = F.silu(sum(w * p for w, p in zip(layer.conv1d.weight.T, past[-width:])) + layer.conv1d.bias)
        projected = layer.x_proj.weight @ token
        B, C = projected[rank : rank + states], projected[rank + states :]
        delta = torch.log(1 + torch.exp(layer.dt_proj.weight @ projected[:rank] + layer.dt_proj.bias))
        state = torch.stack(
            [torch.exp(-d * torch.exp(a)) * h + d * B * v for d, a, h, v in zip(delta, layer.A_log, state, token)]
        )
        rows.append((state @ C + layer.D * token) * z * torch.sigmoid(z))
    return layer.out_proj(torch.stack(rows))


@pytest.mark.parametrize("variant", [{}, Mamba.variants["narrow"]])
def test_equals_its_equations(variant):
    layer, x = build(**variant), torch.randn(40, 12)
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x)) < 1e-5


def test_a_masked_token_is_passed_over():
    layer, x = build(), torch.randn(2, 13, 12)
    mask = torch.rand(2, 13, generator=torch.Generator().manual_seed(1)) < 0.6
    for sample, real, found in zip(x, mask, layer(x, mask)):
        assert error(found[real], layer(sample[real].unsqueeze(0))[0]) < 1e-6


def test_starts_as_published():
    """Steps log-uniform from 1e-3 to 1e-1, A from -1 to -16; neither A nor D decays."""
    layer = Mamba(64)
    steps = F.softplus(layer.dt_proj.bias)
    assert 1e-3 <= steps.min() < 3e-3
    assert 3e-2 < steps.max() <= 1e-1
    assert error(-layer.A_log.exp(), -torch.arange(1.0, 17.0).expand(128, -1)) < 1e-6
    kept = [group["params"] for group in parameter_groups(layer, 1.0, 0.1) if not group["weight_decay"]]
    kept = {id(parameter) for group in kept for parameter in group}
    assert {id(layer.A_log), id(layer.D), id(layer.dt_proj.bias)} <= kept


@pytest.mark.peers
@pytest.mark.parametrize("dim", [12, 32])
def test_equals_the_block_of_mambapy(dim):
    mamba = pytest.importorskip("mambapy.mamba", reason="needs mambapy, of the [peers] extra")
    peer, layer = mamba.MambaBlock(mamba.MambaConfig(d_model=dim, n_layers=1)), build(dim)
    weights = layer.state_dict()
    peer.load_state_dict({**weights, "conv1d.weight": weights["conv1d.weight"].unsqueeze(1)})
    x = torch.randn(2, 40, dim)
    y, theirs = layer(x), peer(x)
    assert error(y, theirs) < 1e-5
    probe = torch.randn_like(y)
    expected = dict(zip(weights, torch.autograd.grad(theirs, [peer.get_parameter(name) for name in weights], probe)))
    for name, found in zip(weights, torch.autograd.grad(y, [layer.get_parameter(name) for name in weights], probe)):
        assert error(found, expected[name].reshape(found.shape)) < 1e-4, name
    token, cache = torch.randn(2, dim), (None, torch.zeros(2, 2 * dim, 3))
    state = None
    for _ in range(5):
        y, state = layer.step(token, state)
        theirs, cache = peer.step(token, cache)
        assert error(y, theirs) < 1e-5
