"""The sLSTM recurrence: an LSTM with an exponential input gate, a normalizer, and memory mixing within heads.

    i, f, z, o = x_t + h_{t-1} R + b                      per head: R is block-diagonal over the heads
    F   = log sigmoid(f)   or   f                         `forget_gate` "sigmoid" or "exponential"
    m_t = max(i, F + m_{t-1})                             keeps the exponentials at most 1
    c_t = exp(F + m_{t-1} - m_t) c_{t-1} + exp(i - m_t) tanh(z)
    n_t = exp(F + m_{t-1} - m_t) n_{t-1} + exp(i - m_t)
    h_t = sigmoid(o) c_t / n_t

Shapes: x (batch, time, 4, heads, head_dim), gates in the order i, f, z, o; R (heads, head_dim in, 4, head_dim out);
b (4, heads, head_dim) or None; h (batch, time, heads, head_dim); the states c, n, h, m (batch, heads, head_dim) each.

A sequence starts from c = n = h = 0 and m = -inf. One of the two exponentials is always 1, hence n_t >= 1 and the
quotient needs no floor. Where the n of a given state is 0, its m is read as -inf. Neither c_t e^{m_t} nor n_t e^{m_t}
depends on the stabilizer m, so neither does h, nor a gradient of h.

States and gates are float32 (float64 for float64 inputs) whatever the dtype of x, also under autocast; h_t has the
dtype of x, each gradient that of its input. The Triton kernels multiply h and R in the dtype of x.

Each step waits for the last, so chunks gain nothing. The torch form runs one batched matrix product and a dozen
pointwise operations a step, on buffers allocated once. Its backward has all coefficients of a block of steps computed
beforehand, so that a step is linear in the gradients, and the gradient of R is a single product over all steps. The
Triton form keeps a whole sequence in one program for each head and block of the batch.

Floor, for N = batch * time * heads * head_dim elements of e bytes: the forward reads 4Ne and writes Ne bytes, with
8 N head_dim + 30N flops; the backward reads 5Ne and writes 4Ne, with 16 N head_dim + 60N flops.

Paper: xLSTM: Extended Long Short-Term Memory, arXiv 2405.04517.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._runtime import Backends, cdiv, dot_dtype, dot_precision, jit, next_power_of_2, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes

MAX_TRITON_HEAD_DIM = 128  # a program holds, or reads at every step, the whole recurrent weight of its head
TRITON_RESIDENT_BYTES = 128 * 1024  # up to here it holds it
STEPS = 16  # the torch form prepares so many steps at once: their buffers stay in the cache


class SLSTMState(NamedTuple):
    """What the sLSTM remembers: c and n, both divided by e^m; the last output h; and m. In float32."""

    cell: Float[Tensor, "batch heads head_dim"]
    normalizer: Float[Tensor, "batch heads head_dim"]
    hidden: Float[Tensor, "batch heads head_dim"]
    stabilizer: Float[Tensor, "batch heads head_dim"]


def slstm_reference(
    x: Float[Tensor, "batch time 4 heads head_dim"],
    recurrent_weight: Float[Tensor, "heads head_dim 4 head_dim"],
    bias: Float[Tensor, "4 heads head_dim"] | None,
    initial_state: SLSTMState,
    forget_gate: str,
) -> tuple[Float[Tensor, "batch time heads head_dim"], SLSTMState]:
    cell, normalizer, hidden, stabilizer = initial_state
    weight, outputs = recurrent_weight.to(cell.dtype), []
    with torch.autocast(x.device.type, enabled=False):
        for inputs in x.to(cell.dtype).unbind(1):
            gates = inputs + torch.einsum("bhd,hdge->bghe", hidden, weight)
            if bias is not None:
                gates = gates + bias
            input_gate, forget, candidate, output_gate = gates.unbind(1)
            log_forget = F.logsigmoid(forget) if forget_gate == "sigmoid" else forget
            kept = log_forget + stabilizer
            stabilizer = torch.maximum(input_gate, kept)
            keep, write = torch.exp(kept - stabilizer), torch.exp(input_gate - stabilizer)
            cell = keep * cell + write * torch.tanh(candidate)
            normalizer = keep * normalizer + write
            hidden = torch.sigmoid(output_gate) * cell / normalizer
            outputs.append(hidden)
    y = torch.stack(outputs, 1).to(x.dtype) if outputs else x[:, :, 0]
    return y, SLSTMState(cell, normalizer, hidden, stabilizer)


# --- torch ------------------------------------------------------------------------------------------------------------
#
# Custom ops, and not plain operations, because a compiler finds nothing to fuse across steps and would take minutes
# over a graph of all of them. In the buffers heads come before batch, as the matrix products want them. `save` keeps
# what the backward needs; without it the buffers hold one block of steps and are used again.


def _buffers(x: Tensor, wide: torch.dtype, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """For the gates of each step, and for (c, n) and m before the first step and after each."""
    batch, _, _, heads, head_dim = x.shape
    return (
        x.new_empty((steps, heads, batch, 4, head_dim), dtype=wide),
        x.new_empty((steps + 1, 2, heads, batch, head_dim), dtype=wide),
        x.new_empty((steps + 1, heads, batch, head_dim), dtype=wide),
    )


def _copy(x: Tensor) -> Tensor:
    """A contiguous copy, for an op must not return views of what else it returns."""
    return x.clone(memory_format=torch.contiguous_format)


def _torch_fake(
    x: Tensor, recurrent_weight: Tensor, bias: Tensor | None, cell: Tensor, normalizer: Tensor, hidden: Tensor,
    stabilizer: Tensor, sigmoid: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, _, heads, head_dim = x.shape
    y = x.new_empty((heads, time, batch, head_dim)).permute(2, 1, 0, 3)
    saved = _buffers(x, cell.dtype, time) if save else [cell.new_empty(0) for _ in range(3)]
    return y, *(cell.new_empty(cell.shape) for _ in range(4)), *saved


@operator("slstm_torch", fake=_torch_fake)
def _torch_forward(
    x: Tensor, recurrent_weight: Tensor, bias: Tensor | None, cell: Tensor, normalizer: Tensor, hidden: Tensor,
    stabilizer: Tensor, sigmoid: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    time = x.shape[1]
    weight = recurrent_weight.to(cell.dtype).flatten(2)
    gates, sums, stabilizers = saved = _buffers(x, cell.dtype, time if save else min(time, STEPS))
    sums[0, 0], sums[0, 1], stabilizers[0] = (part.transpose(0, 1) for part in (cell, normalizer, stabilizer))
    hidden = hidden.transpose(0, 1)
    hiddens = hidden.new_empty((*hidden.shape[:1], time, *hidden.shape[1:]))
    keep = torch.empty_like(stabilizers[0])

    for start in range(0, time, STEPS):
        stop = min(time, start + STEPS)
        first, last = (start, stop) if save else (0, stop - start)
        gates[first:last] = x[:, start:stop].permute(1, 3, 0, 2, 4)
        if bias is not None:
            gates[first:last] += bias.transpose(0, 1).unsqueeze(1)
        views = (
            gates[first:last].flatten(3), *gates[first:last].unbind(3),
            *sums[first:last].unbind(1), stabilizers[first:last],
            *sums[first + 1 : last + 1].unbind(1), stabilizers[first + 1 : last + 1],
            hiddens[:, start:stop].transpose(0, 1),
        )  # fmt: skip
        for product, write, log_forget, candidate, output_gate, old_c, old_n, old_m, c, n, m, h in zip(
            *(view.unbind(0) for view in views)
        ):
            product.baddbmm_(hidden, weight)
            if sigmoid:
                F.softplus(log_forget, -1.0, out=log_forget)  # log sigmoid(f) is softplus with beta -1
            torch.add(log_forget, old_m, out=keep)
            torch.maximum(write, keep, out=m)
            keep.sub_(m).exp_()
            write.sub_(m).exp_()
            candidate.tanh_()
            output_gate.sigmoid_()
            torch.mul(candidate, write, out=c).addcmul_(keep, old_c)
            torch.addcmul(write, keep, old_n, out=n)
            torch.div(c, n, out=h).mul_(output_gate)
            hidden = h
        if not save:
            sums[0], stabilizers[0] = sums[last], stabilizers[last]

    end = time if save else 0
    state = (_copy(part.transpose(0, 1)) for part in (*sums[end], hidden, stabilizers[end]))
    if not save:
        saved = [cell.new_empty(0) for _ in range(3)]
    return hiddens.permute(2, 1, 0, 3).to(x.dtype), *state, *saved


def _torch_backward_fake(
    grad_y: Tensor | None, grad_cell: Tensor | None, grad_normalizer: Tensor | None, grad_hidden: Tensor | None,
    grad_stabilizer: Tensor | None, recurrent_weight: Tensor, bias: Tensor | None, hidden: Tensor, y: Tensor,
    gates: Tensor, sums: Tensor, stabilizers: Tensor, sigmoid: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    time, heads, batch, _, head_dim = gates.shape
    grad_x = y.new_empty((heads, time, batch, 4, head_dim)).permute(2, 1, 3, 0, 4)
    grad_bias = y.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    grad_state = (hidden.new_empty(hidden.shape) for _ in range(4))
    return grad_x, recurrent_weight.new_empty(recurrent_weight.shape), grad_bias, *grad_state


@operator("slstm_torch_backward", fake=_torch_backward_fake)
def _torch_backward(
    grad_y: Tensor | None, grad_cell: Tensor | None, grad_normalizer: Tensor | None, grad_hidden: Tensor | None,
    grad_stabilizer: Tensor | None, recurrent_weight: Tensor, bias: Tensor | None, hidden: Tensor, y: Tensor,
    gates: Tensor, sums: Tensor, stabilizers: Tensor, sigmoid: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    time, heads, batch, _, head_dim = gates.shape
    grad_gates = gates.new_empty((heads, time, batch, 4, head_dim))
    transposed = recurrent_weight.to(gates.dtype).flatten(2).mT.contiguous()  # as a view it takes four times as long
    hiddens = y.permute(2, 1, 0, 3).to(gates.dtype)
    grad_hiddens = None if grad_y is None else grad_y.permute(2, 1, 0, 3).to(gates.dtype)

    def at_end(grad: Tensor | None) -> Tensor:
        return torch.zeros_like(stabilizers[0]) if grad is None else _copy(grad.transpose(0, 1))

    grad_h, grad_sums = at_end(grad_hidden), torch.stack((at_end(grad_cell), at_end(grad_normalizer)))
    grad_c, grad_n = (grad.unsqueeze(2) for grad in grad_sums)
    # Because c e^m and n e^m do not depend on m, the gradient of m is what a loss of the final state puts on it, less
    # the share of c and n; it goes back unchanged to the step whose input gate set m. For a loss of h alone it is zero.
    grad_m = None
    if not (grad_cell is None and grad_normalizer is None and grad_stabilizer is None):
        grad_m = at_end(grad_stabilizer) - (sums[time] * grad_sums).sum(0)

    for start in reversed(range(0, time, STEPS)):
        stop = min(time, start + STEPS)
        write, log_forget, candidate, output_gate = gates[start:stop].unbind(3)
        old_c, old_n = sums[start:stop].unbind(1)
        h = hiddens[:, start:stop].transpose(0, 1)
        keep = torch.exp(log_forget + stabilizers[start:stop] - stabilizers[start + 1 : stop + 1])
        slope = -torch.expm1(log_forget) if sigmoid else torch.ones_like(keep)  # of log_forget in f
        # The gates' gradients are these multiples of those of c and n, and of h; the last of h reach c and n by `of_h`.
        of_c = torch.stack((write * candidate, keep * slope * old_c, write * (1 - candidate.square())), 3)
        of_n = torch.stack((write, keep * slope * old_n), 3)
        of_h = torch.stack((output_gate, -h), 1) / sums[start + 1 : stop + 1, 1:]
        to_output = h * (1 - output_gate)
        views = [grad_gates[:, start:stop].transpose(0, 1), of_c, of_n, of_h, to_output, keep]
        if grad_m is not None:
            from_forget = (torch.sign(keep - write) + 1) / 2  # the larger of the two is 1; a tie is shared
            views += [from_forget, torch.stack((1 - from_forget, from_forget * slope), 3)]
        steps = list(zip(*(view.unbind(0) for view in views)))
        for step in reversed(range(stop - start)):
            grad_gate, of_c, of_n, of_h, to_output, keep, *of_m = steps[step]
            if grad_hiddens is not None:
                grad_h += grad_hiddens[:, start + step]
            grad_sums.addcmul_(grad_h, of_h)
            torch.mul(grad_c, of_c, out=grad_gate[:, :, :3])
            grad_gate[:, :, :2].addcmul_(grad_n, of_n)
            torch.mul(grad_h, to_output, out=grad_gate[:, :, 3])
            if of_m:
                grad_gate[:, :, :2].addcmul_(grad_m.unsqueeze(2), of_m[1])
                grad_m *= of_m[0]
            grad_sums *= keep
            torch.bmm(grad_gate.flatten(2), transposed, out=grad_h)

    grad_stabilizer = (sums[0] * grad_sums).sum(0)
    if grad_m is not None:
        grad_stabilizer += grad_m
    grad_weight = gates.new_zeros((heads, head_dim, 4 * head_dim))
    for before, after in (
        (hidden.transpose(0, 1).unsqueeze(1), grad_gates[:, :1]),
        (hiddens[:, :-1], grad_gates[:, 1:]),
    ):
        grad_weight.baddbmm_(before[:, : after.shape[1]].flatten(1, 2).mT, after.flatten(1, 2).flatten(2))
    grad_bias = y.new_empty(0) if bias is None else grad_gates.sum((1, 2)).transpose(0, 1).contiguous().to(bias.dtype)
    return (
        grad_gates.permute(2, 1, 3, 0, 4).to(y.dtype),
        grad_weight.unflatten(2, (4, head_dim)).to(recurrent_weight.dtype),
        grad_bias,
        *(_copy(grad.transpose(0, 1)) for grad in (*grad_sums, grad_h, grad_stabilizer)),
    )


def _save_for_backward(ctx, inputs, output):
    _, recurrent_weight, bias, _, _, hidden, _, ctx.sigmoid, _ = inputs
    y, _, _, _, _, *saved = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(recurrent_weight, bias, hidden, y, *saved)


def _gradient_by(backward):
    def gradient(ctx, grad_y, grad_cell, grad_normalizer, grad_hidden, grad_stabilizer, *_):
        saved = ctx.saved_tensors
        grads = backward(grad_y, grad_cell, grad_normalizer, grad_hidden, grad_stabilizer, *saved, ctx.sigmoid)
        grad_x, grad_weight, grad_bias, *grad_state = grads
        bias = saved[1]
        return grad_x, grad_weight, None if bias is None else grad_bias, *grad_state, None, None

    return gradient


_torch_forward.register_autograd(_gradient_by(_torch_backward), setup_context=_save_for_backward)


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _run(op, x: Tensor, weight: Tensor, bias: Tensor | None, state: SLSTMState, forget_gate: str):
    save = _needs_gradient(x, weight, bias, *state)
    y, cell, normalizer, hidden, stabilizer, *_ = op(x, weight, bias, *state, forget_gate == "sigmoid", save)
    return y, SLSTMState(cell, normalizer, hidden, stabilizer)


def slstm_torch(
    x: Float[Tensor, "batch time 4 heads head_dim"],
    recurrent_weight: Float[Tensor, "heads head_dim 4 head_dim"],
    bias: Float[Tensor, "4 heads head_dim"] | None,
    initial_state: SLSTMState,
    forget_gate: str,
) -> tuple[Float[Tensor, "batch time heads head_dim"], SLSTMState]:
    return _run(_torch_forward, x, recurrent_weight, bias, initial_state, forget_gate)


# --- Triton -----------------------------------------------------------------------------------------------------------
#
# One program per head and ROWS of the batch. RESIDENT loads the four tiles of the recurrent weight before the loop over
# time; where they do not fit beside the states, each step reads them from the cache again.


@jit
def _tile(pointer, offset, inside, gate: tl.constexpr, gate_stride, DOT: tl.constexpr):
    return tl.load(pointer + offset + gate * gate_stride, mask=inside, other=0.0).to(DOT)


@jit(do_not_specialize=["batch", "time"])
def _forward_kernel(
    x_ptr, weight_ptr, bias_ptr, state_ptr, y_ptr, final_ptr, gates_ptr, states_ptr, batch, time, heads, head_dim,
    x_batch, x_time, x_gate, x_head,
    HAS_BIAS: tl.constexpr, SIGMOID: tl.constexpr, SAVE: tl.constexpr, RESIDENT: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    head = tl.cast(tl.program_id(1), tl.int64)
    row = tl.cast(tl.program_id(0), tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < batch) & (column < head_dim)
    dim = tl.cast(heads, tl.int64) * head_dim
    place = head * head_dim + column  # in (heads, head_dim)
    state_size = batch * dim
    states_size = state_size * (time + 1)

    c = tl.load(state_ptr + row * dim + place, mask=inside, other=0.0)
    n = tl.load(state_ptr + state_size + row * dim + place, mask=inside, other=1.0)
    h = tl.load(state_ptr + 2 * state_size + row * dim + place, mask=inside, other=0.0)
    m = tl.load(state_ptr + 3 * state_size + row * dim + place, mask=inside, other=0.0)

    inner = tl.arange(0, COLUMNS)[:, None]
    square = (inner < head_dim) & (column < head_dim)
    weight_at = (head * head_dim + inner) * 4 * head_dim + column
    if RESIDENT:
        weight_i = _tile(weight_ptr, weight_at, square, 0, head_dim, DOT)
        weight_f = _tile(weight_ptr, weight_at, square, 1, head_dim, DOT)
        weight_z = _tile(weight_ptr, weight_at, square, 2, head_dim, DOT)
        weight_o = _tile(weight_ptr, weight_at, square, 3, head_dim, DOT)

    x_at = x_ptr + row * x_batch + head * x_head + column
    y_at = y_ptr + row * time * dim + place
    gates_at = gates_ptr + row * time * 4 * dim + place
    states_at = states_ptr + row * (time + 1) * dim + place
    for _ in range(time):
        if SAVE:
            tl.store(states_at, c, mask=inside)
            tl.store(states_at + states_size, n, mask=inside)
            tl.store(states_at + 2 * states_size, m, mask=inside)
            states_at += dim
        hidden = h.to(DOT)
        i = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
        f = tl.load(x_at + x_gate, mask=inside, other=0.0).to(tl.float32)
        z = tl.load(x_at + 2 * x_gate, mask=inside, other=0.0).to(tl.float32)
        o = tl.load(x_at + 3 * x_gate, mask=inside, other=0.0).to(tl.float32)
        if HAS_BIAS:
            i += tl.load(bias_ptr + place, mask=column < head_dim, other=0.0).to(tl.float32)
            f += tl.load(bias_ptr + dim + place, mask=column < head_dim, other=0.0).to(tl.float32)
            z += tl.load(bias_ptr + 2 * dim + place, mask=column < head_dim, other=0.0).to(tl.float32)
            o += tl.load(bias_ptr + 3 * dim + place, mask=column < head_dim, other=0.0).to(tl.float32)
        if not RESIDENT:
            weight_i = _tile(weight_ptr, weight_at, square, 0, head_dim, DOT)
        i += tl.dot(hidden, weight_i, input_precision=PRECISION)
        if not RESIDENT:
            weight_f = _tile(weight_ptr, weight_at, square, 1, head_dim, DOT)
        f += tl.dot(hidden, weight_f, input_precision=PRECISION)
        if not RESIDENT:
            weight_z = _tile(weight_ptr, weight_at, square, 2, head_dim, DOT)
        z += tl.dot(hidden, weight_z, input_precision=PRECISION)
        if not RESIDENT:
            weight_o = _tile(weight_ptr, weight_at, square, 3, head_dim, DOT)
        o += tl.dot(hidden, weight_o, input_precision=PRECISION)
        if SAVE:
            tl.store(gates_at, i, mask=inside)
            tl.store(gates_at + dim, f, mask=inside)
            tl.store(gates_at + 2 * dim, z, mask=inside)
            tl.store(gates_at + 3 * dim, o, mask=inside)
            gates_at += 4 * dim

        kept = f + m
        if SIGMOID:
            kept = tl.minimum(f, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(f))) + m
        m = tl.maximum(i, kept)
        keep = tl.exp(kept - m)
        write = tl.exp(i - m)
        c = keep * c + write * (2.0 * tl.sigmoid(2.0 * z) - 1.0)
        n = keep * n + write
        h = tl.sigmoid(o) * c / n
        tl.store(y_at, h.to(y_ptr.dtype.element_ty), mask=inside)
        x_at += x_time
        y_at += dim

    if SAVE:
        tl.store(states_at, c, mask=inside)
        tl.store(states_at + states_size, n, mask=inside)
        tl.store(states_at + 2 * states_size, m, mask=inside)
    tl.store(final_ptr + row * dim + place, c, mask=inside)
    tl.store(final_ptr + state_size + row * dim + place, n, mask=inside)
    tl.store(final_ptr + 2 * state_size + row * dim + place, h, mask=inside)
    tl.store(final_ptr + 3 * state_size + row * dim + place, m, mask=inside)


@jit(do_not_specialize=["batch", "time"])
def _backward_kernel(
    grad_y_ptr, grad_final_ptr, weight_ptr, gates_ptr, states_ptr, grad_x_ptr, grad_state_ptr,
    batch, time, heads, head_dim, grad_batch, grad_time, grad_head,
    SIGMOID: tl.constexpr, RESIDENT: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    head = tl.cast(tl.program_id(1), tl.int64)
    row = tl.cast(tl.program_id(0), tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < batch) & (column < head_dim)
    dim = tl.cast(heads, tl.int64) * head_dim
    place = head * head_dim + column
    state_size = batch * dim
    states_size = state_size * (time + 1)

    inner = tl.arange(0, COLUMNS)[:, None]  # here along the outputs: the tiles are read transposed
    square = (inner < head_dim) & (column < head_dim)
    weight_at = (head * head_dim + column) * 4 * head_dim + inner
    if RESIDENT:
        weight_i = _tile(weight_ptr, weight_at, square, 0, head_dim, DOT)
        weight_f = _tile(weight_ptr, weight_at, square, 1, head_dim, DOT)
        weight_z = _tile(weight_ptr, weight_at, square, 2, head_dim, DOT)
        weight_o = _tile(weight_ptr, weight_at, square, 3, head_dim, DOT)

    grad_y_at = grad_y_ptr + row * grad_batch + tl.cast(time - 1, tl.int64) * grad_time + head * grad_head + column
    gates_at = gates_ptr + (row * time + time - 1) * 4 * dim + place
    grad_x_at = grad_x_ptr + (row * time + time - 1) * 4 * dim + place
    states_at = states_ptr + (row * (time + 1) + time) * dim + place
    c = tl.load(states_at, mask=inside, other=0.0)
    n = tl.load(states_at + states_size, mask=inside, other=1.0)
    m = tl.load(states_at + 2 * states_size, mask=inside, other=0.0)
    grad_c = tl.load(grad_final_ptr + row * dim + place, mask=inside, other=0.0)
    grad_n = tl.load(grad_final_ptr + state_size + row * dim + place, mask=inside, other=0.0)
    grad_h = tl.load(grad_final_ptr + 2 * state_size + row * dim + place, mask=inside, other=0.0)
    grad_m = tl.load(grad_final_ptr + 3 * state_size + row * dim + place, mask=inside, other=0.0)
    grad_m -= c * grad_c + n * grad_n  # as in the torch form, and zero for losses of h alone

    for _ in range(time):
        states_at -= dim
        old_c = tl.load(states_at, mask=inside, other=0.0)
        old_n = tl.load(states_at + states_size, mask=inside, other=1.0)
        old_m = tl.load(states_at + 2 * states_size, mask=inside, other=0.0)
        i = tl.load(gates_at, mask=inside, other=0.0)
        f = tl.load(gates_at + dim, mask=inside, other=0.0)
        candidate = 2.0 * tl.sigmoid(2.0 * tl.load(gates_at + 2 * dim, mask=inside, other=0.0)) - 1.0
        output_gate = tl.sigmoid(tl.load(gates_at + 3 * dim, mask=inside, other=0.0))
        kept = f + old_m
        slope = tl.full([ROWS, COLUMNS], 1.0, tl.float32)
        if SIGMOID:
            kept = tl.minimum(f, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(f))) + old_m
            slope = tl.sigmoid(-f)
        keep = tl.exp(kept - m)
        write = tl.exp(i - m)

        grad_h += tl.load(grad_y_at, mask=inside, other=0.0).to(tl.float32)
        quotient = c / n
        share = grad_h * output_gate / n
        grad_c += share
        grad_n -= share * quotient
        from_forget = tl.where(kept > i, 1.0, tl.where(kept == i, 0.5, 0.0))
        grad_i = write * (grad_c * candidate + grad_n) + grad_m * (1.0 - from_forget)
        grad_f = (keep * (grad_c * old_c + grad_n * old_n) + grad_m * from_forget) * slope
        grad_z = grad_c * write * (1.0 - candidate * candidate)
        grad_o = grad_h * quotient * output_gate * (1.0 - output_gate)
        tl.store(grad_x_at, grad_i.to(grad_x_ptr.dtype.element_ty), mask=inside)
        tl.store(grad_x_at + dim, grad_f.to(grad_x_ptr.dtype.element_ty), mask=inside)
        tl.store(grad_x_at + 2 * dim, grad_z.to(grad_x_ptr.dtype.element_ty), mask=inside)
        tl.store(grad_x_at + 3 * dim, grad_o.to(grad_x_ptr.dtype.element_ty), mask=inside)

        if not RESIDENT:
            weight_i = _tile(weight_ptr, weight_at, square, 0, head_dim, DOT)
        grad_h = tl.dot(grad_i.to(DOT), weight_i, input_precision=PRECISION)
        if not RESIDENT:
            weight_f = _tile(weight_ptr, weight_at, square, 1, head_dim, DOT)
        grad_h += tl.dot(grad_f.to(DOT), weight_f, input_precision=PRECISION)
        if not RESIDENT:
            weight_z = _tile(weight_ptr, weight_at, square, 2, head_dim, DOT)
        grad_h += tl.dot(grad_z.to(DOT), weight_z, input_precision=PRECISION)
        if not RESIDENT:
            weight_o = _tile(weight_ptr, weight_at, square, 3, head_dim, DOT)
        grad_h += tl.dot(grad_o.to(DOT), weight_o, input_precision=PRECISION)
        grad_c *= keep
        grad_n *= keep
        grad_m *= from_forget
        c, n, m = old_c, old_n, old_m
        grad_y_at -= grad_time
        gates_at -= 4 * dim
        grad_x_at -= 4 * dim

    grad_m += c * grad_c + n * grad_n
    tl.store(grad_state_ptr + row * dim + place, grad_c, mask=inside)
    tl.store(grad_state_ptr + state_size + row * dim + place, grad_n, mask=inside)
    tl.store(grad_state_ptr + 2 * state_size + row * dim + place, grad_h, mask=inside)
    tl.store(grad_state_ptr + 3 * state_size + row * dim + place, grad_m, mask=inside)


def _settings(head_dim: int, dtype: torch.dtype) -> dict:
    """16 rows, the least that `tl.dot` takes: more programs, and a step as short as it can be. Nothing is loaded ahead
    of its step, for beside the weight there is no room for more."""
    columns = max(16, next_power_of_2(head_dim))
    resident = 4 * columns * columns * dtype.itemsize <= TRITON_RESIDENT_BYTES
    return {
        "RESIDENT": resident, "DOT": dot_dtype(dtype), "PRECISION": dot_precision(), "ROWS": 16, "COLUMNS": columns,
        "num_warps": 4 if columns * dtype.itemsize <= 128 else 8, "num_stages": 1,
    }  # fmt: skip


def _unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _triton_fake(
    x: Tensor, recurrent_weight: Tensor, bias: Tensor | None, cell: Tensor, normalizer: Tensor, hidden: Tensor,
    stabilizer: Tensor, sigmoid: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, _, heads, head_dim = x.shape
    y = x.new_empty((batch, time, heads, head_dim))
    gates = x.new_empty((batch, time, 4, heads, head_dim) if save else (0,), dtype=torch.float32)
    states = x.new_empty((3, batch, time + 1, heads, head_dim) if save else (0,), dtype=torch.float32)
    return y, *(cell.new_empty(cell.shape) for _ in range(4)), gates, states


@operator("slstm", fake=_triton_fake)
def _triton_forward(
    x: Tensor, recurrent_weight: Tensor, bias: Tensor | None, cell: Tensor, normalizer: Tensor, hidden: Tensor,
    stabilizer: Tensor, sigmoid: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, _, heads, head_dim = x.shape
    y, *_, gates, states = _triton_fake(x, recurrent_weight, bias, cell, normalizer, hidden, stabilizer, sigmoid, save)
    state = torch.stack((cell, normalizer, hidden, stabilizer))
    final = torch.empty_like(state)
    x = _unit_stride(x)
    if final.numel():
        settings = _settings(head_dim, x.dtype)
        _forward_kernel[(cdiv(batch, settings["ROWS"]), heads)](
            x, recurrent_weight.to(x.dtype).contiguous(), None if bias is None else bias.contiguous(), state, y, final,
            gates, states, batch, time, heads, head_dim, *x.stride()[:4],
            HAS_BIAS=bias is not None, SIGMOID=sigmoid, SAVE=save, **settings,
        )  # fmt: skip
    return y, *(part.clone() for part in final), gates, states


def _triton_backward_fake(
    grad_y: Tensor | None, grad_cell: Tensor | None, grad_normalizer: Tensor | None, grad_hidden: Tensor | None,
    grad_stabilizer: Tensor | None, recurrent_weight: Tensor, bias: Tensor | None, hidden: Tensor, y: Tensor,
    gates: Tensor, states: Tensor, sigmoid: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_bias = y.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    grad_state = (hidden.new_empty(hidden.shape) for _ in range(4))
    return (
        gates.new_empty(gates.shape, dtype=y.dtype), recurrent_weight.new_empty(recurrent_weight.shape), grad_bias,
        *grad_state,
    )  # fmt: skip


@operator("slstm_backward", fake=_triton_backward_fake)
def _triton_backward(
    grad_y: Tensor | None, grad_cell: Tensor | None, grad_normalizer: Tensor | None, grad_hidden: Tensor | None,
    grad_stabilizer: Tensor | None, recurrent_weight: Tensor, bias: Tensor | None, hidden: Tensor, y: Tensor,
    gates: Tensor, states: Tensor, sigmoid: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, _, heads, head_dim = gates.shape
    grad_x = gates.new_empty(gates.shape, dtype=y.dtype)
    grads = (grad_cell, grad_normalizer, grad_hidden, grad_stabilizer)
    grad_final = torch.stack([torch.zeros_like(hidden) if grad is None else grad for grad in grads])
    grad_state = torch.empty_like(grad_final)
    grad_y = torch.zeros_like(y) if grad_y is None else _unit_stride(grad_y)
    weight = recurrent_weight.to(y.dtype).contiguous()
    if grad_final.numel():
        settings = _settings(head_dim, y.dtype)
        _backward_kernel[(cdiv(batch, settings["ROWS"]), heads)](
            grad_y, grad_final, weight, gates, states, grad_x, grad_state, batch, time, heads, head_dim,
            *grad_y.stride()[:3], SIGMOID=sigmoid, **settings,
        )  # fmt: skip
    before = torch.cat((hidden.unsqueeze(1).to(y.dtype), y[:, :-1]), 1)[:, :time].permute(2, 3, 0, 1).flatten(2)
    with torch.autocast(y.device.type, enabled=False):
        grad_weight = before @ grad_x.permute(3, 0, 1, 2, 4).flatten(1, 2).flatten(2)
    grad_bias = y.new_empty(0) if bias is None else grad_x.sum((0, 1), dtype=torch.float32).to(bias.dtype)
    grad_weight = grad_weight.unflatten(2, (4, head_dim)).to(recurrent_weight.dtype)
    return grad_x, grad_weight, grad_bias, *(part.clone() for part in grad_state)


_triton_forward.register_autograd(_gradient_by(_triton_backward), setup_context=_save_for_backward)


def _slstm_triton(
    x: Tensor, recurrent_weight: Tensor, bias: Tensor | None, initial_state: SLSTMState, forget_gate: str
) -> tuple[Tensor, SLSTMState]:
    return _run(_triton_forward, x, recurrent_weight, bias, initial_state, forget_gate)


def _triton_refuses(x: Tensor, *_, **__) -> str | None:
    if x.shape[-1] > MAX_TRITON_HEAD_DIM:
        return f"head_dim {x.shape[-1]} is larger than {MAX_TRITON_HEAD_DIM}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("slstm", slstm_reference, slstm_torch, _slstm_triton, _triton_refuses)


def slstm(
    x: Float[Tensor, "batch time 4 heads head_dim"],
    recurrent_weight: Float[Tensor, "heads head_dim 4 head_dim"],
    bias: Float[Tensor, "4 heads head_dim"] | None = None,
    initial_state: SLSTMState | None = None,
    forget_gate: str = "sigmoid",
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time heads head_dim"], SLSTMState]:
    """The sLSTM recurrence on gate pre-activations i, f, z, o: h_t = sigmoid(o) c_t / n_t with exponential gates.

    With i, f, z, o = x_t + h_{t-1} R + b per head, c and n decay by exp(F) and gain exp(i) tanh(z) and exp(i); F is
    log sigmoid(f) or, for `forget_gate="exponential"`, f. A stabilizer m keeps the exponentials at most 1.

    x (batch, time, 4, heads, head_dim); recurrent_weight R (heads, head_dim, 4, head_dim), from h to the gates; bias b
    (4, heads, head_dim) or None; initial_state (c, n, h, m), each (batch, heads, head_dim), or None. Returns h (batch,
    time, heads, head_dim) in the dtype of x, and the state after the last step in float32. Raises ValueError for shapes
    that do not fit, an unknown forget gate, or a backend that cannot serve the call.

    xLSTM: Extended Long Short-Term Memory, arXiv 2405.04517.
    """
    if x.dim() != 5 or x.shape[2] != 4:
        raise ValueError(f"slstm: x must be (batch, time, 4, heads, head_dim); it is {tuple(x.shape)}")
    batch, _, _, heads, head_dim = x.shape
    if recurrent_weight.shape != (heads, head_dim, 4, head_dim):
        raise ValueError(
            f"slstm: x {tuple(x.shape)} needs recurrent_weight {(heads, head_dim, 4, head_dim)}, from each head to its "
            f"four gates; it is {tuple(recurrent_weight.shape)}"
        )
    if bias is not None and bias.shape != (4, heads, head_dim):
        raise ValueError(f"slstm: x {tuple(x.shape)} needs bias {(4, heads, head_dim)}; it is {tuple(bias.shape)}")
    if forget_gate not in ("sigmoid", "exponential"):
        raise ValueError(f"slstm: forget_gate is 'sigmoid' or 'exponential', not {forget_gate!r}")
    wide = torch.promote_types(x.dtype, torch.float32)
    if initial_state is None:
        zero = x.new_zeros((batch, heads, head_dim), dtype=wide)
        state = SLSTMState(zero, zero, zero, torch.full_like(zero, -torch.inf))
    else:
        for name, part in zip(SLSTMState._fields, initial_state):
            if part.shape != (batch, heads, head_dim):
                raise ValueError(
                    f"slstm: the state's {name} must be {(batch, heads, head_dim)}; it is {tuple(part.shape)}"
                )
        cell, normalizer, hidden, stabilizer = (part.to(wide) for part in initial_state)
        state = SLSTMState(cell, normalizer, hidden, stabilizer.masked_fill(normalizer == 0, -torch.inf))
    run = _BACKENDS.select(backend, x, recurrent_weight, bias, *state)
    return run(x, recurrent_weight, bias, state, forget_gate)


def _floor(x: Tensor, recurrent_weight: Tensor, **_) -> tuple[Cost, Cost]:
    products, hidden = 2 * x.numel() * x.shape[-1], x.numel() // 4
    moved = size_in_bytes(x, recurrent_weight)
    one = moved // 4 if x.numel() else 0
    return Cost(moved + one, products + 30 * hidden), Cost(2 * moved + one, 2 * products + 60 * hidden)


def _inputs(
    random: Sampler, batch: int, time: int, heads: int, head_dim: int, *, state: bool = False, bias: bool = True
) -> dict:
    def part() -> Tensor:
        return random.normal(batch, heads, head_dim)

    return {
        "x": random.normal(batch, time, 4, heads, head_dim),
        "recurrent_weight": random.normal(heads, head_dim, 4, head_dim, scale=0.5 / head_dim**0.5),
        "bias": random.normal(4, heads, head_dim) if bias else None,
        "initial_state": SLSTMState(part(), part().exp(), part().tanh(), part()) if state else None,
    }


def _extreme(random: Sampler) -> dict:
    """Gates of +-100: steps that keep all, forget all, or write nothing; never the last two together, for then the
    stabilizer is near -100, of which float32 does not know six digits behind the point."""
    inputs = _inputs(random, 2, 7, 1, 5, state=True)
    input_gate, forget, candidate, output_gate = inputs["x"].unbind(2)
    input_gate = torch.where((input_gate < -1) & (forget > -1), -100.0, input_gate)
    others = [torch.where(gate.abs() > 1, 100 * gate.sign(), gate) for gate in (forget, candidate, output_gate)]
    return {**inputs, "x": torch.stack((input_gate, *others), 2)}


SPEC = OpSpec(
    function=slstm,
    backends=_BACKENDS,
    cases={
        "one step": lambda random: _inputs(random, 1, 1, 1, 3, state=True),
        "prime": lambda random: _inputs(random, 3, 5, 2, 7, state=True),
        "no state": lambda random: _inputs(random, 2, 3, 1, 17, bias=False),
        "exponential": lambda random: {**_inputs(random, 1, 4, 2, 3, state=True), "forget_gate": "exponential"},
        "extreme gates": _extreme,
        "no steps": lambda random: _inputs(random, 2, 0, 1, 3, state=True),
        "no samples": lambda random: _inputs(random, 0, 3, 1, 3),
    },
    large_cases={
        "several blocks": lambda random: _inputs(random, 3, 63, 2, 33, state=True),
        "long": lambda random: _inputs(random, 1, 301, 1, 16),
    },
    benchmarks={
        "batch 16, 64 steps, 4 heads of 128": lambda random: _inputs(random, 16, 64, 4, 128),
        "one sample, 64 steps, 4 heads of 128": lambda random: _inputs(random, 1, 64, 4, 128),
    },
    differentiable=("x", "recurrent_weight", "bias", "initial_state"),
    floor=_floor,
    paper="xLSTM: Extended Long Short-Term Memory, arXiv 2405.04517",
    float32=("initial_state",),
)
