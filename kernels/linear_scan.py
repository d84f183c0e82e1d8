"""Linear recurrence along time, one channel at a time.

    h_t = a_t * h_{t-1} + x_t

Shapes: x (batch, time, dim), decay a or log a of the same shape, initial_state h_0 (batch, dim) or None for zero.
Returns all h, in the dtype of x, and the last one as the state, in float32. Everything between is float32 (float64 for
float64 inputs), and gradients have the dtype of their inputs.

With g_t the whole gradient of h_t, the backward is the same recurrence run backwards in time:

    g_t = dh_t + a_{t+1} * g_{t+1},   dx_t = g_t,   da_t = g_t * h_{t-1},   dlog a_t = a_t * da_t

Floor, for R = numel(x) elements of e bytes: the forward reads x and a and writes h, 3Re bytes and 2R flops; the
backward reads a, h and the gradient of h and writes two gradients, 5Re bytes and 3R flops.

Paper: Parallelizing Linear Recurrent Neural Nets Over Sequence Length, arXiv 1709.04057.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ._runtime import INTERPRETING, Backends, cdiv, jit, next_power_of_2, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes

LARGE_STEP = 1 << 14  # elements from which computing a step takes several times as long as calling the operator


def linear_scan_reference(
    x: Float[Tensor, "batch time dim"],
    decay: Float[Tensor, "batch time dim"],
    initial_state: Float[Tensor, "batch dim"] | None = None,
    decay_is_log: bool = False,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch dim"]]:
    wide, decay, state = _widen(x, decay, initial_state)
    outputs = []
    for x_t, decay_t in zip(wide.unbind(1), decay.unbind(1)):
        state = (decay_t.exp() if decay_is_log else decay_t) * state + x_t
        outputs.append(state)
    return torch.stack(outputs, 1).to(x.dtype), state


def linear_scan_torch(
    x: Float[Tensor, "batch time dim"],
    decay: Float[Tensor, "batch time dim"],
    initial_state: Float[Tensor, "batch dim"] | None = None,
    decay_is_log: bool = False,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch dim"]]:
    wide, decay, state = _widen(x, decay, initial_state)
    y = scan(wide, decay.exp() if decay_is_log else decay, state, False)
    # A copy of the last step alone, so that a state kept for later does not keep the whole sequence in memory.
    return y.to(x.dtype), y[:, -1].clone()


def _widen(x: Tensor, decay: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    state = x.new_zeros(x[:, 0].shape) if initial_state is None else initial_state
    return x.to(dtype), decay.to(dtype), state.to(dtype)


# An op of its own, because Inductor needs minutes for the unrolled loops and has nothing to fuse into them.
@operator("two_level_scan", fake=lambda x, decay, state, reverse: x.new_empty(x.shape))
def scan(x: Tensor, decay: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """h_t = decay_t * h_{t-1} + x_t over dimension 1 of any tensors of one shape and dtype; differentiable.

    `reverse` runs from the last step to the first: h_t = decay_t * h_{t+1} + x_t.
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    scan_steps(x, decay, state, y, reverse)
    return y


def scan_steps(x: Tensor, decay: Tensor, state: Tensor, y: Tensor, reverse: bool = False) -> None:
    """Writes the recurrence to y, which may be x.

    Chunks of about sqrt(time) steps lie side by side: first every chunk runs from zero for its end, then the ends run
    over the chunks, and with their true starts the chunks run once more. These are three short loops over large
    tensors; reading the inputs twice costs less than keeping running products of decays. Steps that are large already
    simply follow each other.
    """
    time = x.shape[1]
    length = 1 << max(0, round(math.log2(max(1, time)) / 2))
    rest = time % length if state.numel() < LARGE_STEP else time
    # The steps that fill no chunk come last, whichever way the scan runs.
    chunked, left = (slice(rest, time), slice(rest)) if reverse else (slice(time - rest), slice(time - rest, time))

    if rest < time:
        x_steps, decay_steps, y_steps = (
            _in_order(tensor[:, chunked].unflatten(1, (-1, length)), 2, reverse) for tensor in (x, decay, y)
        )
        end, product = x_steps[0].clone(), decay_steps[0].clone()
        for x_i, decay_i in zip(x_steps[1:], decay_steps[1:]):
            torch.addcmul(x_i, decay_i, end, out=end)
            product *= decay_i
        starts = []
        for end_c, product_c in zip(_in_order(end, 1, reverse), _in_order(product, 1, reverse)):
            starts.append(state)
            state = torch.addcmul(end_c, product_c, state)
        running = torch.stack(starts[::-1] if reverse else starts, 1)
        for x_i, decay_i, y_i in zip(x_steps, decay_steps, y_steps):
            running = torch.addcmul(x_i, decay_i, running, out=y_i)
    for x_t, decay_t, y_t in zip(*(_in_order(tensor[:, left], 1, reverse) for tensor in (x, decay, y))):
        state = torch.addcmul(x_t, decay_t, state, out=y_t)


