"""The selective scan against a linear system's impulse response, against itself in pieces, and against mambapy."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.selective_scan import selective_scan

BACKENDS = ["reference", "torch"]
ALONG_TIME = (True, True, False, True, True, False, True, False)  # of the arguments from x to time_step_bias


def inputs(batch, time, dim, states, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, time_step, A = normal(batch, time, dim), normal(batch, time, dim), -normal(dim, states).abs()
    B, C, gate = normal(batch, time, states), normal(batch, time, states), normal(batch, time, dim)
    return [part.to(dtype) for part in (x, time_step, A, B, C, normal(dim), gate, normal(dim))]


def stretch(given, start, stop, state, backend="torch"):
    pieces = (part[:, start:stop] if along else part for part, along in zip(given, ALONG_TIME))
    return selective_scan(*pieces, state, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_steps_are_a_convolution_with_decaying_exponentials(backend):
    """With the same step and projections at every token, y_t = sum_s (sum_n C_n e^{(t-s) delta A_n} B_n) delta x_s."""
    x, _, A, B, C, *_ = inputs(2, 40, 3, 4)
    delta = torch.tensor(0.3, dtype=torch.float64)
    B, C = B[:1, :1], C[:1, :1]
    raw = torch.log(torch.expm1(delta)).expand_as(x)
    y, _ = selective_scan(x, raw, A, B.expand(2, 40, -1), C.expand(2, 40, -1), backend=backend)
    lag = torch.arange(40)
    kernel = torch.einsum("n,ldn->ld", B[0, 0] * C[0, 0], torch.exp(lag[:, None, None] * delta * A)) * delta
    expected = torch.stack([(kernel[: t + 1].flip(0) * x[:, : t + 1]).sum(1) for t in range(40)], 1)
    assert relative_error(y, expected) < 1e-12


@given(time=st.integers(2, 90), dim=st.sampled_from([1, 3, 400]), seed=st.integers(0, 99), data=st.data())
def test_the_whole_equals_steps_and_two_halves(time, dim, seed, data):
    """400 channels take several segments of time."""
    given = inputs(2, time, dim, 16, seed)
    y, final = selective_scan(*given, backend="reference")
    cut = data.draw(st.integers(1, time - 1))
    whole, state = selective_scan(*given, backend="torch")
    assert relative_error(whole, y) < 1e-12
    assert relative_error(state, final) < 1e-12
    first, state = stretch(given, 0, cut, None)
    second, state = stretch(given, cut, time, state)
    assert relative_error(torch.cat([first, second], 1), y) < 1e-12
    assert relative_error(state, final) < 1e-12
    steps, state = [], None
    for start in range(min(time, 10)):
        step, state = stretch(given, start, start + 1, state)
        steps.append(step)
    assert relative_error(torch.cat(steps, 1), y[:, :10]) < 1e-12


@pytest.mark.parametrize("dim", [3, 400])
def test_gradients_pass_through_a_carried_state(dim):
    leaves = [tensor.requires_grad_() for tensor in inputs(2, 37, dim, 16)]
    probe = torch.randn(2, 37, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad(selective_scan(*leaves, backend="reference")[0], leaves, probe)
    first, state = stretch(leaves, 0, 19, None)
    second, _ = stretch(leaves, 19, 37, state)
    for found, truth in zip(torch.autograd.grad(torch.cat([first, second], 1), leaves, probe), expected):
        assert relative_error(found, truth) < 1e-11


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("raw", [-300.0, -30.0, -9.0, 30.0, 3e4])
def test_extreme_steps_keep_their_digits_in_float32(backend, raw):
    """From steps of 1e-4 and less, where 1 + e^raw would round, to steps that forget everything."""
    given = inputs(1, 50, 4, 3)
    given[1] = given[1] * 0.1 + raw
    leaves = [tensor.float().requires_grad_() for tensor in given]
    wide = [tensor.detach().double().requires_grad_() for tensor in leaves]
    y, state = selective_scan(*leaves, backend=backend)
    expected, final = selective_scan(*wide, backend="reference")
    assert relative_error(y.detach(), expected.detach()) < 1e-5
    assert relative_error(state.detach(), final.detach()) < 1e-5
    for found in torch.autograd.grad(y.square().sum(), leaves):
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_time_step_of_minus_infinity_leaves_the_state_as_it_is(backend):
    given = inputs(2, 30, 3, 4)
    real = torch.rand(30, generator=torch.Generator().manual_seed(1)) < 0.5
    idle = given[1].masked_fill(~real[None, :, None], -torch.inf)
    y, state = selective_scan(given[0], idle, *given[2:], backend=backend)
    pieces = [part[:, real] if along else part for part, along in zip(given, ALONG_TIME)]
    expected, final = selective_scan(*pieces, backend=backend)
    assert relative_error(y[:, real], expected) < 1e-12
    assert relative_error(state, final) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_stay_float32(dtype):
    y, state = selective_scan(*inputs(1, 5, 2, 3, dtype=dtype))
    assert y.dtype == dtype
    assert state.dtype == torch.float32


def test_what_does_not_fit_is_refused_in_words():
    refuse = inspect.unwrap(selective_scan)  # the run-time shape checks of the tests would speak first
    x, time_step, A, B, C, *_ = inputs(2, 5, 3, 4)
    with pytest.raises(ValueError, match=r"B has shape \(2, 5, 3\); .* and 4 states it must be \(2, 5, 4\)"):
        refuse(x, time_step, A, B[..., :3], C)
    with pytest.raises(ValueError, match="at least one time step"):
        refuse(x[:, :0], time_step[:, :0], A, B[:, :0], C[:, :0])


@pytest.mark.peers
@pytest.mark.parametrize("time", [1, 37, 128])
def test_agrees_with_mambapy(time):
    mamba = pytest.importorskip("mambapy.mamba", reason="needs mambapy, of the [peers] extra")
    block = mamba.MambaBlock(mamba.MambaConfig(d_model=4, n_layers=1, d_state=5))
    x, time_step, A, B, C, D, gate, bias = leaves = [part.requires_grad_() for part in inputs(2, time, 8, 5)]
    y, _ = selective_scan(*leaves)
    scan = block.selective_scan(x, torch.nn.functional.softplus(time_step + bias), A, B, C, D)
    peer = scan * torch.nn.functional.silu(gate)
    assert relative_error(y.detach(), peer.detach()) < 1e-12
    probe = torch.randn(y.shape, dtype=torch.float64)
    theirs = torch.autograd.grad(peer, leaves, probe)
    for found, expected in zip(torch.autograd.grad(y, leaves, probe), theirs):
        assert relative_error(found, expected) < 1e-10


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_kernels_keep_samples_apart():
    """What is not a number in one sample does not reach the next through the step before its first."""
    x, time_step, A, B, C, *_ = inputs(2, 5, 3, 2, dtype=torch.float32)
    x[0], time_step[0], B[0], C[0] = torch.nan, torch.nan, torch.nan, torch.nan
    leaves = [tensor.requires_grad_() for tensor in (x, time_step, B, C)]
    y, _ = selective_scan(x, time_step, A, B, C, backend="triton")
    for found in torch.autograd.grad(y[1].square().sum(), leaves):
        assert torch.isfinite(found[1]).all()
