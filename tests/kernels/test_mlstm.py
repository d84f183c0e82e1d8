"""The mLSTM against its definition over all pairs, against itself in pieces, and against published code."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._spec import relative_error
from quintet.kernels.mlstm import MLSTMState, mlstm

BACKENDS = ["reference", "torch"]


def inputs(batch, time, heads, key_dim, value_dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    query, key = normal(batch, time, heads, key_dim), normal(batch, time, heads, key_dim)
    value = normal(batch, time, heads, value_dim)
    return query, key, value, normal(batch, time, heads), normal(batch, time, heads) + 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_attention_with_gates_for_positions(backend):
    """All pairs, without a stabilizer: weights e^{i_s + sum of log f after s} q_t k_s, over max(|their sum|, 1)."""
    query, key, value, input_gate, forget_gate = inputs(2, 90, 2, 8, 6)
    decay = F.logsigmoid(forget_gate).cumsum(1).transpose(1, 2)
    gates = (decay.unsqueeze(-1) - decay.unsqueeze(-2) + input_gate.transpose(1, 2).unsqueeze(-2)).exp().tril()
    weights = torch.einsum("bthk,bshk->bhts", query, key) * 8**-0.5 * gates
    weights = weights / weights.sum(-1, keepdim=True).abs().clamp_min(1.0)
    expected = torch.einsum("bhts,bshv->bthv", weights, value)
    y, _ = mlstm(query, key, value, input_gate, forget_gate, eps=0.0, backend=backend)
    assert relative_error(y, expected) < 1e-12


@given(time=st.integers(2, 150), seed=st.integers(0, 99), data=st.data())
def test_chunks_equal_steps_and_two_halves(time, seed, data):
    given = inputs(1, time, 2, 4, 3, seed)
    y, final = mlstm(*given, backend="reference")
    cut = data.draw(st.integers(1, time - 1))
    first, state = mlstm(*(part[:, :cut] for part in given), backend="torch")
    second, state = mlstm(*(part[:, cut:] for part in given), state, backend="torch")
    assert relative_error(torch.cat([first, second], 1), y) < 1e-11
    for found, expected in zip(state, final):
        assert relative_error(found, expected) < 1e-11
    steps, state = [], None
    for token in zip(*(part[:, :20].split(1, 1) for part in given)):
        step, state = mlstm(*token, state, backend="torch")
        steps.append(step)
    assert relative_error(torch.cat(steps, 1), y[:, :20]) < 1e-11


def test_gradients_pass_through_a_carried_state():
    leaves = [tensor.requires_grad_() for tensor in inputs(2, 37, 2, 4, 3)]
    probe = torch.randn(2, 37, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad(mlstm(*leaves, backend="reference")[0], leaves, probe)
    first, state = mlstm(*(part[:, :19] for part in leaves), backend="torch")
    second, _ = mlstm(*(part[:, 19:] for part in leaves), state, backend="torch")
    for found, truth in zip(torch.autograd.grad(torch.cat([first, second], 1), leaves, probe), expected):
        assert relative_error(found, truth) < 1e-11


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closed_gates_skip_steps(backend, dtype):
    """An input gate of -inf and a forget gate of inf: as though the step were not there, gradients included."""
    leaves = [tensor.requires_grad_() for tensor in inputs(2, 75, 2, 4, 3, dtype=dtype)]
    query, key, value, input_gate, forget_gate = leaves
    real = torch.rand(75, generator=torch.Generator().manual_seed(1)) < 0.5
    closed = ~real[None, :, None]
    gates = input_gate.masked_fill(closed, -torch.inf), forget_gate.masked_fill(closed, torch.inf)
    y, state = mlstm(query, key, value, *gates, backend=backend)
    expected, final = mlstm(*(part[:, real] for part in leaves), backend=backend)
    assert relative_error(y[:, real].detach(), expected.detach()) < 1e-5
    assert relative_error(state.cell.detach(), final.cell.detach()) < 1e-5
    probe = torch.randn(2, int(real.sum()), 2, 3, dtype=dtype)
    truths = torch.autograd.grad(expected, leaves, probe)
    for found, truth in zip(torch.autograd.grad(y[:, real], leaves, probe), truths):
        assert relative_error(found, truth) < 1e-5


@given(shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_the_stabilizer_only_scales(shift, seed):
    """The same memory kept under another m gives the same outputs and, scaled back, the same memory."""
    given, scale = inputs(1, 9, 2, 4, 3, seed), torch.tensor(shift, dtype=torch.float64)
    _, state = mlstm(*inputs(1, 9, 2, 4, 3, seed + 1), eps=0.0)
    y, final = mlstm(*given, state, eps=0.0)
    moved = MLSTMState(state.cell * scale.exp(), state.normalizer * scale.exp(), state.stabilizer - scale)
    found, other = mlstm(*given, moved, eps=0.0)
    assert relative_error(found, y) < 1e-10
    assert relative_error(other.cell * (other.stabilizer - final.stabilizer).exp()[..., None, None], final.cell) < 1e-10


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_steps(backend):
    y, state = mlstm(*inputs(2, 0, 1, 3, 2), backend=backend)
    assert y.shape == (2, 0, 1, 2)
    assert state.cell.count_nonzero() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_stay_float32(dtype):
    y, state = mlstm(*inputs(1, 5, 2, 3, 4, dtype=dtype))
    assert y.dtype == dtype
    assert all(part.dtype == torch.float32 for part in state)


def test_what_does_not_fit_is_refused_in_words():
    refuse = inspect.unwrap(mlstm)  # the run-time shape checks of the tests would speak first
    query, key, value, input_gate, forget_gate = inputs(2, 5, 3, 4, 6)
    with pytest.raises(ValueError, match=r"they are \(2, 5, 3, 4\), \(2, 5, 3, 2\)"):
        refuse(query, key[..., :2], value, input_gate, forget_gate)
    with pytest.raises(ValueError, match=r"gates must be \(2, 5, 3\)"):
        refuse(query, key, value, input_gate[..., None], forget_gate)
    with pytest.raises(ValueError, match=r"the state's cell must be \(2, 3, 4, 6\)"):
        refuse(query, key, value, input_gate, forget_gate, MLSTMState(*torch.zeros(3, 1)))


@pytest.mark.peers
@pytest.mark.parametrize("time", [64, 128])
def test_agrees_with_mlstm_kernels(time):
    chunkwise = pytest.importorskip("mlstm_kernels.torch.chunkwise.native", reason="needs mlstm_kernels, of [peers]")
    leaves = [tensor.requires_grad_() for tensor in inputs(2, time, 2, 8, 16)]
    peer, (cell, normalizer, stabilizer) = chunkwise.mlstm_chunkwise__native_autograd(
        *(part.transpose(1, 2) for part in leaves), chunk_size=32, return_last_states=True
    )
    y, state = mlstm(*leaves)
    assert relative_error(y.detach(), peer.transpose(1, 2).detach()) < 1e-10
    scale = (stabilizer.reshape(2, 2) - state.stabilizer).exp()
    assert relative_error(state.cell.detach(), (cell * scale[..., None, None]).detach()) < 1e-10
    assert relative_error(state.normalizer.detach(), (normalizer * scale[..., None]).detach()) < 1e-10
    probe = torch.randn(y.shape, dtype=torch.float64)
    theirs = torch.autograd.grad(peer.transpose(1, 2), leaves, probe)
    for found, expected in zip(torch.autograd.grad(y, leaves, probe), theirs):
        assert relative_error(found, expected) < 1e-9