def _in_order(x: Tensor, dim: int, reverse: bool) -> tuple[Tensor, ...]:
    return x.unbind(dim)[::-1] if reverse else x.unbind(dim)


def _save_scan(ctx, inputs, output):
    _, decay, state, ctx.reverse = inputs
    ctx.save_for_backward(decay, state, output)


def _scan_gradient(ctx, grad):
    decay, state, y = ctx.saved_tensors
    first, last = (-1, 0) if ctx.reverse else (0, -1)
    before, after = (slice(1, None), slice(-1)) if ctx.reverse else (slice(-1), slice(1, None))
    # The step that the scan ends at has no gradient but its own; the others follow from it.
    end = grad[:, last]
    earlier = scan(grad[:, before], decay[:, after], end, not ctx.reverse)
    pieces = (end.unsqueeze(1), earlier) if ctx.reverse else (earlier, end.unsqueeze(1))
    grad = torch.cat(pieces, 1)
    begin = (grad[:, first] * state).unsqueeze(1)
    others = grad[:, after] * y[:, before]
    grad_decay = torch.cat((others, begin) if ctx.reverse else (begin, others), 1)
    return grad, grad_decay, decay[:, first] * grad[:, first], None


scan.register_autograd(_scan_gradient, setup_context=_save_scan)


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def compose_steps(decay_1, x_1, decay_2, x_2):
    """The map h -> decay * h + x that does step 1 and then step 2."""
    return decay_1 * decay_2, decay_2 * x_1 + x_2


