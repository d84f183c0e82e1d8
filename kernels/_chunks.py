"""What recurrences over matrix states share: sequences cut into chunks, and the states at the borders of chunks.

Within a chunk a query meets the keys before it directly; all earlier keys it meets through the state before the chunk,

    S_{c+1} = exp(sum of g in chunk c) S_c + sum over t in chunk c of exp(sum of g after t) k_t v_t^T

where the log decay g is one number a head and step, or one for each channel of the key.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._runtime import (
    INTERPRETING,
    cdiv,
    dot_dtype,
    dot_precision,
    jit,
    next_power_of_2,
    operator,
    processor_count,
    tl,
)


def split_chunks(x: Tensor, length: int) -> Tensor:
    """(batch, time, heads, dim) to contiguous (batch, heads, chunks, length, dim), with zeros after the last step."""
    padded = F.pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % length))
    return padded.unflatten(2, (-1, length)).contiguous()


def join_chunks(x: Tensor, time: int) -> Tensor:
    """Undoes `split_chunks`."""
    return x.flatten(2, 3)[:, :, :time].transpose(1, 2)


def _states_fake(update: Tensor, decay: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    return update.new_empty(update.shape), state.new_empty(state.shape)


# An op of its own, so that a compiled graph does not hold a node for each chunk.
@operator("states_between_chunks", fake=_states_fake)
def states_between_chunks(update: Tensor, decay: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The state before each chunk and the state after all, S' = decay S + update chunk by chunk; differentiable.

    update (batch, heads, chunks, keys, values), decay to be broadcast to it, state (batch, heads, keys, values).
    `reverse` runs from the last chunk to the first, as gradients do: then each is the state after its chunk.
    """
    between, last = _states_fake(update, decay, state, reverse)
    updates, decays, borders = (tensor.unbind(2)[:: -1 if reverse else 1] for tensor in (update, decay, between))
    between.select(2, -1 if reverse else 0).copy_(state)
    for update_c, decay_c, border, following in zip(updates, decays, borders, (*borders[1:], last)):
        torch.addcmul(update_c, decay_c, border, out=following)
    return between, last


def _save_states(ctx, inputs, output):
    _, decay, _, ctx.reverse = inputs
    ctx.save_for_backward(decay, output[0])


def _states_gradient(ctx, grad_between, grad_last):
    decay, between = ctx.saved_tensors
    grad_update, grad_state = states_between_chunks(grad_between, decay, grad_last, not ctx.reverse)
    return grad_update, (grad_update * between).sum_to_size(decay.shape), grad_state, None


states_between_chunks.register_autograd(_states_gradient, setup_context=_save_states)


def chunk_length(time: int, longest: int) -> int:
    """The length of chunks: `longest`, or the next power of two for sequences that are shorter."""
    return min(longest, next_power_of_2(time))


def check_shapes(
    operation: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    decay_shapes: tuple[tuple[int, ...], ...],
    initial_state: Tensor | None,
    shared_keys: bool = False,
) -> None:
    """Raises ValueError, naming the tensor and the shape it must have; `shared_keys` allows one head for all values."""
    batch, time, heads, head_dim = query.shape
    if not time:
        raise ValueError(f"{operation}: query has shape {tuple(query.shape)}; it must have at least one time step")
    heads = value.shape[2] if heads == 1 and shared_keys else heads
    state = (batch, heads, head_dim, value.shape[-1])
    required = {
        "key": (key, (tuple(query.shape),)),
        "value": (value, ((batch, time, heads, value.shape[-1]),)),
        "log_decay": (log_decay, decay_shapes),
        "initial_state": (initial_state, (state,)),
    }
    for name, (tensor, shapes) in required.items():
        if tensor is not None and tuple(tensor.shape) not in shapes:
            raise ValueError(
                f"{operation}: {name} has shape {tuple(tensor.shape)}; for query of shape {tuple(query.shape)} it must "
                f"be {' or '.join(map(str, shapes))}"
            )


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def load_tile(pointer, row, row_stride, rows, column, columns):
    """The elements [row, column] of a matrix with unit stride along columns, zero outside."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(pointer + row[:, None] * row_stride + column[None, :], mask=inside, other=0.0)


@jit
def load_transposed(pointer, row, row_stride, rows, column, columns):
    """The same elements as [column, row]: transposed operands are loaded, never made from the result of a product."""
    inside = (column < columns)[:, None] & (row < rows)[None, :]
    return tl.load(pointer + row[None, :] * row_stride + column[:, None], mask=inside, other=0.0)


@jit
def store_tile(pointer, row, row_stride, rows, column, columns, tile):
    """Write a tile to the elements [row, column], in their dtype."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(pointer + row[:, None] * row_stride + column[None, :], tile.to(pointer.dtype.element_ty), mask=inside)


