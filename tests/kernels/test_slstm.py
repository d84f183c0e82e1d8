"""The sLSTM against its definition without a stabilizer, against itself in pieces, and against published code."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.slstm import SLSTMState, _torch_backward, _torch_forward, slstm

BACKENDS = ["reference", "torch"]


def inputs(batch, time, heads, head_dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    weight = normal(heads, head_dim, 4, head_dim, scale=0.5 / head_dim**0.5)
    return normal(batch, time, 4, heads, head_dim), weight, normal(4, heads, head_dim)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_without_memory_mixing_it_is_a_softmax_over_the_past(backend, forget_gate):
    """h_t = sigmoid(o_t) sum_s w_ts tanh(z_s), w_ts the softmax over s <= t of i_s + the log forget gates after s."""
    x, weight, _ = inputs(2, 23, 3, 5)
    input_gate, forget, candidate, output_gate = (3 * x).unbind(2)
    log_forget = F.logsigmoid(forget) if forget_gate == "sigmoid" else forget
    decay = log_forget.cumsum(1)
    scores = decay.unsqueeze(2) + (input_gate - decay).unsqueeze(1)
    past = torch.ones(23, 23, dtype=torch.bool).tril()[:, :, None, None]
    weights = torch.softmax(scores.masked_fill(~past, -torch.inf), dim=2)
    expected = torch.sigmoid(output_gate) * (weights * torch.tanh(candidate).unsqueeze(1)).sum(2)
    y, _ = slstm(3 * x, torch.zeros_like(weight), forget_gate=forget_gate, backend=backend)
    assert relative_error(y, expected) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
@given(time=st.integers(2, 40), seed=st.integers(0, 99), data=st.data())
def test_whole_equals_stepwise_and_two_halves(backend, time, seed, data):
    x, weight, bias = inputs(2, time, 2, 3, seed)
    y, final = slstm(x, weight, bias, backend="reference")
    cut = data.draw(st.integers(1, time - 1))
    first, state = slstm(x[:, :cut], weight, bias, backend=backend)
    second, state = slstm(x[:, cut:], weight, bias, state, backend=backend)
    assert relative_error(torch.cat([first, second], 1), y) < 1e-12
    for found, expected in zip(state, final):
        assert relative_error(found, expected) < 1e-12
    steps, state = [], None
    for token in x.split(1, 1):
        step, state = slstm(token, weight, bias, state, backend=backend)
        steps.append(step)
    assert relative_error(torch.cat(steps, 1), y) < 1e-12


def test_gradients_pass_through_a_carried_state():
    """Also that of the stabilizer: what reaches it from the second half cancels against that of c and n."""
    leaves = [tensor.requires_grad_() for tensor in inputs(2, 37, 2, 3)]
    x, weight, bias = leaves
    probe = torch.randn(2, 37, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, _ = slstm(x, weight, bias, backend="reference")
    expected = torch.autograd.grad(y, leaves, probe)
    first, state = slstm(x[:, :19], weight, bias, backend="torch")
    second, _ = slstm(x[:, 19:], weight, bias, state, backend="torch")
    for found, truth in zip(torch.autograd.grad(torch.cat([first, second], 1), leaves, probe), expected):
        assert relative_error(found, truth) < 1e-12


@given(shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_input_gates_count_only_relative_to_each_other(shift, seed):
    x, weight, bias = inputs(1, 9, 2, 3, seed)
    cell, normalizer, hidden, stabilizer = torch.rand(
        4, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    state = SLSTMState(cell, normalizer + 1, hidden, stabilizer)
    y, final = slstm(x, weight, bias, state)
    shifted = x + torch.tensor([shift, 0, 0, 0], dtype=torch.float64)[:, None, None]
    found, moved = slstm(shifted, weight, bias, state._replace(stabilizer=state.stabilizer + shift))
    assert relative_error(found, y) < 1e-10
    assert relative_error(moved.stabilizer - shift, final.stabilizer) < 1e-10
    assert (y.abs() <= 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_normalizer_needs_no_floor(backend):
    x, weight, bias = inputs(3, 50, 2, 4, dtype=torch.float32)
    _, state = slstm(20 * x, weight, bias, backend=backend)
    assert (state.normalizer >= 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_of_zeros_is_no_state(backend):
    """Whatever its stabilizer, and also where the input gate is so low that exp(i) is nothing beside it."""
    x, weight, bias = inputs(2, 5, 2, 3, dtype=torch.float32)
    x[:, :, 0] -= 200
    zero = torch.zeros(2, 2, 3)
    y, _ = slstm(x, weight, bias, SLSTMState(zero, zero, zero, zero), backend=backend)
    expected, _ = slstm(x, weight, bias, backend=backend)
    assert torch.isfinite(y).all()
    assert torch.equal(y, expected)


def test_extreme_gates():
    """Gates of +-200 in float32: no overflow, no NaN, values and gradients as in float64."""
    x, weight, bias = inputs(2, 40, 2, 4)
    x = torch.where(x.abs() > 1, 200 * x.sign(), x)
    probe = torch.randn(2, 40, 2, 4, dtype=torch.float64)

    def run(dtype, backend):
        leaves = [tensor.to(dtype).detach().requires_grad_() for tensor in (x, weight, bias)]
        y, _ = slstm(*leaves, backend=backend)
        return [y, *torch.autograd.grad(y, leaves, probe.to(dtype))]

    for found, expected in zip(run(torch.float32, "torch"), run(torch.float64, "reference")):
        assert relative_error(found.detach(), expected.detach()) < 1e-5


def test_inference_keeps_nothing_and_gives_the_same():
    x, weight, bias = inputs(2, 50, 2, 3, dtype=torch.float32)
    trained, state = slstm(x.requires_grad_(), weight, bias)
    with torch.no_grad():
        y, final = slstm(x, weight, bias)
    assert torch.equal(y, trained)
    assert all(torch.equal(one, other) for one, other in zip(final, state))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_stay_float32(dtype):
    x, weight, bias = inputs(1, 5, 2, 3, dtype=dtype)
    y, state = slstm(x, weight, bias)
    assert y.dtype == dtype
    assert all(part.dtype == torch.float32 for part in state)


def test_the_torch_form_is_registered_correctly():
    x, weight, bias = (tensor.requires_grad_() for tensor in inputs(2, 3, 2, 4, dtype=torch.float32))
    state = [torch.rand(2, 2, 4) + 1 for _ in range(4)]
    for save in (True, False):
        checks = ("test_schema", "test_faketensor") + (("test_autograd_registration",) if save else ())
        torch.library.opcheck(_torch_forward, (x, weight, bias, *state, True, save), test_utils=checks)
    y, *_, gates, sums, stabilizers = _torch_forward(x, weight, bias, *state, True, True)
    saved = [tensor.detach() for tensor in (weight, bias, state[2], y, gates, sums, stabilizers)]
    torch.library.opcheck(
        _torch_backward, (torch.ones_like(y), None, state[1], None, None, *saved, True), test_utils=checks
    )


def test_what_does_not_fit_is_refused_in_words():
    refuse = inspect.unwrap(slstm)  # the run-time shape checks of the tests would speak first
    x, weight, bias = inputs(2, 5, 3, 4)
    with pytest.raises(ValueError, match=r"\(batch, time, 4, heads, head_dim\); it is \(2, 5, 3, 3, 4\)"):
        refuse(x[:, :, :3], weight)
    with pytest.raises(ValueError, match=r"recurrent_weight \(3, 4, 4, 4\)"):
        refuse(x, weight[:2])
    with pytest.raises(ValueError, match=r"bias \(4, 3, 4\)"):
        refuse(x, weight, bias[:, :2])
    with pytest.raises(ValueError, match="'sigmoid' or 'exponential', not 'tanh'"):
        refuse(x, weight, bias, forget_gate="tanh")
    with pytest.raises(ValueError, match="the state's cell"):
        refuse(x, weight, bias, SLSTMState(*torch.zeros(4, 1, 3, 4)))


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_kernel_that_reads_the_recurrent_weight_at_every_step():
    leaves = [tensor.requires_grad_() for tensor in inputs(1, 2, 1, 67, dtype=torch.float32)]
    probe = torch.randn(1, 2, 1, 67)
    found, expected = (
        [y, *torch.autograd.grad(y, leaves, probe)]
        for y, _ in (slstm(*leaves, backend=backend) for backend in ("triton", "reference"))
    )
    for one, other in zip(found, expected):
        assert relative_error(one.detach(), other.detach()) < 1e-5


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_kernel_refuses_large_heads():
    x, weight, bias = inputs(1, 1, 1, 129, dtype=torch.float32)
    with pytest.raises(ValueError, match="head_dim 129 is larger than 128"):
        slstm(x, weight, bias, backend="triton")


@pytest.mark.peers
def test_agrees_with_xlstm():
    """The plain PyTorch cell of xlstm: its weight is (heads, gates and outputs, inputs), its state (h, c, n, m)."""
    vanilla = pytest.importorskip("xlstm.blocks.slstm.src.vanilla", reason="needs xlstm, of the [peers] extra")
    x, weight, bias = inputs(3, 21, 2, 5)
    states, final, _ = vanilla.slstm_forward(
        x.flatten(2).transpose(0, 1),
        torch.zeros(4, 3, 10, dtype=torch.float64),
        weight.permute(0, 2, 3, 1).flatten(1, 2),
        bias.flatten(),
        vanilla.slstm_pointwise_function_registry["slstm"],
    )
    y, state = slstm(x, weight, bias)
    assert relative_error(y, states[0, 1:].transpose(0, 1).unflatten(-1, (2, 5))) < 1e-12
    for found, expected in zip((state.hidden, state.cell, state.normalizer, state.stabilizer), final):
        assert relative_error(found, expected.unflatten(-1, (2, 5))) < 1e-12


@pytest.mark.peers
def test_agrees_with_flashrnn():
    """The plain PyTorch recurrence of FlashRNN, time first, its states side by side: (h, c, n, m)."""
    vanilla = pytest.importorskip("flashrnn.flashrnn.vanilla", reason="needs flashrnn, of the [peers] extra")
    x, weight, bias = inputs(3, 21, 2, 5)
    _, final = vanilla.flashrnn_forward(
        x.transpose(0, 1),
        torch.zeros(1, 3, 4, 2, 5, dtype=torch.float64),
        weight,
        bias,
        vanilla.flashrnn_pointwise_function_registry["slstm"],
    )
    _, state = slstm(x, weight, bias)
    for found, expected in zip((state.hidden, state.cell, state.normalizer, state.stabilizer), final[0].unbind(1)):
        assert relative_error(found, expected) < 1e-12
