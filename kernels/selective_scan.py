"""The selective state space model: a linear recurrence whose step size and projections depend on the token.

    delta_t = softplus(time_step_t + time_step_bias)
    h_t = exp(delta_t A) h_{t-1} + delta_t x_t B_t,    y_t = C_t h_t + D x_t,    and y_t * silu(gate_t) where gated

Shapes: x, time_step and gate (batch, time, dim), A (dim, states), negative, B and C (batch, time, states), D and
time_step_bias (dim,), state h (batch, dim, states); B and C are shared by all channels. Returns y in the dtype of x,
and the last h in float32. Everything between is float32 (float64 for float64 inputs).

With g_t the whole gradient of h_t, the backward is the same recurrence run backwards in time,

    g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1}

on states that are computed again from those kept at intervals: the states of all steps would take N times the memory
of x.

Floor, for R = numel(x) elements of e bytes and N states: the forward reads x, the time step and the gate and writes y,
4Re bytes, and computes RN exponentials and 6RN flops; the backward reads these and the gradient of y and writes three
gradients, 7Re bytes and 18RN flops.

Paper: Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv 2312.00752.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._chunks import load_tile, store_tile
from ._runtime import INTERPRETING, Backends, cdiv, jit, next_power_of_2, operator, processor_count, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes
from .linear_scan import compose_steps, scan_steps, unit_stride

SEGMENT = 1 << 17  # elements of the states that a CPU works on at once, so that they stay in its cache
MAX_TRITON_STATES = 256  # a program keeps the states of its channels in registers
TILE = 4 if INTERPRETING else 32  # steps a program scans at once; the interpreter scans element by element
FORWARD_STATES = 64 if INTERPRETING else 8192  # of all steps and channels of a tile, 32 for each thread of 8 warps
BACKWARD_STATES = FORWARD_STATES // 2  # the backward holds more of a tile at a time


def selective_scan_reference(
    x: Float[Tensor, "batch time dim"],
    time_step: Float[Tensor, "batch time dim"],
    A: Float[Tensor, "dim states"],
    B: Float[Tensor, "batch time states"],
    C: Float[Tensor, "batch time states"],
    D: Float[Tensor, " dim"] | None,
    gate: Float[Tensor, "batch time dim"] | None,
    time_step_bias: Float[Tensor, " dim"] | None,
    initial_state: Float[Tensor, "batch dim states"] | None,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch dim states"]]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    delta = _step_size(time_step.to(dtype), time_step_bias)
    wide, A, B, C, state = x.to(dtype), A.to(dtype), B.to(dtype), C.to(dtype), _state(x, A, initial_state, dtype)
    outputs = []
    for x_t, delta_t, B_t, C_t in zip(wide.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1)):
        decay = torch.exp(delta_t.unsqueeze(-1) * A)
        state = decay * state + (delta_t * x_t).unsqueeze(-1) * B_t.unsqueeze(-2)
        outputs.append((state * C_t.unsqueeze(-2)).sum(-1))
    return _skip_and_gate(torch.stack(outputs, 1), wide, D, gate).to(x.dtype), state


def selective_scan_torch(
    x: Float[Tensor, "batch time dim"],
    time_step: Float[Tensor, "batch time dim"],
    A: Float[Tensor, "dim states"],
    B: Float[Tensor, "batch time states"],
    C: Float[Tensor, "batch time states"],
    D: Float[Tensor, " dim"] | None,
    gate: Float[Tensor, "batch time dim"] | None,
    time_step_bias: Float[Tensor, " dim"] | None,
    initial_state: Float[Tensor, "batch dim states"] | None,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch dim states"]]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    delta = _step_size(time_step.to(dtype), time_step_bias)
    wide, state = x.to(dtype), _state(x, A, initial_state, dtype)
    y, final, _ = _segments(delta * wide, delta, A.to(dtype), B.to(dtype), C.to(dtype), state)
    return _skip_and_gate(y, wide, D, gate).to(x.dtype), final


def _step_size(time_step: Tensor, bias: Tensor | None) -> Tensor:
    return F.softplus(time_step if bias is None else time_step + bias)


def _skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, gate: Tensor | None) -> Tensor:
    y = y if D is None else y + D * x
    return y if gate is None else y * F.silu(gate.to(y.dtype))


def _state(x: Tensor, A: Tensor, initial_state: Tensor | None, dtype: torch.dtype) -> Tensor:
    return x.new_zeros(x.shape[0], *A.shape, dtype=dtype) if initial_state is None else initial_state.to(dtype)


def _segment_length(batch: int, A: Tensor) -> int:
    return max(1, SEGMENT // max(1, batch * A.numel()))


def _segments_fake(
    written: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    segments = cdiv(delta.shape[1], _segment_length(delta.shape[0], A))
    return delta.new_empty(delta.shape), state.new_empty(state.shape), state.new_empty(segments, *state.shape)


# Ops of their own, because Inductor needs minutes for the unrolled loops and has nothing to fuse into them.
@operator("selective_scan_segments", fake=_segments_fake)
def _segments(
    written: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """y_t = C_t h_t with h_t = exp(delta_t A) h_{t-1} + written_t B_t, the last h, and h before each segment of time.

    Segments stay in the cache; h before each is kept for the backward.
    """
    length = _segment_length(delta.shape[0], A)
    outputs, starts = [], []
    for written_s, delta_s, B_s, C_s in zip(*(tensor.split(length, 1) for tensor in (written, delta, B, C))):
        starts.append(state)
        states = _run_segment(written_s, delta_s, A, B_s, state)[1]
        state = states[:, -1]
        outputs.append((states @ C_s.unsqueeze(-1)).squeeze(-1))
    return torch.cat(outputs, 1), state.clone(memory_format=torch.contiguous_format), torch.stack(starts)


def _run_segment(written: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The decays and the states of all steps, (batch, steps, dim, states)."""
    decay = (delta.unsqueeze(-1) * A).exp_()
    states = written.unsqueeze(-1) * B.unsqueeze(-2)
    scan_steps(states, decay, state, states)
    return decay, states


