"""The linear scan against its closed form, against itself in pieces, and against published code."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._spec import relative_error
from quintet.kernels.linear_scan import LARGE_STEP, linear_scan, scan

BACKENDS = ["reference", "torch"]


def inputs(batch, time, dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, time, dim, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.rand(batch, time, dim, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_sum_over_all_pairs(backend):
    """h_t = sum_s (product of the decays after s up to t) x_s."""
    x, decay = inputs(2, 30, 3)
    logs = decay.log().cumsum(1)
    weights = (logs.unsqueeze(2) - logs.unsqueeze(1)).exp() * torch.ones(30, 30).tril()[:, :, None]
    expected = torch.einsum("btsd,bsd->btd", weights, x)
    y, state = linear_scan(x, decay, backend=backend)
    assert relative_error(y, expected) < 1e-10
    assert relative_error(state, expected[:, -1]) < 1e-10


@given(time=st.integers(2, 150), seed=st.integers(0, 99), log=st.booleans(), data=st.data())
def test_the_whole_equals_steps_and_two_halves(time, seed, log, data):
    x, decay = inputs(2, time, 3, seed)
    decay = decay.log() if log else decay
    y, final = linear_scan(x, decay, decay_is_log=log, backend="reference")
    cut = data.draw(st.integers(1, time - 1))
    first, state = linear_scan(x[:, :cut], decay[:, :cut], decay_is_log=log)
    second, state = linear_scan(x[:, cut:], decay[:, cut:], state, decay_is_log=log)
    assert relative_error(torch.cat([first, second], 1), y) < 1e-12
    assert relative_error(state, final) < 1e-12
    steps, state = [], None
    for x_t, decay_t in zip(x[:, :20].split(1, 1), decay[:, :20].split(1, 1)):
        step, state = linear_scan(x_t, decay_t, state, decay_is_log=log)
        steps.append(step)
    assert relative_error(torch.cat(steps, 1), y[:, :20]) < 1e-12


@pytest.mark.parametrize("dim", [3, LARGE_STEP])
@pytest.mark.parametrize("reverse", [False, True])
def test_both_directions_and_sizes_with_their_gradients(dim, reverse):
    """Small steps run in chunks side by side, large ones one after another."""
    time = 13
    x, decay = inputs(1, time, dim)
    leaves = [x.requires_grad_(), decay.requires_grad_(), torch.randn(1, dim, dtype=torch.float64).requires_grad_()]
    order = reversed(range(time)) if reverse else range(time)
    state, rows = leaves[2], {}
    for t in order:
        state = rows[t] = decay[:, t] * state + x[:, t]
    expected = torch.stack([rows[t] for t in range(time)], 1)
    y = scan(*leaves, reverse)
    assert relative_error(y.detach(), expected.detach()) < 1e-12
    probe = torch.randn(y.shape, dtype=torch.float64)
    truths = torch.autograd.grad(expected, leaves, probe)
    for found, truth in zip(torch.autograd.grad(y, leaves, probe), truths):
        assert relative_error(found, truth) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_decays(backend):
    """Forgetting everything, log a = -inf, and nothing, log a = 0, gradients included."""
    x, decay = inputs(1, 40, 4, dtype=torch.float32)
    log = torch.where(decay < 0.3, -torch.inf, torch.where(decay > 0.7, 0.0, -200.0 * decay)).requires_grad_()
    y, _ = linear_scan(x, log, decay_is_log=True, backend=backend)
    expected, _ = linear_scan(x.double(), log.detach().double(), decay_is_log=True, backend="reference")
    assert relative_error(y.detach(), expected) < 1e-6
    (found,) = torch.autograd.grad(y.square().sum(), log)
    assert torch.isfinite(found).all()
    assert found[log == -torch.inf].count_nonzero() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_stay_float32(dtype):
    y, state = linear_scan(*inputs(1, 5, 2, dtype=dtype))
    assert y.dtype == dtype
    assert state.dtype == torch.float32


def test_what_does_not_fit_is_refused_in_words():
    refuse = inspect.unwrap(linear_scan)  # the run-time shape checks of the tests would speak first
    x, decay = inputs(2, 5, 3)
    with pytest.raises(ValueError, match=r"x has shape \(2, 5, 3\), decay \(2, 5, 2\)"):
        refuse(x, decay[..., :2])
    with pytest.raises(ValueError, match=r"initial_state has shape \(3,\)"):
        refuse(x, decay, x[0, 0])


@pytest.mark.peers
@pytest.mark.parametrize("time", [1, 32, 77])
def test_agrees_with_mambapy(time):
    parallel = pytest.importorskip("mambapy.pscan", reason="needs mambapy, of the [peers] extra")
    leaves = [tensor.requires_grad_() for tensor in inputs(2, time, 6)]
    x, decay = leaves
    y, _ = linear_scan(x, decay)
    peer = parallel.pscan(decay.unsqueeze(-1), x.unsqueeze(-1)).squeeze(-1)
    assert relative_error(y.detach(), peer.detach()) < 1e-12
    probe = torch.randn(y.shape, dtype=torch.float64)
    theirs = torch.autograd.grad(peer, leaves, probe)
    for found, expected in zip(torch.autograd.grad(y, leaves, probe), theirs):
        assert relative_error(found, expected) < 1e-10
