"""The delta rule against what it means for a memory, against itself in pieces, and against published code."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._spec import relative_error
from quintet.kernels.decay_linear_attention import decay_linear_attention
from quintet.kernels.delta_rule import delta_rule

BACKENDS = ["reference", "torch"]


def inputs(batch, time, heads, key_dim, value_dim, seed=0, dtype=torch.float64, decay=True):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    query, key = normal(batch, time, heads, key_dim), F.normalize(normal(batch, time, heads, key_dim), dim=-1)
    value, beta = normal(batch, time, heads, value_dim), torch.sigmoid(normal(batch, time, heads))
    log_decay = F.logsigmoid(normal(batch, time, heads) + 2) if decay else None
    return [None if part is None else part.to(dtype) for part in (query, key, value, beta, log_decay)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_last_value_written_under_a_key_is_read_back(backend):
    """With beta = 1 and orthonormal keys, whatever was written under a key before is gone."""
    keys = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    which = torch.randint(0, 8, (100,), generator=torch.Generator().manual_seed(0))
    value = torch.randn(1, 100, 1, 5, dtype=torch.float64)
    key = keys[which].view(1, 100, 1, 8)
    _, state = delta_rule(key, key, value, torch.ones(1, 100, 1, dtype=torch.float64), backend=backend)
    for index in which.unique():
        last = (which == index).nonzero().max()
        assert relative_error(keys[index] @ state[0, 0], value[0, last, 0]) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_orthogonal_keys_are_linear_attention(backend):
    query, _, value, _, log_decay = inputs(2, 16, 2, 16, 3)
    key = torch.eye(16, dtype=torch.float64).view(1, 16, 1, 16).expand(2, -1, 2, -1)
    beta = torch.ones(2, 16, 2, dtype=torch.float64)
    y, state = delta_rule(query, key, value, beta, log_decay, backend=backend)
    expected, final = decay_linear_attention(query, key, value, log_decay, backend="reference")
    assert relative_error(y, expected) < 1e-12
    assert relative_error(state, final) < 1e-12


@given(time=st.integers(2, 150), decay=st.booleans(), seed=st.integers(0, 99), data=st.data())
def test_chunks_equal_steps_and_two_halves(time, decay, seed, data):
    given = inputs(1, time, 2, 4, 3, seed, decay=decay)
    y, final = delta_rule(*given, backend="reference")
    cut = data.draw(st.integers(1, time - 1))

    def stretch(start, stop, state):
        return delta_rule(*(part if part is None else part[:, start:stop] for part in given), state, backend="torch")

    first, state = stretch(0, cut, None)
    second, state = stretch(cut, time, state)
    assert relative_error(torch.cat([first, second], 1), y) < 1e-11
    assert relative_error(state, final) < 1e-11
    steps, state = [], None
    for start in range(min(time, 20)):
        step, state = stretch(start, start + 1, state)
        steps.append(step)
    assert relative_error(torch.cat(steps, 1), y[:, :20]) < 1e-11


def test_gradients_pass_through_a_carried_state():
    leaves = [tensor.requires_grad_() for tensor in inputs(2, 37, 2, 4, 3)]
    probe = torch.randn(2, 37, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad(delta_rule(*leaves, backend="reference")[0], leaves, probe)
    first, state = delta_rule(*(part[:, :19] for part in leaves), backend="torch")
    second, _ = delta_rule(*(part[:, 19:] for part in leaves), state, backend="torch")
    for found, truth in zip(torch.autograd.grad(torch.cat([first, second], 1), leaves, probe), expected):
        assert relative_error(found, truth) < 1e-11


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_with_neither_beta_nor_decay_is_skipped(backend):
    query, key, value, beta, log_decay = inputs(2, 75, 2, 4, 3)
    real = torch.rand(75, generator=torch.Generator().manual_seed(1)) < 0.5
    idle = ~real[None, :, None]
    gates = beta.masked_fill(idle, 0.0), log_decay.masked_fill(idle, 0.0)
    y, state = delta_rule(query, key, value, *gates, backend=backend)
    expected, final = delta_rule(*(part[:, real] for part in (query, key, value, beta, log_decay)), backend=backend)
    assert relative_error(y[:, real], expected) < 1e-12
    assert relative_error(state, final) < 1e-12


def test_a_long_sequence_of_one_key_stays_bounded_in_float32():
    """The least favourable keys: every error of the memory is corrected along the same direction, beta = 2 flips it."""
    query, key, value, beta, _ = inputs(1, 2048, 1, 16, 4, dtype=torch.float32)
    key = key[:, :1].expand_as(key)
    for rate in (1.0, 1.9):
        given = (query, key, value, torch.full_like(beta, rate))
        y, _ = delta_rule(*given, backend="torch")
        expected, _ = delta_rule(*(part.double() for part in given), backend="reference")
        assert relative_error(y, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_stay_float32(dtype):
    y, state = delta_rule(*inputs(1, 5, 2, 3, 4, dtype=dtype))
    assert y.dtype == dtype
    assert state.dtype == torch.float32


def test_what_does_not_fit_is_refused_in_words():
    refuse = inspect.unwrap(delta_rule)  # the run-time shape checks of the tests would speak first
    query, key, value, beta, log_decay = inputs(2, 5, 3, 4, 6)
    with pytest.raises(ValueError, match=r"key has shape \(2, 5, 3, 2\)"):
        refuse(query, key[..., :2], value, beta)
    with pytest.raises(ValueError, match=r"beta has shape \(2, 5\); it must be \(2, 5, 3\)"):
        refuse(query, key, value, beta[..., 0], log_decay)


@pytest.mark.peers
@pytest.mark.parametrize("decay", [False, True])
def test_agrees_with_flash_linear_attention(decay):
    naive = pytest.importorskip(f"fla.ops.{'gated_' * decay}delta_rule.naive", reason="needs fla-core, of [peers]")
    query, key, value, beta, log_decay = given = inputs(2, 64, 3, 8, 8, decay=decay, dtype=torch.float32)
    y, state = delta_rule(*given)
    if decay:
        peer, final = naive.naive_recurrent_gated_delta_rule(
            query, key, value, beta, log_decay, output_final_state=True
        )
    else:
        heads_first = (part.transpose(1, 2) for part in (query, key, value, beta))
        peer, final = naive.delta_rule_recurrence(*heads_first)
        peer = peer.transpose(1, 2)
    assert relative_error(y, peer) < 1e-6
    assert relative_error(state, final) < 1e-6