@operator(
    "selective_scan_segments_backward",
    fake=lambda grad, grad_final, *inputs: tuple(x.new_empty(x.shape) for x in (*inputs[:5], grad_final)),
)
def _segments_backward(
    grad: Tensor, grad_final: Tensor, written: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    length = _segment_length(delta.shape[0], A)
    carried, grad_A = grad_final, A.new_zeros(A.shape)
    grads = []
    segments = zip(*(tensor.split(length, 1) for tensor in (grad, written, delta, B, C)), starts)
    for grad_s, written_s, delta_s, B_s, C_s, start in reversed(list(segments)):
        decay, states = _run_segment(written_s, delta_s, A, B_s, start)
        grad_C = (grad_s.unsqueeze(-2) @ states).squeeze(-2)
        # The gradients of the states, in which a step's decay acts on the step before it.
        grad_states = grad_s.unsqueeze(-1) * C_s.unsqueeze(-2)
        grad_states[:, -1] += carried
        scan_steps(grad_states[:, :-1], decay[:, 1:], grad_states[:, -1], grad_states[:, :-1], reverse=True)
        grad_written = (grad_states @ B_s.unsqueeze(-1)).squeeze(-1)
        grad_B = (written_s.unsqueeze(-2) @ grad_states).squeeze(-2)
        carried = decay[:, 0] * grad_states[:, 0]
        exponent = decay.mul_(grad_states)
        exponent[:, 1:] *= states[:, :-1]
        exponent[:, 0] *= start
        grad_delta = torch.einsum("btdn,dn->btd", exponent, A)
        grad_A += torch.einsum("btdn,btd->dn", exponent, delta_s)
        grads.append((grad_written, grad_delta, grad_B, grad_C))
    grad_written, grad_delta, grad_B, grad_C = (torch.cat(pieces[::-1], 1) for pieces in zip(*grads))
    return grad_written, grad_delta, grad_A, grad_B, grad_C, carried.contiguous()


def _save_segments(ctx, inputs, output):
    *tensors, _ = inputs
    ctx.save_for_backward(*tensors, output[2])


def _segments_gradient(ctx, grad, grad_final, _):
    return _segments_backward(grad, grad_final, *ctx.saved_tensors)


_segments.register_autograd(_segments_gradient, setup_context=_save_segments)


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _softplus(x):
    """max(x, 0) + log(1 + e^-|x|), where log(1 + e) = 2 artanh(e / (2 + e)): the series keeps the digits of small
    steps, which the logarithm of a sum near one would lose."""
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)
    square = s * s
    series = 1.0 / 13 + square / 15
    series = 1.0 / 11 + square * series
    series = 1.0 / 9 + square * series
    series = 1.0 / 7 + square * series
    series = 1.0 / 5 + square * series
    series = 1.0 / 3 + square * series
    return tl.maximum(x, 0.0) + 2.0 * (s + s * square * series)


