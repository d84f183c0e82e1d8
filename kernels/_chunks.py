"""What recurrences over matrix states share: sequences cut into chunks, and the states at the borders of chunks.

Within a chunk a query meets the keys before it directly; all earlier keys it meets through the state before the chunk,

    S_{c+1} = exp(sum of g in chunk c) S_c + sum over t in chunk c of exp(sum of g after t) k_t v_t^T

where the log decay g is one number a head and step, or one for each channel of the key.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._runtime import INTERPRETING, cdiv, dot_dtype, dot_precision, jit, next_power_of_2, processor_count, tl
from .linear_scan import scan


def split_chunks(x: Tensor, length: int) -> Tensor:
    """(batch, time, heads, dim) to contiguous (batch, heads, chunks, length, dim), with zeros after the last step."""
    padded = F.pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % length))
    return padded.unflatten(2, (-1, length)).contiguous()


def join_chunks(x: Tensor, time: int) -> Tensor:
    """Undoes `split_chunks`."""
    return x.flatten(2, 3)[:, :, :time].transpose(1, 2)


def states_between_chunks(
    update: Tensor, decay: Tensor, state: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """The state before each chunk and the state after all, from update and decay (batch, heads, chunks, keys, values).

    `reverse` runs from the last chunk to the first, as gradients do: then each is the state after its chunk.
    """
    batch, heads = update.shape[:2]
    state = state.flatten(0, 1)
    states = scan(update.flatten(0, 1), decay.expand_as(update).flatten(0, 1), state, reverse)
    border = state.unsqueeze(1)
    between = torch.cat((states[:, 1:], border) if reverse else (border, states[:, :-1]), 1)
    # The last one is copied, so that a state kept for later does not keep all of them in memory.
    return between.unflatten(0, (batch, heads)), states[:, 0 if reverse else -1].clone().unflatten(0, (batch, heads))


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
) -> None:
    """Raises ValueError, naming the tensor and the shape it must have."""
    batch, time, heads, head_dim = query.shape
    if not time:
        raise ValueError(f"{operation}: query has shape {tuple(query.shape)}; it must have at least one time step")
    state = (batch, heads, head_dim, value.shape[-1])
    required = {
        "key": (key, (tuple(query.shape),)),
        "value": (value, ((*query.shape[:3], value.shape[-1]),)),
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


@jit(do_not_specialize=("time", "chunks"))
def _states_kernel(
    key_ptr, value_ptr, decay_ptr, initial_ptr, states_ptr, final_ptr, time, chunks, heads, key_dim, value_dim, scale,
    key_batch, key_time, key_head, value_batch, value_time, value_head, decay_batch, decay_time, decay_head,
    HAS_INITIAL: tl.constexpr, PER_CHANNEL: tl.constexpr, REVERSE: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr, LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    sequence = tl.cast(tl.program_id(0), tl.int64)
    batch, head = sequence // heads, sequence % heads
    channel = tl.program_id(1) * KEYS + tl.arange(0, KEYS)
    column = tl.program_id(2) * VALUES + tl.arange(0, VALUES)
    position = tl.arange(0, LENGTH)
    inside_state = (channel < key_dim)[:, None] & (column < value_dim)[None, :]
    place = channel[:, None] * value_dim + column[None, :]
    key_ptr += batch * key_batch + head * key_head
    value_ptr += batch * value_batch + head * value_head
    decay_ptr += batch * decay_batch + head * decay_head

    state = tl.zeros([KEYS, VALUES], tl.float32)
    if HAS_INITIAL:
        initial = initial_ptr + sequence * key_dim * value_dim + place
        state = tl.load(initial, mask=inside_state, other=0.0).to(tl.float32)

    for step in range(0, chunks):
        chunk = step
        if REVERSE:
            chunk = chunks - 1 - step
        tl.store(states_ptr + (sequence * chunks + chunk) * key_dim * value_dim + place, state, mask=inside_state)

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
                total += tl.load(decay_ptr + first * decay_time + channel, mask=channel < key_dim, other=0.0).to(tl.float32)
            weight = tl.exp(tl.cumsum(gate, axis=1))
            forget = tl.exp(total)[:, None]
        else:
            gate = tl.load(decay_ptr + gate_row * decay_time, mask=counts, other=0.0).to(tl.float32)
            total = tl.sum(gate, axis=0)
            if not REVERSE:
                total += tl.load(decay_ptr + first * decay_time).to(tl.float32)
            weight = tl.exp(tl.cumsum(gate, axis=0))[None, :]
            forget = tl.exp(total)

        keys = key_ptr + row[None, :] * key_time + channel[:, None]
        key = tl.load(keys, mask=(row < time)[None, :] & (channel < key_dim)[:, None], other=0.0).to(tl.float32)
        values = value_ptr + row[:, None] * value_time + column[None, :]
        value = tl.load(values, mask=(row < time)[:, None] & (column < value_dim)[None, :], other=0.0)
        update = tl.dot((key * weight * scale).to(DOT), value.to(tl.float32).to(DOT), input_precision=PRECISION)
        state = state * forget + update

    tl.store(final_ptr + sequence * key_dim * value_dim + place, state, mask=inside_state)


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
    block = 64 if batch * heads * cdiv(key_dim, 64) * cdiv(value_dim, 64) >= processor_count(key.device) else 32
    keys, values = dot_block(key_dim, block), dot_block(value_dim, block)
    _states_kernel[(batch * heads, cdiv(key_dim, keys), cdiv(value_dim, values))](
        key, value, log_decay, None if initial is None else initial.contiguous(), states, final,
        time, chunks, heads, key_dim, value_dim, scale, *key.stride()[:3], *value.stride()[:3], *log_decay.stride()[:3],
        HAS_INITIAL=initial is not None, PER_CHANNEL=log_decay.ndim == 4, REVERSE=reverse, DOT=dot_dtype(key.dtype),
        PRECISION=dot_precision(), LENGTH=length, KEYS=keys, VALUES=values, num_warps=4, num_stages=2,
    )  # fmt: skip
    return states, final


def triton_chunk_length() -> int:
    """64 steps, as large as registers allow; the interpreter gets several chunks out of few steps."""
    return 16 if INTERPRETING else 64


def dot_block(dim: int, largest: int) -> int:
    """A block of a matrix product along `dim`: a power of two, 16 or more."""
    return min(largest, max(16, next_power_of_2(dim)))


def state_dot(dtype: torch.dtype) -> dict:
    """How to multiply states: they may outgrow float16, TensorFloat-32 has the same precision and a larger range."""
    if dtype is torch.float16:
        return {"STATE_DOT": tl.float32, "STATE_PRECISION": "tf32"}
    return {"STATE_DOT": dot_dtype(dtype), "STATE_PRECISION": dot_precision()}

