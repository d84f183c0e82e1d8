"""The delta rule: linear attention that replaces what its memory holds under a key, optionally with decay.

    u_t = beta_t (v_t - k_t exp(g_t) S_{t-1}),    S_t = exp(g_t) S_{t-1} + k_t u_t^T,    o_t = scale q_t S_t

Shapes: query and key (batch, time, heads, key_dim), value (batch, time, heads, value_dim), beta and the log decay
g <= 0 (batch, time, heads), g None for no decay, initial_state S_0 (batch, heads, key_dim, value_dim) or None for zero.
Returns o in the dtype of value and the last S in float32. With beta = 0 and g = 0 a step does nothing. The memory stays
bounded for beta |k|^2 <= 2: keys are commonly normalized to length 1. Gates, states and sums are float32 (float64 for
float64 inputs).

In chunks (the WY form), with G the running sum of g in the chunk and S the state before it,

    (I + A) U = beta (V - e^G K S),    A_ts = beta_t e^{G_t - G_s} k_t k_s  for s < t, else 0

is one triangular system a chunk: U = T beta V - W S with T = (I + A)^-1 and W = T beta e^G K, all but S known before.
So S' = (e^{G_C} - (e^{G_C - G} K)^T W) S + (e^{G_C - G} K)^T T beta V runs over the chunks, one product each. With
U for values, o is what `decay_linear_attention` gives.

Floor, for N steps in all heads together, dims K and V, chunks of C = 64 and elements of e bytes: the forward reads q,
k, v and writes o, 2N(K + V)e bytes, with N(2C(2K + V) + 6KV) flops; the backward reads q, k, v and the gradient of o
and writes three gradients, N(4K + 3V)e bytes, with 2.5 times the flops.

Papers: Parallelizing Linear Transformers with the Delta Rule over Sequence Length, arXiv 2406.06484; Gated Delta
Networks, arXiv 2412.06464.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._chunks import (
    block_side,
    check_shapes,
    chunk_length,
    chunk_states,
    dot_block,
    join_chunks,
    load_tile,
    load_transposed,
    split_chunks,
    state_dot,
    store_tile,
    triton_chunk_length,
)
from ._runtime import Backends, autocast, cdiv, dot_dtype, dot_precision, jit, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes
from .decay_linear_attention import _decay_between, _running_sums, _sums_between, decay_linear_attention
from .linear_scan import unit_stride

CHUNK = 64
MAX_TRITON_KEY_DIM = 256  # a program holds all keys of a state


def delta_rule_reference(
    query: Float[Tensor, "batch time heads key_dim"],
    key: Float[Tensor, "batch time heads key_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    beta: Float[Tensor, "batch time heads"],
    log_decay: Float[Tensor, "batch time heads"] | None,
    initial_state: Float[Tensor, "batch heads key_dim value_dim"],
    scale: float,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads key_dim value_dim"]]:
    state, outputs = initial_state, []
    decay = torch.ones_like(beta) if log_decay is None else log_decay.to(state.dtype).exp()
    steps = (part.to(state.dtype).unbind(1) for part in (query, key, value, beta, decay))
    for q, k, v, beta_t, decay_t in zip(*steps):
        state = decay_t[..., None, None] * state
        u = beta_t.unsqueeze(-1) * (v - torch.einsum("bhk,bhkv->bhv", k, state))
        state = state + k.unsqueeze(-1) * u.unsqueeze(-2)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q, state))
    return torch.stack(outputs, 1).to(value.dtype), state


# --- torch ------------------------------------------------------------------------------------------------------------


def delta_rule_torch(
    query: Float[Tensor, "batch time heads key_dim"],
    key: Float[Tensor, "batch time heads key_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    beta: Float[Tensor, "batch time heads"],
    log_decay: Float[Tensor, "batch time heads"] | None,
    initial_state: Float[Tensor, "batch heads key_dim value_dim"],
    scale: float,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads key_dim value_dim"]]:
    (batch, time, heads, key_dim), value_dim = query.shape, value.shape[-1]
    dtype, wide, length = value.dtype, initial_state.dtype, chunk_length(time, CHUNK)
    query, key, value, beta = (split_chunks(part.to(wide), length) for part in (query, key, value, beta.unsqueeze(-1)))
    if log_decay is None:
        within = torch.ones(length, length, dtype=wide, device=query.device).tril()
        since_start = until_end = through = 1.0
    else:
        steps = split_chunks(log_decay.to(wide).unsqueeze(-1), length).squeeze(-1)
        within = _sums_between(steps).exp()
        since_start = steps.cumsum(-1).exp().unsqueeze(-1)
        until_end = F.pad(steps[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1).exp().unsqueeze(-1)
        through = since_start[..., -1:, :]

    erased = beta * key
    system = ((erased @ key.mT) * within).tril(-1)
    sides = torch.cat((beta * value, erased * since_start), -1)
    values, weights = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True).split(
        (value_dim, key_dim), -1
    )
    written = (key * until_end).mT
    transition = through * torch.eye(key_dim, dtype=wide, device=query.device) - written @ weights
    chunks = transition.shape[2]
    states = _states(
        transition.flatten(0, 1).transpose(0, 1), (written @ values).flatten(0, 1).transpose(0, 1),
        initial_state.flatten(0, 1),
    ).transpose(0, 1).unflatten(0, (batch, heads))  # fmt: skip
    before, final = states.split((chunks, 1), 2)
    values = values - weights @ before
    query = query * scale
    output = ((query @ key.mT) * within) @ values + (query * since_start) @ before
    return join_chunks(output, time).to(dtype), final.squeeze(2).clone()


@operator("delta_rule_states", fake=lambda transition, update, state: _states_fake(transition, state))
def _states(transition: Tensor, update: Tensor, state: Tensor) -> Tensor:
    """S_{c+1} = M_c S_c + N_c, the first and all others: (chunks + 1, sequences, keys, values).

    An op of its own, because a compiler would unroll the loop and has nothing to fuse into it.
    """
    states = _states_fake(transition, state)
    states[0] = state
    for matrix, addend, before, after in zip(transition.unbind(0), update.unbind(0), states[:-1], states[1:]):
        torch.baddbmm(addend, matrix, before, out=after)
    return states


def _states_fake(transition: Tensor, state: Tensor) -> Tensor:
    return state.new_empty((len(transition) + 1, *state.shape))


@operator("delta_rule_states_backward", fake=lambda grad, transition, states: grad.new_empty(grad.shape))
def _states_gradient(grad: Tensor, transition: Tensor, states: Tensor) -> Tensor:
    """The gradient of each state, with what reaches it from the states after it."""
    grad = grad.clone(memory_format=torch.contiguous_format)
    for matrix, before, after in zip(*(part.unbind(0)[::-1] for part in (transition, grad[:-1], grad[1:]))):
        before.baddbmm_(matrix.mT, after)
    return grad


def _save_states(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], output)


def _gradient_of_states(ctx, grad):
    transition, states = ctx.saved_tensors
    with torch.autocast(grad.device.type, enabled=False):
        grad = _states_gradient(grad, transition, states)
        return grad[1:] @ states[:-1].mT, grad[1:], grad[0]


_states.register_autograd(_gradient_of_states, setup_context=_save_states)


# --- Triton -----------------------------------------------------------------------------------------------------------
#
# The op here computes U. Its kernels: T of every chunk at once; U chunk after chunk, a tile of values to a program with
# all keys of its state; the gradient X of T's right side likewise, backwards; and the gradients of k, beta and g from
# X, all chunks at once. With U for values, `decay_linear_attention` does the rest, forward and backward.


@jit
def _chunk_decays(decay_ptr, row, decay_time, time, LENGTH: tl.constexpr):
    """Of one chunk: running sums in two parts, and the decays since its start, until its end, and through it."""
    whole, rest = _running_sums(tl.load(decay_ptr + row * decay_time, mask=row < time, other=0.0))
    last = tl.arange(0, LENGTH) == LENGTH - 1
    last_whole = tl.sum(tl.where(last, whole, 0.0), axis=0)
    last_rest = tl.sum(tl.where(last, rest, 0.0), axis=0)
    until_end = tl.exp2((last_whole - whole) + (last_rest - rest))
    return whole, rest, tl.exp2(whole + rest), until_end, tl.exp2(last_whole + last_rest)


@jit(do_not_specialize=("time", "chunks"))
def _inverse_kernel(
    key_ptr, beta_ptr, decay_ptr, inverse_ptr, time, chunks, heads, key_dim, key_batch, key_time, key_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, LENGTH: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """T = (I + A)^-1, row after row: T_i = e_i - sum over j < i of A_ij T_j."""
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    position = tl.arange(0, LENGTH)
    row = chunk * LENGTH + position
    key_ptr += batch * key_batch + head * key_head
    gate = (batch * time) * heads + head
    whole, rest = _running_sums(tl.load(decay_ptr + gate + row * heads, mask=row < time, other=0.0))
    beta = tl.load(beta_ptr + gate + row * heads, mask=row < time, other=0.0)

    system = tl.zeros([LENGTH, LENGTH], tl.float32)  # transposed, so that a row is found along the first axis
    for start in range(0, key_dim, KEYS):
        channel = start + tl.arange(0, KEYS)
        key = load_tile(key_ptr, row, key_time, time, channel, key_dim).to(DOT)
        key_t = load_transposed(key_ptr, row, key_time, time, channel, key_dim).to(DOT)
        system += tl.dot(key, key_t, input_precision=PRECISION)
    earlier = position[:, None] < position[None, :]
    system *= beta[None, :] * _decay_between(whole[None, :], rest[None, :], whole[:, None], rest[:, None], earlier)

    inverse = tl.where(position[:, None] == position[None, :], 1.0, 0.0)
    for i in range(1, LENGTH):
        coefficients = tl.sum(tl.where(position[None, :] == i, system, 0.0), axis=1)
        correction = tl.sum(coefficients[:, None] * inverse, axis=0)
        inverse -= tl.where(position[:, None] == i, correction[None, :], 0.0)
    inverse_ptr += (sequence * chunks + chunk) * LENGTH * LENGTH
    store_tile(inverse_ptr, position, LENGTH, LENGTH, position, LENGTH, inverse)


@jit(do_not_specialize=("time", "chunks"))
def _values_kernel(
    key_ptr, value_ptr, beta_ptr, decay_ptr, inverse_ptr, initial_ptr, output_ptr,
    time, chunks, heads, key_dim, value_dim, key_batch, key_time, key_head, value_batch, value_time, value_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    sequence = tl.cast(tl.program_id(0), tl.int64)
    batch, head = sequence // heads, sequence % heads
    channel = tl.arange(0, KEYS)
    column = tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    position = tl.arange(0, LENGTH)
    key_ptr += batch * key_batch + head * key_head
    value_ptr += batch * value_batch + head * value_head
    gate = (batch * time) * heads + head
    output_ptr += gate * value_dim
    inverse_ptr += sequence * chunks * LENGTH * LENGTH
    initial_ptr += sequence * key_dim * value_dim

    state = load_tile(initial_ptr, channel, value_dim, key_dim, column, value_dim)
    for chunk in range(chunks):
        row = tl.cast(chunk, tl.int64) * LENGTH + position
        _, _, since_start, until_end, through = _chunk_decays(decay_ptr + gate, row, heads, time, LENGTH)
        beta = tl.load(beta_ptr + gate + row * heads, mask=row < time, other=0.0)
        key = load_tile(key_ptr, row, key_time, time, channel, key_dim)
        key_t = load_transposed(key_ptr, row, key_time, time, channel, key_dim)
        value = load_tile(value_ptr, row, value_time, time, column, value_dim).to(tl.float32)
        inverse = load_tile(inverse_ptr, position, LENGTH, LENGTH, position, LENGTH)
        held = tl.dot(key.to(STATE_DOT), state.to(STATE_DOT), input_precision=STATE_PRECISION)
        error = beta[:, None] * (value - since_start[:, None] * held)
        written = tl.dot(inverse.to(DOT), error.to(DOT), input_precision=PRECISION)
        store_tile(output_ptr, row, heads * value_dim, time, column, value_dim, written)
        key_t = key_t.to(tl.float32) * until_end[None, :]
        state = state * through + tl.dot(key_t.to(DOT), written.to(DOT), input_precision=PRECISION)
        inverse_ptr += LENGTH * LENGTH


@jit(do_not_specialize=("time", "chunks"))
def _error_gradient_kernel(
    key_ptr, grad_ptr, beta_ptr, decay_ptr, inverse_ptr, grad_error_ptr,
    time, chunks, heads, key_dim, value_dim, key_batch, key_time, key_head, grad_batch, grad_time, grad_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """X = T^T (dU + e^{G_C - G} K dS'), dS = e^{G_C} dS' - (e^G K)^T beta X, from the last chunk to the first."""
    sequence = tl.cast(tl.program_id(0), tl.int64)
    batch, head = sequence // heads, sequence % heads
    channel = tl.arange(0, KEYS)
    column = tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    position = tl.arange(0, LENGTH)
    key_ptr += batch * key_batch + head * key_head
    grad_ptr += batch * grad_batch + head * grad_head
    gate = (batch * time) * heads + head
    grad_error_ptr += gate * value_dim
    inverse_ptr += (sequence + 1) * chunks * LENGTH * LENGTH

    grad_state = tl.zeros([KEYS, VALUES], tl.float32)
    for back in range(chunks):
        inverse_ptr -= LENGTH * LENGTH
        row = tl.cast(chunks - 1 - back, tl.int64) * LENGTH + position
        _, _, since_start, until_end, through = _chunk_decays(decay_ptr + gate, row, heads, time, LENGTH)
        beta = tl.load(beta_ptr + gate + row * heads, mask=row < time, other=0.0)
        key = load_tile(key_ptr, row, key_time, time, channel, key_dim)
        key_t = load_transposed(key_ptr, row, key_time, time, channel, key_dim)
        grad = load_tile(grad_ptr, row, grad_time, time, column, value_dim).to(tl.float32)
        inverse_t = load_transposed(inverse_ptr, position, LENGTH, LENGTH, position, LENGTH)
        later = tl.dot(key.to(STATE_DOT), grad_state.to(STATE_DOT), input_precision=STATE_PRECISION)
        grad += until_end[:, None] * later
        grad_error = tl.dot(inverse_t.to(DOT), grad.to(DOT), input_precision=PRECISION)
        store_tile(grad_error_ptr, row, heads * value_dim, time, column, value_dim, grad_error)
        key_t = key_t.to(tl.float32) * (since_start * beta)[None, :]
        grad_state *= through
        grad_state -= tl.dot(key_t.to(DOT), grad_error.to(DOT), input_precision=PRECISION)


@jit(do_not_specialize=("time", "chunks"))
def _key_gradient_kernel(
    key_ptr, written_ptr, grad_error_ptr, beta_ptr, decay_ptr, states_ptr, grad_states_ptr,
    grad_key_ptr, grad_beta_ptr, grad_decay_ptr,
    time, chunks, heads, key_dim, value_dim, key_batch, key_time, key_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """A key reads the memory before its step, with -beta X for the gradient of what it reads, and writes to it U."""
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    position = tl.arange(0, LENGTH)
    row = chunk * LENGTH + position
    key_ptr += batch * key_batch + head * key_head
    gate = (batch * time) * heads + head
    written_ptr += gate * value_dim
    grad_error_ptr += gate * value_dim
    grad_key_ptr += gate * key_dim
    states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    grad_states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    whole, rest, since_start, until_end, through = _chunk_decays(decay_ptr + gate, row, heads, time, LENGTH)
    beta = tl.load(beta_ptr + gate + row * heads, mask=row < time, other=0.0)

    by_reader = tl.zeros([LENGTH, LENGTH], tl.float32)  # of pairs, readers in rows
    by_writer = tl.zeros([LENGTH, LENGTH], tl.float32)  # the same with writers in rows
    for start in range(0, value_dim, VALUES):
        column = start + tl.arange(0, VALUES)
        grad = load_tile(grad_error_ptr, row, heads * value_dim, time, column, value_dim).to(DOT)
        grad_t = load_transposed(grad_error_ptr, row, heads * value_dim, time, column, value_dim).to(DOT)
        written = load_tile(written_ptr, row, heads * value_dim, time, column, value_dim).to(DOT)
        written_t = load_transposed(written_ptr, row, heads * value_dim, time, column, value_dim).to(DOT)
        by_reader += tl.dot(grad, written_t, input_precision=PRECISION)
        by_writer += tl.dot(written, grad_t, input_precision=PRECISION)
    by_reader *= _decay_between(
        whole[:, None], rest[:, None], whole[None, :], rest[None, :], position[:, None] > position[None, :]
    )
    by_writer *= beta[None, :] * _decay_between(
        whole[None, :], rest[None, :], whole[:, None], rest[:, None], position[:, None] < position[None, :]
    )

    reading = tl.zeros([LENGTH], tl.float32)
    arriving = tl.zeros([LENGTH], tl.float32)
    leaving = tl.zeros([LENGTH], tl.float32)
    passing = tl.zeros([KEYS], tl.float32)
    for start in range(0, key_dim, KEYS):
        channel = start + tl.arange(0, KEYS)
        read = tl.zeros([LENGTH, KEYS], tl.float32)
        to_state = tl.zeros([LENGTH, KEYS], tl.float32)
        for first in range(0, value_dim, VALUES):
            column = first + tl.arange(0, VALUES)
            grad = load_tile(grad_error_ptr, row, heads * value_dim, time, column, value_dim).to(STATE_DOT)
            written = load_tile(written_ptr, row, heads * value_dim, time, column, value_dim).to(STATE_DOT)
            state_t = load_transposed(states_ptr, channel, value_dim, key_dim, column, value_dim)
            grad_state_t = load_transposed(grad_states_ptr, channel, value_dim, key_dim, column, value_dim)
            read += tl.dot(grad, state_t.to(STATE_DOT), input_precision=STATE_PRECISION)
            to_state += tl.dot(written, grad_state_t.to(STATE_DOT), input_precision=STATE_PRECISION)
            passing += tl.sum(state_t * grad_state_t, axis=0)
        key = load_tile(key_ptr, row, key_time, time, channel, key_dim).to(DOT)
        read = read * since_start[:, None] + tl.dot(by_reader.to(DOT), key, input_precision=PRECISION)
        write = tl.dot(by_writer.to(DOT), key, input_precision=PRECISION)
        to_state *= until_end[:, None]
        key = key.to(tl.float32)
        reading += tl.sum(key * read, axis=1)
        arriving += tl.sum(key * write, axis=1)
        leaving += tl.sum(key * to_state, axis=1)
        grad_key = to_state - write - beta[:, None] * read
        store_tile(grad_key_ptr, row, heads * key_dim, time, channel, key_dim, grad_key)

    # A decay acts on what passes its step: what later steps read, less what they read of it that was written later
    # still; what earlier steps leave in the state after the chunk; and the state on its way through.
    arriving -= beta * reading
    leaving = tl.where((position < LENGTH - 1) & (row < time - 1), leaving, 0.0)  # no decay follows the last step
    grad_decay = tl.sum(arriving, axis=0) - tl.cumsum(arriving, axis=0) + arriving
    grad_decay += tl.cumsum(leaving, axis=0) - leaving + through * tl.sum(passing, axis=0)
    tl.store(grad_decay_ptr + gate + row * heads, grad_decay, mask=row < time)
    tl.store(grad_beta_ptr + gate + row * heads, -reading, mask=row < time)


def _settings(key: Tensor) -> dict:
    return {"DOT": dot_dtype(key.dtype), "PRECISION": dot_precision(), "LENGTH": triton_chunk_length(key.dtype)}


def _tiles(key: Tensor, value: Tensor, whole_keys: bool) -> dict:
    """A program with all keys of a state has the fewer values, the more keys there are."""
    key_dim, value_dim = key.shape[-1], value.shape[-1]
    if not whole_keys:
        side = block_side(key.dtype)
        return {"KEYS": dot_block(key_dim, side), "VALUES": dot_block(value_dim, side), "num_warps": 4, "num_stages": 2}
    keys = dot_block(key_dim, MAX_TRITON_KEY_DIM)
    return {
        "KEYS": keys, "VALUES": dot_block(value_dim, 64 if keys <= 64 else 32), "num_warps": 4 if keys <= 64 else 8,
        "num_stages": 2,
    }  # fmt: skip


def _forward_fake(
    key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor]:
    (batch, time, heads, _), length = key.shape, triton_chunk_length(key.dtype)
    inverse = beta.new_empty((batch, heads, cdiv(time, length), length, length))
    return value.new_empty(value.shape), inverse


@operator("delta_rule", fake=_forward_fake)
def _forward(key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    written, inverse = _forward_fake(key, value, beta, log_decay, initial)
    key, value, beta, log_decay = unit_stride(key), unit_stride(value), beta.contiguous(), log_decay.contiguous()
    (batch, time, heads, key_dim), value_dim, chunks = key.shape, value.shape[-1], inverse.shape[2]
    if value.numel():
        settings, tiles = _settings(key), _tiles(key, value, True)
        _inverse_kernel[(batch * heads, chunks)](
            key, beta, log_decay, inverse, time, chunks, heads, key_dim, *key.stride()[:3],
            **settings, KEYS=dot_block(key_dim, 64), num_warps=4,
        )  # fmt: skip
        _values_kernel[(batch * heads, cdiv(value_dim, tiles["VALUES"]))](
            key, value, beta, log_decay, inverse, initial.contiguous(), written, time, chunks, heads, key_dim,
            value_dim, *key.stride()[:3], *value.stride()[:3], **settings, **state_dot(key.dtype), **tiles,
        )  # fmt: skip
    return written, inverse


def _backward_fake(
    grad: Tensor, key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor, initial: Tensor, written: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return tuple(part.new_empty(part.shape) for part in (key, value, beta, log_decay, initial))


@operator("delta_rule_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor, initial: Tensor, written: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_key, _, grad_beta, grad_decay, grad_initial = _backward_fake(
        grad, key, value, beta, log_decay, initial, written, inverse
    )
    grad, key, beta, log_decay = unit_stride(grad), unit_stride(key), beta.contiguous(), log_decay.contiguous()
    (batch, time, heads, key_dim), value_dim, chunks = key.shape, value.shape[-1], inverse.shape[2]
    grad_error = value.new_empty(value.shape)
    if value.numel():
        settings, states_dot, tiles = _settings(key), state_dot(key.dtype), _tiles(key, value, True)
        sizes = (time, chunks, heads, key_dim, value_dim)
        _error_gradient_kernel[(batch * heads, cdiv(value_dim, tiles["VALUES"]))](
            key, grad, beta, log_decay, inverse, grad_error, *sizes, *key.stride()[:3], *grad.stride()[:3],
            **settings, **states_dot, **tiles,
        )  # fmt: skip
        grad_read = (grad_error * -beta.unsqueeze(-1)).to(key.dtype)
        states, _ = chunk_states(key, written, log_decay, initial, settings["LENGTH"])
        grad_states, grad_initial = chunk_states(
            key, grad_read, log_decay, torch.zeros_like(initial), settings["LENGTH"], reverse=True
        )
        _key_gradient_kernel[(batch * heads, chunks)](
            key, written, grad_error, beta, log_decay, states, grad_states, grad_key, grad_beta, grad_decay,
            *sizes, *key.stride()[:3], **settings, **states_dot, **_tiles(key, value, False),
        )  # fmt: skip
    else:
        grad_beta, grad_decay, grad_initial = (part.zero_() for part in (grad_beta, grad_decay, grad_initial))
    grad_beta += (grad_error.float() * value).sum(-1)
    return grad_key, (grad_error * beta.unsqueeze(-1)).to(value.dtype), grad_beta, grad_decay, grad_initial


def _save_for_backward(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output)


def _gradient(ctx, grad, _):
    return _backward(grad, *ctx.saved_tensors)


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _delta_rule_triton(
    query: Tensor, key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor | None, initial_state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    log_decay = torch.zeros_like(beta, dtype=torch.float32) if log_decay is None else log_decay.float()
    written, _ = _forward(key, value, beta.float(), log_decay, initial_state)
    return decay_linear_attention(query, key, written, log_decay, initial_state, scale=scale, backend="triton")


def _triton_refuses(query: Tensor, key: Tensor, value: Tensor, *_, **__) -> str | None:
    if not query.dtype == key.dtype == value.dtype:
        return f"query, key and value must have one dtype, not {query.dtype}, {key.dtype} and {value.dtype}"
    if key.shape[-1] > MAX_TRITON_KEY_DIM:
        return f"key_dim {key.shape[-1]} is larger than {MAX_TRITON_KEY_DIM}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("delta_rule", delta_rule_reference, delta_rule_torch, _delta_rule_triton, _triton_refuses)


def delta_rule(
    query: Float[Tensor, "batch time heads key_dim"],
    key: Float[Tensor, "batch time heads key_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    beta: Float[Tensor, "batch time heads"],
    log_decay: Float[Tensor, "batch time heads"] | None = None,
    initial_state: Float[Tensor, "batch heads key_dim value_dim"] | None = None,
    *,
    scale: float | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads key_dim value_dim"]]:
    """The (gated) delta rule: S_t = exp(g_t) S_{t-1} + beta_t k_t (v_t - k_t exp(g_t) S_{t-1})^T, o_t = scale q_t S_t.

    query and key (batch, time, heads, key_dim), value (batch, time, heads, value_dim); beta, the share of the error
    that a step corrects, and log_decay g <= 0, or None for no decay, (batch, time, heads); initial_state (batch, heads,
    key_dim, value_dim) or None for zero; scale None for key_dim^-0.5. The memory stays bounded for beta |k|^2 <= 2.
    Returns o in the dtype of value, and the last S in float32. Raises ValueError if shapes do not fit, or for a backend
    ("reference", "torch", "triton") that cannot serve the call.

    Parallelizing Linear Transformers with the Delta Rule over Sequence Length, arXiv 2406.06484; Gated Delta Networks,
    arXiv 2412.06464.
    """
    shapes = (tuple(query.shape[:3]),)
    gates = beta if log_decay is None else log_decay
    check_shapes("delta_rule", query, key, value, gates, shapes, initial_state)
    if tuple(beta.shape) not in shapes:
        raise ValueError(f"delta_rule: beta has shape {tuple(beta.shape)}; it must be {shapes[0]}")
    if scale is None:
        scale = query.shape[-1] ** -0.5
    query, key, value = autocast(query, key, value)
    wide = torch.promote_types(value.dtype, torch.float32)
    if initial_state is None:
        initial_state = value.new_zeros(len(value), *query.shape[2:], value.shape[-1], dtype=wide)
    with torch.autocast(query.device.type, enabled=False):
        run = _BACKENDS.select(backend, query, key, value, beta, log_decay, initial_state)
        return run(query, key, value, beta, log_decay, initial_state.to(wide), scale)


def _floor(query: Tensor, key: Tensor, value: Tensor, **_) -> tuple[Cost, Cost]:
    steps, key_dim, value_dim = query[..., 0].numel(), query.shape[-1], value.shape[-1]
    flops = steps * (2 * CHUNK * (2 * key_dim + value_dim) + 6 * key_dim * value_dim)
    keys, values = size_in_bytes(query, key), size_in_bytes(value)
    return Cost(keys + 2 * values, flops), Cost(2 * keys + 3 * values, 2.5 * flops)


def _inputs(
    random: Sampler, batch: int, time: int, heads: int, key_dim: int, value_dim: int, *,
    decay: float | None = None, state: bool = False,
) -> dict:  # fmt: skip
    """Keys of length 1; decays about `decay` strong."""
    gates = (batch, time, heads)
    return {
        "query": random.normal(*gates, key_dim),
        "key": F.normalize(random.normal(*gates, key_dim), dim=-1),
        "value": random.normal(*gates, value_dim),
        "beta": random.uniform(*gates),
        "log_decay": None if decay is None else -decay * random.normal(*gates).exp(),
        "initial_state": random.normal(batch, heads, key_dim, value_dim) if state else None,
    }


def _one_key(random: Sampler) -> dict:
    """The same key at every step and beta = 1: the system's inverse has two diagonals, its Neumann series explodes."""
    inputs = _inputs(random, 1, 131, 2, 4, 3, state=True)
    return {**inputs, "key": inputs["key"][:, :1].expand_as(inputs["key"]).clone(), "beta": torch.ones(1, 131, 2)}


SPEC = OpSpec(
    function=delta_rule,
    backends=_BACKENDS,
    cases={
        "one step": lambda random: _inputs(random, 1, 1, 2, 3, 2, decay=0.3, state=True),
        "prime": lambda random: _inputs(random, 2, 19, 1, 7, 5, decay=0.1, state=True),
        "strong decay": lambda random: _inputs(random, 1, 19, 1, 5, 3, decay=50.0, state=True),
        "no decay": lambda random: {**_inputs(random, 1, 5, 2, 17, 1), "scale": 0.3},
        "no samples": lambda random: _inputs(random, 0, 3, 1, 3, 2),
    },
    large_cases={
        "several chunks": lambda random: _inputs(random, 2, 193, 2, 16, 24, decay=0.1, state=True),
        "strong decay in several chunks": lambda random: _inputs(random, 1, 131, 2, 5, 3, decay=5.0, state=True),
        "one key": _one_key,
    },
    benchmarks={
        "1024 steps, 4 heads of 64": lambda random: _inputs(random, 1, 1024, 4, 64, 64),
        "gated, 1024 steps, 4 heads of 64": lambda random: _inputs(random, 1, 1024, 4, 64, 64, decay=0.1),
    },
    differentiable=("query", "key", "value", "beta", "log_decay", "initial_state"),
    floor=_floor,
    paper="Parallelizing Linear Transformers with the Delta Rule over Sequence Length, arXiv 2406.06484",
    float32=("initial_state",),
)