@jit(do_not_specialize=("time", "chunks"))
def _states_kernel(
    key_ptr, value_ptr, decay_ptr, initial_ptr, states_ptr, final_ptr, time, chunks, heads, key_dim, value_dim, scale,
    key_batch, key_time, key_head, value_batch, value_time, value_head, decay_batch, decay_time, decay_head,
    HAS_INITIAL: tl.constexpr, PER_CHANNEL: tl.constexpr, REVERSE: tl.constexpr, STATE_DOT: tl.constexpr,
    STATE_PRECISION: tl.constexpr, LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    sequence = tl.cast(tl.program_id(0), tl.int64)
    batch, head = sequence // heads, sequence % heads
    channel = tl.program_id(1) * KEYS + tl.arange(0, KEYS)
    column = tl.program_id(2) * VALUES + tl.arange(0, VALUES)
    position = tl.arange(0, LENGTH)
    key_ptr += batch * key_batch + head * key_head
    value_ptr += batch * value_batch + head * value_head
    decay_ptr += batch * decay_batch + head * decay_head

    state = tl.zeros([KEYS, VALUES], tl.float32)
    if HAS_INITIAL:
        initial_ptr += sequence * key_dim * value_dim
        state = load_tile(initial_ptr, channel, value_dim, key_dim, column, value_dim).to(tl.float32)

    for step in range(chunks):
        chunk = step
        if REVERSE:
            chunk = chunks - 1 - step
        border_ptr = states_ptr + (sequence * chunks + chunk) * key_dim * value_dim
        store_tile(border_ptr, channel, value_dim, key_dim, column, value_dim, state)

        # Rows go away from the border that the state moves to, so that sums of log decays are running sums and nothing
        # is subtracted: forward it decays by the gates after a row, backward by those up to and including the row.
        first = tl.cast(chunk, tl.int64) * LENGTH
        if REVERSE:
            row = first + position
            gate_row = row
            counts = row < time
        else:
            row = first + LENGTH - 1 - position
            gate_row = row + 1
            counts = (position > 0) & (gate_row < time)
        if PER_CHANNEL:
            gates = decay_ptr + gate_row[None, :] * decay_time + channel[:, None]
            gate = tl.load(gates, mask=counts[None, :] & (channel < key_dim)[:, None], other=0.0).to(tl.float32)
            total = tl.sum(gate, axis=1)
            if not REVERSE:
                total += tl.load(decay_ptr + first * decay_time + channel, mask=channel < key_dim, other=0.0).to(
                    tl.float32
                )
            weight = tl.exp(tl.cumsum(gate, axis=1))
            forget = tl.exp(total)[:, None]
        else:
            gate = tl.load(decay_ptr + gate_row * decay_time, mask=counts, other=0.0).to(tl.float32)
            total = tl.sum(gate, axis=0)
            if not REVERSE:
                total += tl.load(decay_ptr + first * decay_time).to(tl.float32)
            weight = tl.exp(tl.cumsum(gate, axis=0))[None, :]
            forget = tl.exp(total)

        key = load_transposed(key_ptr, row, key_time, time, channel, key_dim).to(tl.float32)
        value = load_tile(value_ptr, row, value_time, time, column, value_dim)
        key = (key * weight * scale).to(STATE_DOT)
        state = state * forget + tl.dot(key, value.to(STATE_DOT), input_precision=STATE_PRECISION)

    final_ptr += sequence * key_dim * value_dim
    store_tile(final_ptr, channel, value_dim, key_dim, column, value_dim, state)


def chunk_states(
    key: Tensor, value: Tensor, log_decay: Tensor, initial: Tensor | None, length: int, scale: float = 1.0,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The Triton form of `states_between_chunks`: (batch, heads, chunks, keys, values) and the last, in float32.

    Reversed, with queries for keys and the gradient of outputs for values, these are the gradients of the states after
    each chunk, and that of the initial state.
    """
    batch, time, heads, key_dim = key.shape
    value_dim, chunks = value.shape[-1], cdiv(time, length)
    states = key.new_empty((batch, heads, chunks, key_dim, value_dim), dtype=torch.float32)
    final = key.new_empty((batch, heads, key_dim, value_dim), dtype=torch.float32)
    # States run through the chunks one after another: more, smaller blocks of them where processors would be idle.
    few = batch * heads * cdiv(key_dim, 64) * cdiv(value_dim, 64) < processor_count(key.device)
    side = 32 if few else block_side(key.dtype)
    keys, values = dot_block(key_dim, side), dot_block(value_dim, side)
    _states_kernel[(batch * heads, cdiv(key_dim, keys), cdiv(value_dim, values))](
        key, value, log_decay, None if initial is None else initial.contiguous(), states, final,
        time, chunks, heads, key_dim, value_dim, scale, *key.stride()[:3], *value.stride()[:3], *log_decay.stride()[:3],
        HAS_INITIAL=initial is not None, PER_CHANNEL=log_decay.ndim == 4, REVERSE=reverse, LENGTH=length, KEYS=keys,
        VALUES=values, num_warps=4, num_stages=2, **state_dot(key.dtype),
    )  # fmt: skip
    return states, final


def block_side(dtype: torch.dtype | None = None) -> int:
    """The largest block of a product that fits into registers; one of float32 takes twice the room."""
    return 32 if dtype is torch.float32 else 64


def triton_chunk_length(dtype: torch.dtype | None = None) -> int:
    """The length of chunks; the interpreter gets several of them out of few steps."""
    return 16 if INTERPRETING else block_side(dtype)


def dot_block(dim: int, largest: int) -> int:
    """A block of a matrix product along `dim`: a power of two, 16 or more."""
    return min(largest, max(16, next_power_of_2(dim)))


def state_dot(dtype: torch.dtype) -> dict:
    """How to multiply states and what decays into them: both may leave the range of float16, not of TensorFloat-32,
    whose precision is the same."""
    if dtype is torch.float16:
        return {"STATE_DOT": tl.float32, "STATE_PRECISION": "tf32"}
    return {"STATE_DOT": dot_dtype(dtype), "STATE_PRECISION": dot_precision()}
