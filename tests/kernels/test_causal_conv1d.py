"""The short convolution against torch's, against itself in pieces, and at its edges."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._spec import relative_error
from quintet.kernels.causal_conv1d import causal_conv1d

BACKENDS = ["reference", "torch"]


def inputs(batch, time, dim, width, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, time, dim), (dim, width), (dim,), (batch, width - 1, dim))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 2, 4, 7])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_equals_the_grouped_convolution_of_torch(backend, width, activation):
    leaves = [tensor.requires_grad_() for tensor in inputs(2, 11, 5, width)]
    x, weight, bias, initial = leaves
    y, state = causal_conv1d(x, weight, bias, activation, initial, backend=backend)
    tokens = torch.cat([initial, x], 1)
    expected = F.conv1d(tokens.mT, weight.unsqueeze(1), bias, groups=5).mT
    expected = F.silu(expected) if activation else expected
    assert relative_error(y.detach(), expected.detach()) < 1e-12
    assert torch.equal(state, tokens[:, 11:])
    probe = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truths = torch.autograd.grad(expected, leaves, probe)
    for found, truth in zip(torch.autograd.grad(y, leaves, probe), truths):
        assert relative_error(found, truth) < 1e-12


@given(time=st.integers(2, 40), width=st.integers(1, 6), seed=st.integers(0, 99), data=st.data())
def test_the_whole_equals_steps_and_two_halves(time, width, seed, data):
    """Also where a piece is shorter than what the convolution sees."""
    x, weight, bias, _ = inputs(2, time, 3, width, seed)
    y, final = causal_conv1d(x, weight, bias, "silu")
    cut = data.draw(st.integers(1, time - 1))
    first, state = causal_conv1d(x[:, :cut], weight, bias, "silu")
    second, state = causal_conv1d(x[:, cut:], weight, bias, "silu", state)
    assert relative_error(torch.cat([first, second], 1), y) < 1e-12
    assert torch.equal(state, final)
    steps, state = [], None
    for token in x.split(1, 1):
        step, state = causal_conv1d(token, weight, bias, "silu", state)
        steps.append(step)
    assert relative_error(torch.cat(steps, 1), y) < 1e-12
    assert torch.equal(state, final)


def test_gradients_pass_through_a_carried_state():
    leaves = [tensor.requires_grad_() for tensor in inputs(2, 12, 3, 4)[:3]]
    probe = torch.randn(2, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad(causal_conv1d(*leaves, "silu", backend="reference")[0], leaves, probe)
    x, weight, bias = leaves
    first, state = causal_conv1d(x[:, :5], weight, bias, "silu")
    second, _ = causal_conv1d(x[:, 5:], weight, bias, "silu", state)
    for found, truth in zip(torch.autograd.grad(torch.cat([first, second], 1), leaves, probe), expected):
        assert relative_error(found, truth) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_stay_float32_and_do_not_keep_the_sequence(dtype):
    y, state = causal_conv1d(*inputs(1, 500, 2, 4, dtype=dtype)[:3])
    assert y.dtype == dtype
    assert state.dtype == torch.float32
    assert state.untyped_storage().nbytes() == 3 * 2 * 4


def test_what_does_not_fit_is_refused_in_words():
    refuse = inspect.unwrap(causal_conv1d)  # the run-time shape checks of the tests would speak first
    x, weight, bias, initial = inputs(2, 5, 3, 4)
    with pytest.raises(ValueError, match=r"weight has shape \(2, 4\); .* it must be \(3, 4\)"):
        refuse(x, weight[:2], bias)
    with pytest.raises(ValueError, match=r"initial_state has shape \(2, 2, 3\); .* and 4 taps it must be \(2, 3, 3\)"):
        refuse(x, weight, bias, None, initial[:, 1:])
    with pytest.raises(ValueError, match="activation 'relu' is unknown; choose 'silu' or None"):
        refuse(x, weight, bias, "relu")