@jit
def _load_vector(pointer, index, length, PRESENT: tl.constexpr, SIZE: tl.constexpr):
    """A vector in float32, zero where it is absent."""
    vector = tl.zeros([SIZE], tl.float32)
    if PRESENT:
        vector = tl.load(pointer + index, mask=index < length, other=0.0).to(tl.float32)
    return vector


@jit(do_not_specialize=("time", "tiles"))
def _forward_kernel(
    x_ptr, step_ptr, A_ptr, B_ptr, C_ptr, D_ptr, gate_ptr, bias_ptr, initial_ptr, y_ptr, final_ptr, starts_ptr,
    time, tiles, dim, states,
    x_batch, x_time, step_batch, step_time, B_batch, B_time, C_batch, C_time, gate_batch, gate_time,
    HAS_D: tl.constexpr, HAS_GATE: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    batch = tl.cast(tl.program_id(0), tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    n, step = tl.arange(0, STATES), tl.arange(0, STEPS)
    A = load_tile(A_ptr, channel, states, dim, n, states).to(tl.float32)
    bias = _load_vector(bias_ptr, channel, dim, HAS_BIAS, CHANNELS)
    skip = _load_vector(D_ptr, channel, dim, HAS_D, CHANNELS)
    x_ptr += batch * x_batch
    step_ptr += batch * step_batch
    B_ptr += batch * B_batch
    C_ptr += batch * C_batch
    starts_ptr += batch * tiles * dim * states
    state = tl.zeros([CHANNELS, STATES], tl.float32)
    if HAS_INITIAL:
        state = load_tile(initial_ptr + batch * dim * states, channel, states, dim, n, states).to(tl.float32)

    for tile in range(tiles):
        first = tl.cast(tile, tl.int64)
        store_tile(starts_ptr + first * dim * states, channel, states, dim, n, states, state)
        row = first * STEPS + step
        x = load_tile(x_ptr, row, x_time, time, channel, dim).to(tl.float32)
        raw = load_tile(step_ptr, row, step_time, time, channel, dim).to(tl.float32) + bias[None, :]
        delta = tl.where((row < time)[:, None], _softplus(raw), 0.0)  # steps past the end change nothing
        B = load_tile(B_ptr, row, B_time, time, n, states).to(tl.float32)
        C = load_tile(C_ptr, row, C_time, time, n, states).to(tl.float32)
        decay = tl.exp(delta[:, :, None] * A[None, :, :])
        written = (delta * x)[:, :, None] * B[:, None, :]
        product, sum = tl.associative_scan((decay, written), 0, compose_steps)
        running = product * state[None, :, :] + sum
        y = tl.sum(running * C[:, None, :], axis=2) + skip[None, :] * x
        if HAS_GATE:
            gate = load_tile(gate_ptr + batch * gate_batch, row, gate_time, time, channel, dim).to(tl.float32)
            y *= gate * tl.sigmoid(gate)
        store_tile(y_ptr + batch * time * dim, row, dim, time, channel, dim, y)
        state = tl.sum(tl.where((step == STEPS - 1)[:, None, None], running, 0.0), axis=0)

    store_tile(final_ptr + batch * dim * states, channel, states, dim, n, states, state)


@jit(do_not_specialize=("time", "tiles"))
def _backward_kernel(
    grad_ptr, grad_final_ptr, x_ptr, step_ptr, A_ptr, B_ptr, C_ptr, D_ptr, gate_ptr, bias_ptr, starts_ptr,
    grad_x_ptr, grad_step_ptr, grad_gate_ptr, grad_A_ptr, grad_B_ptr, grad_C_ptr, grad_D_ptr, grad_bias_ptr,
    grad_initial_ptr, time, tiles, dim, states,
    grad_batch, grad_time, x_batch, x_time, step_batch, step_time, B_batch, B_time, C_batch, C_time,
    gate_batch, gate_time,
    HAS_D: tl.constexpr, HAS_GATE: tl.constexpr, HAS_BIAS: tl.constexpr,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    batch = tl.cast(tl.program_id(0), tl.int64)
    group = tl.program_id(1)
    n, step = tl.arange(0, STATES), tl.arange(0, STEPS)
    grad_ptr += batch * grad_batch
    x_ptr += batch * x_batch
    step_ptr += batch * step_batch
    B_ptr += batch * B_batch
    C_ptr += batch * C_batch
    starts_ptr += batch * tiles * dim * states
    # Channels share B and C: each program sums their gradients over its blocks of channels into rows of its own.
    grad_B_ptr += (batch * tl.num_programs(1) + group) * time * states
    grad_C_ptr += (batch * tl.num_programs(1) + group) * time * states

    for block in range(group, tl.cdiv(dim, CHANNELS), tl.num_programs(1)):
        channel = block * CHANNELS + tl.arange(0, CHANNELS)
        A = load_tile(A_ptr, channel, states, dim, n, states).to(tl.float32)
        bias = _load_vector(bias_ptr, channel, dim, HAS_BIAS, CHANNELS)
        skip = _load_vector(D_ptr, channel, dim, HAS_D, CHANNELS)
        # What the steps after a tile ask of the state at its end.
        carried = load_tile(grad_final_ptr + batch * dim * states, channel, states, dim, n, states).to(tl.float32)
        grad_A = tl.zeros([CHANNELS, STATES], tl.float32)
        grad_D = tl.zeros([CHANNELS], tl.float32)
        grad_bias = tl.zeros([CHANNELS], tl.float32)

        for index in range(tiles):
            tile = tl.cast(tiles - 1 - index, tl.int64)
            row = tile * STEPS + step
            x = load_tile(x_ptr, row, x_time, time, channel, dim).to(tl.float32)
            raw = load_tile(step_ptr, row, step_time, time, channel, dim).to(tl.float32) + bias[None, :]
            delta = tl.where((row < time)[:, None], _softplus(raw), 0.0)
            B = load_tile(B_ptr, row, B_time, time, n, states).to(tl.float32)
            C = load_tile(C_ptr, row, C_time, time, n, states).to(tl.float32)
            decay = tl.exp(delta[:, :, None] * A[None, :, :])

            # The states before each step, from those before the tile: scanned over the steps before.
            start = load_tile(starts_ptr + tile * dim * states, channel, states, dim, n, states)
            row_before = tl.maximum(row - 1, 0)
            x_before = load_tile(x_ptr, row_before, x_time, time, channel, dim).to(tl.float32)
            raw_before = load_tile(step_ptr, row_before, step_time, time, channel, dim).to(tl.float32) + bias[None, :]
            B_before = load_tile(B_ptr, row_before, B_time, time, n, states).to(tl.float32)
            valid = ((step > 0) & (row <= time))[:, None]
            delta_before = tl.where(valid, _softplus(raw_before), 0.0)
            decay_before = tl.exp(delta_before[:, :, None] * A[None, :, :])
            written_before = (delta_before * x_before)[:, :, None] * B_before[:, None, :]
            product, sum = tl.associative_scan((decay_before, written_before), 0, compose_steps)
            before = product * start[None, :, :] + sum
            running = decay * before + (delta * x)[:, :, None] * B[:, None, :]

            grad = load_tile(grad_ptr, row, grad_time, time, channel, dim).to(tl.float32)
            if HAS_GATE:
                gate = load_tile(gate_ptr + batch * gate_batch, row, gate_time, time, channel, dim).to(tl.float32)
                sigmoid = tl.sigmoid(gate)
                y = tl.sum(running * C[:, None, :], axis=2) + skip[None, :] * x
                grad_gate = grad * y * sigmoid * (1.0 + gate * (1.0 - sigmoid))
                store_tile(grad_gate_ptr + batch * time * dim, row, dim, time, channel, dim, grad_gate)
                grad *= gate * sigmoid

            # The gradients of the states: towards the past, where a step is reached by the decay of the step after.
            raw_after = load_tile(step_ptr, row + 1, step_time, time, channel, dim).to(tl.float32) + bias[None, :]
            valid = ((step < STEPS - 1) & (row + 1 < time))[:, None]
            delta_after = tl.where(valid, _softplus(raw_after), 0.0)
            decay_after = tl.exp(delta_after[:, :, None] * A[None, :, :])
            asked = grad[:, :, None] * C[:, None, :]
            product, sum = tl.associative_scan((decay_after, asked), 0, compose_steps, reverse=True)
            grad_state = product * carried[None, :, :] + sum
            carried = tl.sum(tl.where((step == 0)[:, None, None], grad_state * decay, 0.0), axis=0)

            exponent = grad_state * decay * before
            grad_A += tl.sum(exponent * delta[:, :, None], axis=0)
            grad_D += tl.sum(grad * x, axis=0)
            grad_written = tl.sum(grad_state * B[:, None, :], axis=2)
            grad_raw = (tl.sum(exponent * A[None, :, :], axis=2) + grad_written * x) * tl.sigmoid(raw)
            grad_bias += tl.sum(tl.where((row < time)[:, None], grad_raw, 0.0), axis=0)
            grad_x = grad_written * delta + grad * skip[None, :]
            store_tile(grad_x_ptr + batch * time * dim, row, dim, time, channel, dim, grad_x)
            store_tile(grad_step_ptr + batch * time * dim, row, dim, time, channel, dim, grad_raw)
            grad_B = tl.sum(grad_state * (delta * x)[:, :, None], axis=1)
            grad_C = tl.sum(running * grad[:, :, None], axis=1)
            if block != group:
                grad_B += load_tile(grad_B_ptr, row, states, time, n, states)
                grad_C += load_tile(grad_C_ptr, row, states, time, n, states)
            store_tile(grad_B_ptr, row, states, time, n, states, grad_B)
            store_tile(grad_C_ptr, row, states, time, n, states, grad_C)

        store_tile(grad_A_ptr + batch * dim * states, channel, states, dim, n, states, grad_A)
        store_tile(grad_initial_ptr + batch * dim * states, channel, states, dim, n, states, carried)
        tl.store(grad_D_ptr + batch * dim + channel, grad_D, mask=channel < dim)
        tl.store(grad_bias_ptr + batch * dim + channel, grad_bias, mask=channel < dim)
        tl.debug_barrier()  # the next block adds to what this one stored


def _blocks(dim: int, states: int, room: int) -> dict[str, int]:
    size = next_power_of_2(states)
    channels = max(1, min(next_power_of_2(dim), room // (TILE * size)))
    return {"STEPS": TILE, "CHANNELS": channels, "STATES": size, "num_warps": 8}


def _strides(*tensors: Tensor | None) -> list[int]:
    return [stride for tensor in tensors for stride in ((0, 0) if tensor is None else tensor.stride()[:2])]


def _forward_fake(
    x: Tensor, time_step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, gate: Tensor | None,
    bias: Tensor | None, initial: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, _ = x.shape
    final = x.new_empty((batch, *A.shape), dtype=torch.float32)
    return x.new_empty(x.shape), final, x.new_empty((batch, -(-time // TILE), *A.shape), dtype=torch.float32)


@operator("selective_scan", fake=_forward_fake)
def _forward(
    x: Tensor, time_step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, gate: Tensor | None,
    bias: Tensor | None, initial: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    y, final, starts = _forward_fake(x, time_step, A, B, C, D, gate, bias, initial)
    x, time_step, B, C, gate = map(unit_stride, (x, time_step, B, C, gate))
    A, D, bias, initial = map(_contiguous, (A, D, bias, initial))
    blocks = _blocks(*A.shape, FORWARD_STATES)
    if y.numel():
        _forward_kernel[(len(x), cdiv(x.shape[2], blocks["CHANNELS"]))](
            x, time_step, A, B, C, D, gate, bias, initial, y, final, starts, x.shape[1], starts.shape[1], *A.shape,
            *_strides(x, time_step, B, C, gate),
            HAS_D=D is not None, HAS_GATE=gate is not None, HAS_BIAS=bias is not None, HAS_INITIAL=initial is not None,
            **blocks,
        )  # fmt: skip
    return y, final, starts


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _backward_fake(
    grad: Tensor, grad_final: Tensor, x: Tensor, time_step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    gate: Tensor | None, bias: Tensor | None, starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    inputs = (x, time_step, A, B, C, D, gate, bias, grad_final)
    return tuple(x.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape) for tensor in inputs)


@operator("selective_scan_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, grad_final: Tensor, x: Tensor, time_step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    gate: Tensor | None, bias: Tensor | None, starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grads = _backward_fake(grad, grad_final, x, time_step, A, B, C, D, gate, bias, starts)
    grad_x, grad_step, grad_A, grad_B, grad_C, grad_D, grad_gate, grad_bias, grad_initial = grads
    grad, x, time_step, B, C, gate = map(unit_stride, (grad, x, time_step, B, C, gate))
    A, D, bias = map(_contiguous, (A, D, bias))
    (batch, time, dim), states, blocks = x.shape, A.shape[1], _blocks(*A.shape, BACKWARD_STATES)
    groups = max(1, min(cdiv(dim, blocks["CHANNELS"]), 2 * processor_count(x.device) // max(1, batch)))
    partial_A, partial_D, partial_bias, partial_B, partial_C = (
        x.new_empty(shape, dtype=torch.float32)
        for shape in ((batch, dim, states), (batch, dim), (batch, dim), *[(batch, groups, time, states)] * 2)
    )
    if x.numel():
        _backward_kernel[(batch, groups)](
            grad, grad_final.contiguous(), x, time_step, A, B, C, D, gate, bias, starts,
            grad_x, grad_step, grad_gate, partial_A, partial_B, partial_C, partial_D, partial_bias, grad_initial,
            time, starts.shape[1], dim, states, *_strides(grad, x, time_step, B, C, gate),
            HAS_D=D is not None, HAS_GATE=gate is not None, HAS_BIAS=bias is not None, **blocks,
        )  # fmt: skip
    # Sums over programs have a fixed order, which atomic additions would not.
    grad_A, grad_B, grad_C = partial_A.sum(0).to(A.dtype), partial_B.sum(1).to(B.dtype), partial_C.sum(1).to(C.dtype)
    grad_D = grad_D if D is None else partial_D.sum(0).to(D.dtype)
    grad_bias = grad_bias if bias is None else partial_bias.sum(0).to(bias.dtype)
    return grad_x, grad_step, grad_A, grad_B, grad_C, grad_D, grad_gate, grad_bias, grad_initial


def _save_for_backward(ctx, inputs, output):
    *tensors, initial = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.initial_dtype = None if initial is None else initial.dtype


def _gradient(ctx, grad, grad_final, _):
    *inputs, starts = ctx.saved_tensors
    *grads, grad_initial = _backward(grad, grad_final, *inputs, starts)
    grads = [None if tensor is None else found for tensor, found in zip(inputs, grads)]
    return *grads, None if ctx.initial_dtype is None else grad_initial.to(ctx.initial_dtype)


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _selective_scan_triton(*inputs: Tensor | None) -> tuple[Tensor, Tensor]:
    return _forward(*inputs)[:2]


def _triton_refuses(x: Tensor, time_step: Tensor, A: Tensor, *_) -> str | None:
    if A.shape[1] > MAX_TRITON_STATES:
        return f"{A.shape[1]} states are more than {MAX_TRITON_STATES}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends(
    "selective_scan", selective_scan_reference, selective_scan_torch, _selective_scan_triton, _triton_refuses
)


def selective_scan(
    x: Float[Tensor, "batch time dim"],
    time_step: Float[Tensor, "batch time dim"],
    A: Float[Tensor, "dim states"],
    B: Float[Tensor, "batch time states"],
    C: Float[Tensor, "batch time states"],
    D: Float[Tensor, " dim"] | None = None,
    gate: Float[Tensor, "batch time dim"] | None = None,
    time_step_bias: Float[Tensor, " dim"] | None = None,
    initial_state: Float[Tensor, "batch dim states"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch dim states"]]:
    """Run h_t = exp(delta_t A) h_{t-1} + delta_t x_t B_t, y_t = C_t h_t + D x_t, delta_t = softplus(time_step_t + b).

    x, time_step (batch, time, dim); A (dim, states), not positive; B, C (batch, time, states); skip D and
    time_step_bias (dim,); gate (batch, time, dim) multiplies y by silu(gate); initial_state (batch, dim, states) or
    None for zero. A time step of -inf leaves the state as it is. Returns y and the last h, in float32. Raises
    ValueError if shapes do not fit, or for a backend ("reference", "torch", "triton") that cannot serve the call.

    Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv 2312.00752.
    """
    inputs = (x, time_step, A, B, C, D, gate, time_step_bias, initial_state)
    _check_shapes(*inputs)
    with torch.autocast(x.device.type, enabled=False):
        return _BACKENDS.select(backend, *inputs)(*inputs)


def _check_shapes(
    x: Tensor, time_step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, gate: Tensor | None,
    time_step_bias: Tensor | None, initial_state: Tensor | None,
) -> None:  # fmt: skip
    (batch, time, dim), states = x.shape, A.shape[-1]
    if not time:
        raise ValueError(f"selective_scan: x has shape {tuple(x.shape)}; it must have at least one time step")
    required = {
        "time_step": (time_step, (batch, time, dim)),
        "A": (A, (dim, states)),
        "B": (B, (batch, time, states)),
        "C": (C, (batch, time, states)),
        "D": (D, (dim,)),
        "gate": (gate, (batch, time, dim)),
        "time_step_bias": (time_step_bias, (dim,)),
        "initial_state": (initial_state, (batch, dim, states)),
    }
    for name, (tensor, shape) in required.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"selective_scan: {name} has shape {tuple(tensor.shape)}; for x of shape {tuple(x.shape)} and "
                f"{states} states it must be {shape}"
            )


def _floor(x: Tensor, time_step: Tensor, A: Tensor, gate: Tensor | None, **_) -> tuple[Cost, Cost]:
    read, steps = size_in_bytes(x, time_step, gate), x.numel() * A.shape[1]
    return Cost(read + size_in_bytes(x), 7 * steps), Cost(2 * read + size_in_bytes(x), 20 * steps)


def _inputs(random: Sampler, batch: int, time: int, dim: int, states: int, *, strength: float = 1.0) -> dict:
    return {
        "x": random.normal(batch, time, dim),
        "time_step": random.normal(batch, time, dim),
        "A": -strength * random.uniform(dim, states, low=0.2, high=2.0),
        "B": random.normal(batch, time, states),
        "C": random.normal(batch, time, states),
        "D": random.normal(dim),
        "gate": random.normal(batch, time, dim),
        "time_step_bias": random.normal(dim),
        "initial_state": random.normal(batch, dim, states),
    }


def _plain(inputs: dict) -> dict:
    return {**inputs, "D": None, "gate": None, "time_step_bias": None, "initial_state": None}


SPEC = OpSpec(
    function=selective_scan,
    backends=_BACKENDS,
    cases={
        "prime": lambda random: _inputs(random, 2, 7, 3, 2),
        "one step": lambda random: _inputs(random, 1, 1, 2, 5),
        "plain": lambda random: _plain(_inputs(random, 1, 13, 2, 3)),
        "strong decay": lambda random: _inputs(random, 1, 6, 2, 2, strength=40.0),
        "many channels": lambda random: _plain(_inputs(random, 2, 3, 11, 2)),
        "small steps": lambda random: {**_inputs(random, 1, 5, 3, 2), "time_step": random.normal(1, 5, 3) - 9.0},
        "no samples": lambda random: _inputs(random, 0, 4, 3, 2),
    },
    large_cases={
        "long": lambda random: _inputs(random, 2, 157, 5, 3),
        "several segments": lambda random: _inputs(random, 2, 37, 300, 16),
    },
    benchmarks={"2x1024 dim 128, 16 states": lambda random: _inputs(random, 2, 1024, 128, 16)},
    differentiable=("x", "time_step", "A", "B", "C", "D", "gate", "time_step_bias", "initial_state"),
    float32=("A", "initial_state"),
    floor=_floor,
    paper="Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv 2312.00752",
)