@jit(do_not_specialize=("time",))
def _forward_kernel(
    x_ptr, decay_ptr, initial_ptr, y_ptr, final_ptr, time, dim,
    x_batch, x_time, decay_batch, decay_time,
    HAS_INITIAL: tl.constexpr, LOG: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    batch = tl.cast(tl.program_id(0), tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    step = tl.arange(0, STEPS)
    real = channel < dim
    state = tl.zeros([CHANNELS], tl.float32)
    if HAS_INITIAL:
        state = tl.load(initial_ptr + batch * dim + channel, mask=real, other=0.0).to(tl.float32)

    for start in range(0, time, STEPS):
        row = tl.cast(start, tl.int64) + step
        inside = (row < time)[:, None] & real[None, :]
        x = tl.load(x_ptr + batch * x_batch + row[:, None] * x_time + channel[None, :], mask=inside, other=0.0)
        offset = batch * decay_batch + row[:, None] * decay_time + channel[None, :]
        decay = tl.load(decay_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        if LOG:
            decay = tl.exp(decay)
        decay = tl.where(inside, decay, 1.0)  # steps past the end keep the state
        product, sum = tl.associative_scan((decay, x.to(tl.float32)), 0, compose_steps)
        y = product * state[None, :] + sum
        offset = (batch * time + row[:, None]) * dim + channel[None, :]
        tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=inside)
        state = tl.sum(tl.where(step[:, None] == STEPS - 1, y, 0.0), axis=0)

    tl.store(final_ptr + batch * dim + channel, state, mask=real)


@jit(do_not_specialize=("time",))
def _backward_kernel(
    grad_ptr, grad_final_ptr, decay_ptr, initial_ptr, y_ptr, grad_x_ptr, grad_decay_ptr, grad_initial_ptr, time, dim,
    grad_batch, grad_time, decay_batch, decay_time,
    HAS_INITIAL: tl.constexpr, LOG: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    batch = tl.cast(tl.program_id(0), tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    step = tl.arange(0, STEPS)
    real = channel < dim
    initial = tl.zeros([CHANNELS], tl.float32)
    if HAS_INITIAL:
        initial = tl.load(initial_ptr + batch * dim + channel, mask=real, other=0.0).to(tl.float32)
    # The gradient of the step after the tile, times that step's decay.
    carried = tl.load(grad_final_ptr + batch * dim + channel, mask=real, other=0.0).to(tl.float32)

    for start in range(0, time, STEPS):
        row = time - 1 - (tl.cast(start, tl.int64) + step)  # tiles are loaded upside down, to scan towards the past
        inside = (row >= 0)[:, None] & real[None, :]
        grad = tl.load(
            grad_ptr + batch * grad_batch + row[:, None] * grad_time + channel[None, :], mask=inside, other=0.0
        )
        offset = batch * decay_batch + row[:, None] * decay_time + channel[None, :]
        decay = tl.load(decay_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        later = inside & (step[:, None] > 0)
        decay_after = tl.load(decay_ptr + offset + decay_time, mask=later, other=0.0).to(tl.float32)
        if LOG:
            decay = tl.exp(decay)
            decay_after = tl.exp(decay_after)
        decay_after = tl.where(later, decay_after, 1.0)
        product, sum = tl.associative_scan((decay_after, grad.to(tl.float32)), 0, compose_steps)
        grad_x = product * carried[None, :] + sum

        output = (batch * time + row[:, None]) * dim + channel[None, :]
        before = tl.load(y_ptr + output - dim, mask=inside & (row >= 1)[:, None], other=0.0).to(tl.float32)
        before = tl.where(row[:, None] == 0, initial[None, :], before)
        grad_decay = grad_x * before
        if LOG:
            grad_decay *= decay
        tl.store(grad_x_ptr + output, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)
        tl.store(grad_decay_ptr + output, grad_decay.to(grad_decay_ptr.dtype.element_ty), mask=inside)
        last = (step == STEPS - 1) | (row == 0)
        last = last & (row >= 0)
        carried = tl.sum(tl.where(last[:, None], grad_x * decay, 0.0), axis=0)

    tl.store(grad_initial_ptr + batch * dim + channel, carried, mask=real)


def _blocks(dim: int) -> dict[str, int]:
    channels = min(32, next_power_of_2(dim))
    # The interpreter scans element by element.
    return {"STEPS": 4 if INTERPRETING else 64, "CHANNELS": channels, "num_warps": 2}


def unit_stride(x: Tensor | None) -> Tensor | None:
    """The tensor itself if its last dimension is contiguous, otherwise a copy."""
    return x if x is None or x.stride(-1) == 1 else x.contiguous()


def _forward_fake(x: Tensor, decay: Tensor, initial: Tensor | None, decay_is_log: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((x.shape[0], x.shape[2]), dtype=torch.float32)


@operator("linear_scan", fake=_forward_fake)
def _forward(x: Tensor, decay: Tensor, initial: Tensor | None, decay_is_log: bool) -> tuple[Tensor, Tensor]:
    y, final = _forward_fake(x, decay, initial, decay_is_log)
    x, decay = unit_stride(x), unit_stride(decay)
    batch, time, dim = x.shape
    blocks = _blocks(dim)
    if y.numel():
        _forward_kernel[(batch, cdiv(dim, blocks["CHANNELS"]))](
            x, decay, None if initial is None else initial.contiguous(), y, final, time, dim,
            *x.stride()[:2], *decay.stride()[:2], HAS_INITIAL=initial is not None, LOG=decay_is_log, **blocks,
        )  # fmt: skip
    return y, final


def _backward_fake(
    grad: Tensor, grad_final: Tensor, decay: Tensor, initial: Tensor | None, y: Tensor, decay_is_log: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return y.new_empty(y.shape), decay.new_empty(y.shape), grad_final.new_empty(grad_final.shape)


@operator("linear_scan_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, grad_final: Tensor, decay: Tensor, initial: Tensor | None, y: Tensor, decay_is_log: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grads = _backward_fake(grad, grad_final, decay, initial, y, decay_is_log)
    grad, decay = unit_stride(grad), unit_stride(decay)
    batch, time, dim = y.shape
    blocks = _blocks(dim)
    if y.numel():
        _backward_kernel[(batch, cdiv(dim, blocks["CHANNELS"]))](
            grad, grad_final.contiguous(), decay, None if initial is None else initial.contiguous(), y.contiguous(),
            *grads, time, dim, *grad.stride()[:2], *decay.stride()[:2],
            HAS_INITIAL=initial is not None, LOG=decay_is_log, **blocks,
        )  # fmt: skip
    return grads


def _save_for_backward(ctx, inputs, output):
    _, decay, initial, ctx.decay_is_log = inputs
    ctx.save_for_backward(decay, initial, output[0])


def _gradient(ctx, grad, grad_final):
    decay, initial, y = ctx.saved_tensors
    grad_x, grad_decay, grad_initial = _backward(grad, grad_final, decay, initial, y, ctx.decay_is_log)
    return grad_x, grad_decay, None if initial is None else grad_initial.to(initial.dtype), None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _linear_scan_triton(
    x: Tensor, decay: Tensor, initial_state: Tensor | None = None, decay_is_log: bool = False
) -> tuple[Tensor, Tensor]:
    return _forward(x, decay, initial_state, decay_is_log)


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("linear_scan", linear_scan_reference, linear_scan_torch, _linear_scan_triton)


def linear_scan(
    x: Float[Tensor, "batch time dim"],
    decay: Float[Tensor, "batch time dim"],
    initial_state: Float[Tensor, "batch dim"] | None = None,
    *,
    decay_is_log: bool = False,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch dim"]]:
    """Run h_t = decay_t * h_{t-1} + x_t along time; returns every h and the last one as a float32 state.

    x and decay (batch, time, dim); with `decay_is_log`, decay holds log a_t and may be -inf to forget all before.
    initial_state (batch, dim) or None for zero. Computed in float32, returned in the dtype of x. Raises ValueError if
    shapes do not fit, or for a backend ("reference", "torch", "triton") that cannot serve the call.

    Parallelizing Linear Recurrent Neural Nets Over Sequence Length, arXiv 1709.04057.
    """
    batch, time, dim = x.shape
    if decay.shape != x.shape or not time:
        raise ValueError(
            f"linear_scan: x has shape {tuple(x.shape)}, decay {tuple(decay.shape)}; both must be (batch, time, dim), "
            "with at least one step"
        )
    if initial_state is not None and initial_state.shape != (batch, dim):
        raise ValueError(
            f"linear_scan: initial_state has shape {tuple(initial_state.shape)}; for x of shape {tuple(x.shape)} it "
            f"must be {(batch, dim)}"
        )
    return _BACKENDS.select(backend, x, decay, initial_state)(x, decay, initial_state, decay_is_log)


def _floor(x: Tensor, decay: Tensor, **_) -> tuple[Cost, Cost]:
    bytes = size_in_bytes(x, decay)
    return Cost(bytes + size_in_bytes(x), 2 * x.numel()), Cost(2 * bytes + size_in_bytes(x), 3 * x.numel())


def _inputs(random: Sampler, batch: int, time: int, dim: int, initial: bool = True) -> dict:
    return {
        "x": random.normal(batch, time, dim),
        "decay": random.uniform(batch, time, dim, low=-0.2, high=1.0),
        "initial_state": random.normal(batch, dim) if initial else None,
    }


def _log_inputs(random: Sampler, batch: int, time: int, dim: int, strongest: float = 3.0) -> dict:
    log_decay = random.uniform(batch, time, dim, low=-strongest, high=0.0)
    return {**_inputs(random, batch, time, dim), "decay": log_decay, "decay_is_log": True}


SPEC = OpSpec(
    function=linear_scan,
    backends=_BACKENDS,
    cases={
        "prime": lambda random: _inputs(random, 2, 7, 3),
        "one step": lambda random: _inputs(random, 1, 1, 5),
        "no initial state": lambda random: _inputs(random, 1, 63, 2, initial=False),
        "log decay": lambda random: _log_inputs(random, 1, 13, 3),
        "strong decay": lambda random: _log_inputs(random, 1, 6, 2, strongest=200.0),
        "no samples": lambda random: _inputs(random, 0, 4, 3),
    },
    large_cases={"long": lambda random: _inputs(random, 2, 157, 5)},
    benchmarks={
        "4x1024 dim 256": lambda random: _inputs(random, 4, 1024, 256),
        "1x4096 dim 512": lambda random: _inputs(random, 1, 4096, 512),
    },
    differentiable=("x", "decay", "initial_state"),
    float32=("initial_state",),
    floor=_floor,
    paper="Parallelizing Linear Recurrent Neural Nets Over Sequence Length, arXiv 1709.04057",
)
