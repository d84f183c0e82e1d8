"""Causal linear attention whose memory decays channel by channel of the key.

    S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T,    o_t = scale * S_t^T q_t

Shapes: query, key and log decay g (batch, time, heads, head_dim), value (batch, time, heads, value_dim), initial_state
S_0 (batch, heads, head_dim, value_dim) or None for zero. Returns o in the dtype of value, and the last S in float32.
Decays and sums are float32 (float64 for float64 inputs).

Chunks meet through the state between them (see _chunks.py). Within one, query i and key j before it meet with weight

    sum over channels c of q_ic k_jc exp(sum of g_lc over j < l <= i)

which is a product of matrices only if the exponential is split at some step m between j and i: exp(sum over m < l <= i)
goes to the query, exp(sum over j < l <= m) to the key, and neither is above one. So blocks are halved: for blocks of
2, 4, 8, ... steps up to the chunk, all queries of the right half meet all keys of the left half, split at the middle.
Nothing overflows however strong the decay, and -inf forgets everything. Where decays are weak, the torch form takes
small blocks whole.

Floor, for N steps in all heads together, dims K and V and elements of e bytes: the forward reads q, k, g, v and writes
o, N(3K + 2V)e bytes, and multiplies 4NKV flops (the recurrence; chunks of C add 2NC(K + V)); the backward reads q, k,
g, v and the gradient of o and writes four gradients, N(6K + 3V)e bytes and 10NKV flops.

Paper: Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv 2312.06635.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
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
    states_between_chunks,
    store_tile,
    triton_chunk_length,
)
from ._runtime import Backends, autocast, cdiv, dot_dtype, dot_precision, jit, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes
from .linear_scan import unit_stride

CHUNK = 32  # steps; on a CPU a little faster than 16 and 64
WEAK = 16.0  # blocks whose log decays sum to less are multiplied whole: exp(16) neither overflows nor costs digits


def gated_linear_attention_reference(
    query: Float[Tensor, "batch time heads head_dim"],
    key: Float[Tensor, "batch time heads head_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    log_decay: Float[Tensor, "batch time heads head_dim"],
    initial_state: Float[Tensor, "batch heads head_dim value_dim"] | None,
    scale: float,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads head_dim value_dim"]]:
    q, k, v, g, state = _widen(query, key, value, log_decay, initial_state)
    outputs = []
    for q_t, k_t, v_t, g_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), g.unbind(1)):
        state = g_t.exp().unsqueeze(-1) * state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q_t, state))
    return torch.stack(outputs, 1).to(value.dtype), state


def gated_linear_attention_torch(
    query: Float[Tensor, "batch time heads head_dim"],
    key: Float[Tensor, "batch time heads head_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    log_decay: Float[Tensor, "batch time heads head_dim"],
    initial_state: Float[Tensor, "batch heads head_dim value_dim"] | None,
    scale: float,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads head_dim value_dim"]]:
    q, k, v, g, state = _widen(query, key, value, log_decay, initial_state)
    time, length = query.shape[1], chunk_length(query.shape[1], CHUNK)
    chunks = (split_chunks(x, length) for x in (q, k, v, g))
    output, final, _, _ = _chunkwise(*chunks, state, scale)
    return join_chunks(output, time).to(value.dtype), final


def _widen(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial_state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(value.dtype, torch.float32)
    if initial_state is None:
        initial_state = value.new_zeros(value.shape[0], *query.shape[2:], value.shape[-1])
    return tuple(tensor.to(dtype) for tensor in (query, key, value, log_decay, initial_state))


def _chunkwise_fake(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, state: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, heads, chunks, length, key_dim = query.shape
    states = state.new_empty(batch, heads, chunks, key_dim, value.shape[-1])
    return value.new_empty(value.shape), state.new_empty(state.shape), key.new_empty(*key.shape[:-1], length), states


# Ops of their own, because the steps depend on the data, and Inductor needs long for them and gains little.
@operator("gated_linear_attention_chunkwise", fake=_chunkwise_fake)
def _chunkwise(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, state: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, last state, scores and states before chunks, of (batch, heads, chunks, length, dim)."""
    meetings, since_start, until_end = _meetings(log_decay.flatten(0, 2))
    q, k, v = query.flatten(0, 2), key.flatten(0, 2), value.flatten(0, 2)
    scores = q.new_zeros(*q.shape[:2], q.shape[1])
    for meet in meetings:
        products = _times_transposed(meet.later(q) * meet.later_decay, meet.earlier(k) * meet.earlier_decay)
        meet.scores(scores).copy_(products)
    scores.tril_()
    since_start, until_end = since_start.view_as(query), until_end.view_as(query)
    update = (key * until_end).mT @ value
    states, final = states_between_chunks(update, since_start[..., -1, :].unsqueeze(-1), state, False)
    output = torch.baddbmm(scores @ v, (query * since_start).flatten(0, 2), states.flatten(0, 2)).mul_(scale)
    return output.view_as(value), final, scores.view(*key.shape[:-1], key.shape[-2]), states


@operator(
    "gated_linear_attention_chunkwise_backward",
    fake=lambda grad, grad_final, *inputs: tuple(x.new_empty(x.shape) for x in (*inputs[:4], grad_final)),
)
def _chunkwise_backward(
    grad: Tensor, grad_final: Tensor, query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, scores: Tensor,
    states: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Written out, because it is twice as fast as what autograd would do."""
    meetings, since_start, until_end = _meetings(log_decay.flatten(0, 2))
    grad = (grad * scale).contiguous()
    q, k, v, do = query.flatten(0, 2), key.flatten(0, 2), value.flatten(0, 2), grad.flatten(0, 2)
    grad_scores = do @ v.mT
    diagonal = grad_scores.diagonal(dim1=1, dim2=2).clone().view(*query.shape[:-1], 1)
    grad_scores.tril_(-1)
    dq, dk = torch.zeros_like(q), torch.zeros_like(k)
    for meet in meetings:
        pairs = meet.scores(grad_scores).contiguous()
        meet.later(dq).addcmul_(_times(pairs, meet.earlier(k) * meet.earlier_decay), meet.later_decay)
        meet.earlier(dk).addcmul_(_times(pairs.mT, meet.later(q) * meet.later_decay), meet.earlier_decay)

    since_start, until_end = since_start.view_as(query), until_end.view_as(query)
    forget = since_start[..., -1, :]
    update = (query * since_start).mT @ grad
    grad_states, grad_state = states_between_chunks(update, forget.unsqueeze(-1), grad_final, True)
    dv = torch.baddbmm(scores.flatten(0, 2).mT @ do, (key * until_end).flatten(0, 2), grad_states.flatten(0, 2))
    grad_query = dq.view_as(query).addcmul_(grad @ states.mT, since_start)
    to_state = (value @ grad_states.mT).mul_(until_end)

    # A gate g_l decays what passes from a step before l to step l or one after it: within the chunk (the diagonal is
    # left out, no gate touches it and it would drown the rest), from the state before the chunk, into the state after
    # it, and the state on its way through.
    arriving = (query * grad_query).addcmul_(key, dk.view_as(key), value=-1)
    leaving = key * to_state
    triangle = arriving.new_ones(arriving.shape[-2], arriving.shape[-2])
    grad_decay = triangle.triu() @ arriving
    grad_decay += triangle.tril(-1) @ leaving
    grad_decay += ((states * grad_states).sum(-1) * forget).unsqueeze(-2)

    grad_key = to_state.add_(dk.view_as(key)).addcmul_(diagonal, query)
    grad_query.addcmul_(diagonal, key)
    return grad_query, grad_key, dv.view_as(value), grad_decay, grad_state


def _save_chunkwise(ctx, inputs, output):
    *tensors, _, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output[2:])


def _chunkwise_gradient(ctx, grad, grad_final, _scores, _states):
    return *_chunkwise_backward(grad, grad_final, *ctx.saved_tensors, ctx.scale), None


_chunkwise.register_autograd(_chunkwise_gradient, setup_context=_save_chunkwise)


class _Meeting(NamedTuple):
    """Queries that meet keys in products of matrices, one for each block of each chunk.

    `later` and `earlier` view (chunks, length, dim) as the rows of queries and of keys (chunks, blocks, size, dim),
    `scores` views (chunks, length, length) as theirs; the decays are of the shape of the rows.
    """

    later: Callable[[Tensor], Tensor]
    earlier: Callable[[Tensor], Tensor]
    scores: Callable[[Tensor], Tensor]
    later_decay: Tensor
    earlier_decay: Tensor


def _meetings(log_decay: Tensor) -> tuple[list[_Meeting], Tensor, Tensor]:
    """All meetings in chunks (chunks, length, dim), the decay since each chunk's start and that until its end.

    The first meeting is that of small blocks with themselves, the pairs above the diagonal being left to `tril`. Sums
    of log decays grow with the blocks; since none is a difference of others, -inf is as good as any.
    """
    size = _weak_block(log_decay)
    whole = partial(_blocks, size=size)
    steps = whole(log_decay)
    sums = steps.new_zeros(steps.shape)
    if size > 1:
        after_first = steps.new_ones(size, size).tril()
        after_first[:, 0] = 0.0
        sums = after_first @ steps
    decay = (sums - sums[:, :, size // 2].unsqueeze(2)).exp_()
    meetings = [_Meeting(whole, whole, partial(_diagonal_blocks, size=size), decay, decay.reciprocal())]

    until_end = (sums[:, :, -1:] - sums).flatten(1, 2)
    since_start = sums.add_(steps[:, :, :1]).flatten(1, 2)
    while size < log_decay.shape[1]:
        right, left = partial(_right_halves, size=size), partial(_left_halves, size=size)
        decays = right(since_start).exp(), left(until_end).exp()
        meetings.append(_Meeting(right, left, partial(_left_of_diagonal, size=size), *decays))
        left(until_end).add_(right(since_start)[:, :, -1:])
        right(since_start).add_(left(since_start)[:, :, -1:])
        size *= 2
    return meetings, since_start.exp_(), until_end.exp_()


def _weak_block(log_decay: Tensor) -> int:
    """The size of the largest blocks in all of which decays are weak; 1 where to look would wait for the device."""
    size = log_decay.shape[1]
    if log_decay.device.type != "cpu":
        return 1
    while size > 1 and log_decay.numel() and not _blocks(log_decay, size).sum(2).min() >= -WEAK:
        size //= 2
    return size


def _blocks(x: Tensor, size: int) -> Tensor:
    return x.unflatten(1, (-1, size))


def _left_halves(x: Tensor, size: int) -> Tensor:
    return x.unflatten(1, (-1, 2, size))[:, :, 0]


def _right_halves(x: Tensor, size: int) -> Tensor:
    return x.unflatten(1, (-1, 2, size))[:, :, 1]


def _diagonal_blocks(scores: Tensor, size: int) -> Tensor:
    return scores.unflatten(2, (-1, size)).unflatten(1, (-1, size)).diagonal(dim1=1, dim2=3).movedim(-1, 1)


def _left_of_diagonal(scores: Tensor, size: int) -> Tensor:
    blocks = scores.unflatten(2, (-1, 2, size)).unflatten(1, (-1, 2, size))
    return blocks[:, :, 1, :, :, 0].diagonal(dim1=1, dim2=3).movedim(-1, 1)


def _times_transposed(x: Tensor, y: Tensor) -> Tensor:
    """x @ y.mT of many matrices; of one or two rows, libraries are slower at it than pointwise products."""
    return x @ y.mT if x.shape[-2] > 2 else (x.unsqueeze(-2) * y.unsqueeze(-3)).sum(-1)


def _times(x: Tensor, y: Tensor) -> Tensor:
    """x @ y of many matrices, likewise."""
    return x @ y if x.shape[-1] > 2 else (x.unsqueeze(-1) * y.unsqueeze(-3)).sum(-2)


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _sum_over_blocks(x, BLOCK: tl.constexpr, LENGTH: tl.constexpr, KEYS: tl.constexpr):
    """Every row of [LENGTH, KEYS] becomes the sum of the rows of its block."""
    sums = tl.sum(tl.reshape(x, [LENGTH // BLOCK, BLOCK, KEYS]), axis=1)
    return tl.reshape(tl.broadcast_to(sums[:, None, :], [LENGTH // BLOCK, BLOCK, KEYS]), [LENGTH, KEYS])


@jit(do_not_specialize=("time", "chunks"))
def _forward_kernel(
    query_ptr, key_ptr, value_ptr, decay_ptr, states_ptr, output_ptr, scores_ptr,
    time, chunks, heads, key_dim, value_dim, scale,
    query_batch, query_time, query_head, key_batch, key_time, key_head, value_batch, value_time, value_head,
    decay_batch, decay_time, decay_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, LEVELS: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    position = tl.arange(0, LENGTH)
    row = chunk * LENGTH + position
    query_ptr += batch * query_batch + head * query_head
    key_ptr += batch * key_batch + head * key_head
    value_ptr += batch * value_batch + head * value_head
    decay_ptr += batch * decay_batch + head * decay_head
    states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    scores_ptr += (sequence * chunks + chunk) * LENGTH * LENGTH
    output_ptr += (batch * time * heads + head) * value_dim

    scores = tl.zeros([LENGTH, LENGTH], tl.float32)
    for start in range(0, key_dim, KEYS):
        channel = start + tl.arange(0, KEYS)
        query = load_tile(query_ptr, row, query_time, time, channel, key_dim).to(tl.float32)
        key = load_tile(key_ptr, row, key_time, time, channel, key_dim).to(tl.float32)
        gate = load_tile(decay_ptr, row, decay_time, time, channel, key_dim).to(tl.float32)
        itself = tl.sum(query * key, axis=1)
        scores += tl.where(position[:, None] == position[None, :], itself[:, None], 0.0)
        since_start = gate
        until_end = tl.zeros([LENGTH, KEYS], tl.float32)
        for level in tl.static_range(LEVELS):
            right = ((position >> level) % 2 == 1)[:, None]
            together = (position[:, None] >> (level + 1)) == (position[None, :] >> (level + 1))
            later = tl.where(right, query * tl.exp(since_start), 0.0).to(DOT)
            earlier = tl.where(right, 0.0, key * tl.exp(until_end)).to(DOT)
            products = tl.dot(later, tl.trans(earlier), input_precision=PRECISION)
            scores += tl.where(together, products, 0.0)
            left_sum = _sum_over_blocks(tl.where(right, 0.0, gate), 2 << level, LENGTH, KEYS)
            right_sum = _sum_over_blocks(tl.where(right, gate, 0.0), 2 << level, LENGTH, KEYS)
            since_start = tl.where(right, since_start + left_sum, since_start)
            until_end = tl.where(right, until_end, until_end + right_sum)
    scores = (scores * scale).to(scores_ptr.dtype.element_ty)
    store_tile(scores_ptr, position, LENGTH, LENGTH, position, LENGTH, scores)

    for column_start in range(0, value_dim, VALUES):
        column = column_start + tl.arange(0, VALUES)
        output = tl.zeros([LENGTH, VALUES], tl.float32)
        for start in range(0, key_dim, KEYS):
            channel = start + tl.arange(0, KEYS)
            query = load_tile(query_ptr, row, query_time, time, channel, key_dim).to(tl.float32)
            gate = load_tile(decay_ptr, row, decay_time, time, channel, key_dim).to(tl.float32)
            query = (query * tl.exp(tl.cumsum(gate, axis=0)) * scale).to(STATE_DOT)
            state = load_tile(states_ptr, channel, value_dim, key_dim, column, value_dim).to(STATE_DOT)
            output += tl.dot(query, state, input_precision=STATE_PRECISION)
        value = load_tile(value_ptr, row, value_time, time, column, value_dim).to(DOT)
        output += tl.dot(scores.to(DOT), value, input_precision=PRECISION)
        store_tile(output_ptr, row, heads * value_dim, time, column, value_dim, output)


@jit(do_not_specialize=("time", "chunks"))
def _value_gradient_kernel(
    grad_ptr, key_ptr, decay_ptr, scores_ptr, grad_states_ptr, grad_value_ptr, time, chunks, heads, key_dim, value_dim,
    grad_batch, grad_time, grad_head, key_batch, key_time, key_head, decay_batch, decay_time, decay_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    position = tl.arange(0, LENGTH)
    row = chunk * LENGTH + position
    # Keys stand upside down, so that the gates after each are a running sum.
    key_position = LENGTH - 1 - position
    key_row = chunk * LENGTH + key_position
    column = tl.program_id(2) * VALUES + tl.arange(0, VALUES)
    grad_ptr += batch * grad_batch + head * grad_head
    key_ptr += batch * key_batch + head * key_head
    decay_ptr += batch * decay_batch + head * decay_head
    scores_ptr += (sequence * chunks + chunk) * LENGTH * LENGTH
    grad_states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    grad_value_ptr += (batch * time * heads + head) * value_dim

    grad_value = tl.zeros([LENGTH, VALUES], tl.float32)
    for start in range(0, key_dim, KEYS):
        channel = start + tl.arange(0, KEYS)
        gate = load_tile(decay_ptr, key_row + 1, decay_time, time, channel, key_dim).to(tl.float32)
        gate = tl.where((position > 0)[:, None], gate, 0.0)
        key = load_tile(key_ptr, key_row, key_time, time, channel, key_dim).to(tl.float32)
        key = (key * tl.exp(tl.cumsum(gate, axis=0))).to(STATE_DOT)
        grad_state = load_tile(grad_states_ptr, channel, value_dim, key_dim, column, value_dim).to(STATE_DOT)
        grad_value += tl.dot(key, grad_state, input_precision=STATE_PRECISION)
    scores_t = load_transposed(scores_ptr, position, LENGTH, LENGTH, key_position, LENGTH).to(DOT)
    grad = load_tile(grad_ptr, row, grad_time, time, column, value_dim).to(DOT)
    grad_value += tl.dot(scores_t, grad, input_precision=PRECISION)
    store_tile(grad_value_ptr, key_row, heads * value_dim, time, column, value_dim, grad_value)


@jit(do_not_specialize=("time", "chunks"))
def _key_gradient_kernel(
    grad_ptr, query_ptr, key_ptr, value_ptr, decay_ptr, states_ptr, grad_states_ptr,
    grad_query_ptr, grad_key_ptr, grad_decay_ptr, time, chunks, heads, key_dim, value_dim, scale,
    grad_batch, grad_time, grad_head, query_batch, query_time, query_head, key_batch, key_time, key_head,
    value_batch, value_time, value_head, decay_batch, decay_time, decay_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, LEVELS: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    position = tl.arange(0, LENGTH)
    row = chunk * LENGTH + position
    channel = tl.program_id(2) * KEYS + tl.arange(0, KEYS)
    grad_ptr += batch * grad_batch + head * grad_head
    value_ptr += batch * value_batch + head * value_head
    states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    grad_states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    query = load_tile(query_ptr + batch * query_batch + head * query_head, row, query_time, time, channel, key_dim)
    key = load_tile(key_ptr + batch * key_batch + head * key_head, row, key_time, time, channel, key_dim)
    gate = load_tile(decay_ptr + batch * decay_batch + head * decay_head, row, decay_time, time, channel, key_dim)
    query, key, gate = query.to(tl.float32), key.to(tl.float32), gate.to(tl.float32)

    # [query, key] and [key, query]: both are computed, because no product is transposed after the fact.
    grad_scores = tl.zeros([LENGTH, LENGTH], tl.float32)
    grad_scores_t = tl.zeros([LENGTH, LENGTH], tl.float32)
    from_state = tl.zeros([LENGTH, KEYS], tl.float32)
    to_state = tl.zeros([LENGTH, KEYS], tl.float32)
    passing = tl.zeros([KEYS], tl.float32)
    for column_start in range(0, value_dim, VALUES):
        column = column_start + tl.arange(0, VALUES)
        grad = load_tile(grad_ptr, row, grad_time, time, column, value_dim)
        grad_t = load_transposed(grad_ptr, row, grad_time, time, column, value_dim)
        value = load_tile(value_ptr, row, value_time, time, column, value_dim)
        value_t = load_transposed(value_ptr, row, value_time, time, column, value_dim)
        grad_scores += tl.dot(grad.to(DOT), value_t.to(DOT), input_precision=PRECISION)
        grad_scores_t += tl.dot(value.to(DOT), grad_t.to(DOT), input_precision=PRECISION)
        state_t = load_transposed(states_ptr, channel, value_dim, key_dim, column, value_dim)
        grad_state_t = load_transposed(grad_states_ptr, channel, value_dim, key_dim, column, value_dim)
        from_state += tl.dot(grad.to(STATE_DOT), state_t.to(STATE_DOT), input_precision=STATE_PRECISION)
        to_state += tl.dot(value.to(STATE_DOT), grad_state_t.to(STATE_DOT), input_precision=STATE_PRECISION)
        passing += tl.sum(state_t * grad_state_t, axis=0)
    grad_scores *= scale
    grad_scores_t *= scale
    itself = tl.sum(tl.where(position[:, None] == position[None, :], grad_scores, 0.0), axis=1)[:, None]

    grad_query = tl.zeros([LENGTH, KEYS], tl.float32)
    grad_key = tl.zeros([LENGTH, KEYS], tl.float32)
    since_start = gate
    until_end = tl.zeros([LENGTH, KEYS], tl.float32)
    for level in tl.static_range(LEVELS):
        right = ((position >> level) % 2 == 1)[:, None]
        together = (position[:, None] >> (level + 1)) == (position[None, :] >> (level + 1))
        later_decay = tl.where(right, tl.exp(since_start), 0.0)
        earlier_decay = tl.where(right, 0.0, tl.exp(until_end))
        pairs = tl.where(together, grad_scores, 0.0).to(DOT)
        pairs_t = tl.where(together, grad_scores_t, 0.0).to(DOT)
        grad_query += later_decay * tl.dot(pairs, (key * earlier_decay).to(DOT), input_precision=PRECISION)
        grad_key += earlier_decay * tl.dot(pairs_t, (query * later_decay).to(DOT), input_precision=PRECISION)
        left_sum = _sum_over_blocks(tl.where(right, 0.0, gate), 2 << level, LENGTH, KEYS)
        right_sum = _sum_over_blocks(tl.where(right, gate, 0.0), 2 << level, LENGTH, KEYS)
        since_start = tl.where(right, since_start + left_sum, since_start)
        until_end = tl.where(right, until_end, until_end + right_sum)

    # What passes a gate: see the backward of the torch form.
    forget = tl.exp(tl.sum(gate, axis=0))
    grad_query += from_state * tl.exp(since_start) * scale
    to_state *= tl.exp(until_end)
    arriving = query * grad_query - key * grad_key
    no_gate_follows = (position == LENGTH - 1) | (row >= time - 1)
    leaving = tl.where(no_gate_follows[:, None], 0.0, key * to_state)
    grad_decay = tl.sum(arriving, axis=0)[None, :] - tl.cumsum(arriving, axis=0) + arriving
    grad_decay += tl.cumsum(leaving, axis=0) - leaving + (passing * forget)[None, :]

    offset = (batch * time * heads + head) * key_dim
    row_stride = heads * key_dim
    store_tile(grad_query_ptr + offset, row, row_stride, time, channel, key_dim, grad_query + itself * key)
    store_tile(grad_key_ptr + offset, row, row_stride, time, channel, key_dim, grad_key + to_state + itself * query)
    store_tile(grad_decay_ptr + offset, row, row_stride, time, channel, key_dim, grad_decay)


def _settings(query: Tensor, value: Tensor) -> dict:
    side, length = block_side(query.dtype), triton_chunk_length(query.dtype)
    return {
        "DOT": dot_dtype(query.dtype),
        "PRECISION": dot_precision(),
        **state_dot(query.dtype),
        "LENGTH": length,
        "KEYS": dot_block(query.shape[-1], side),
        "VALUES": dot_block(value.shape[-1], side),
        "num_stages": 2,
    }


def _levels(length: int) -> int:
    return length.bit_length() - 1


def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    (batch, time, heads, key_dim), value_dim = query.shape, value.shape[-1]
    length = triton_chunk_length(query.dtype)
    final = value.new_empty((batch, heads, key_dim, value_dim), dtype=torch.float32)
    return value.new_empty(value.shape), final, value.new_empty((batch, heads, cdiv(time, length), length, length))


@operator("gated_linear_attention", fake=_forward_fake)
def _forward(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    output, final, scores = _forward_fake(query, key, value, log_decay, initial, scale)
    query, key, value, log_decay = map(unit_stride, (query, key, value, log_decay))
    (batch, time, heads, key_dim), value_dim = query.shape, value.shape[-1]
    settings = _settings(query, value)
    chunks = cdiv(time, settings["LENGTH"])
    if output.numel():
        states, final = chunk_states(key, value, log_decay, initial, settings["LENGTH"])
        _forward_kernel[(batch * heads, chunks)](
            query, key, value, log_decay, states, output, scores, time, chunks, heads, key_dim, value_dim, scale,
            *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *log_decay.stride()[:3],
            LEVELS=_levels(settings["LENGTH"]), num_warps=8, **settings,
        )  # fmt: skip
    return output, final, scores


def _backward_fake(
    grad: Tensor, grad_final: Tensor, query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor,
    initial: Tensor | None, scores: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    empty = [tensor.new_empty(tensor.shape) for tensor in (query, key, value, log_decay)]
    return *empty, grad_final.new_empty(grad_final.shape)


@operator("gated_linear_attention_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, grad_final: Tensor, query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor,
    initial: Tensor | None, scores: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    fakes = _backward_fake(grad, grad_final, query, key, value, log_decay, initial, scores, scale)
    grad_query, grad_key, grad_value, grad_decay, grad_initial = fakes
    grad, query, key, value, log_decay = map(unit_stride, (grad, query, key, value, log_decay))
    (batch, time, heads, key_dim), value_dim = query.shape, value.shape[-1]
    settings = _settings(query, value)
    length = settings["LENGTH"]
    chunks = cdiv(time, length)
    if grad.numel():
        # The states are computed again: keeping them would cost as much memory as the inputs.
        states, _ = chunk_states(key, value, log_decay, initial, length)
        grad_states, grad_initial = chunk_states(query, grad, log_decay, grad_final, length, scale, reverse=True)
        _value_gradient_kernel[(batch * heads, chunks, cdiv(value_dim, settings["VALUES"]))](
            grad, key, log_decay, scores, grad_states, grad_value, time, chunks, heads, key_dim, value_dim,
            *grad.stride()[:3], *key.stride()[:3], *log_decay.stride()[:3], num_warps=4, **settings,
        )  # fmt: skip
        settings["KEYS"] = dot_block(key_dim, 32)  # of more channels it could not keep all sums in registers
        _key_gradient_kernel[(batch * heads, chunks, cdiv(key_dim, settings["KEYS"]))](
            grad, query, key, value, log_decay, states, grad_states, grad_query, grad_key, grad_decay,
            time, chunks, heads, key_dim, value_dim, scale, *grad.stride()[:3], *query.stride()[:3], *key.stride()[:3],
            *value.stride()[:3], *log_decay.stride()[:3], LEVELS=_levels(length), num_warps=8, **settings,
        )  # fmt: skip
    return grad_query, grad_key, grad_value, grad_decay, grad_initial


def _save_for_backward(ctx, inputs, output):
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[2])


def _gradient(ctx, grad, grad_final, _):
    *inputs, initial, scores = ctx.saved_tensors
    *grads, grad_initial = _backward(grad, grad_final, *inputs, initial, scores, ctx.scale)
    return *grads, None if initial is None else grad_initial.to(initial.dtype), None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _gated_linear_attention_triton(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial_state: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    return _forward(query, key, value, log_decay, initial_state, scale)[:2]


def _triton_refuses(query: Tensor, key: Tensor, value: Tensor, *_) -> str | None:
    if not query.dtype == key.dtype == value.dtype:
        return f"query, key and value must have one dtype, not {query.dtype}, {key.dtype} and {value.dtype}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends(
    "gated_linear_attention",
    gated_linear_attention_reference,
    gated_linear_attention_torch,
    _gated_linear_attention_triton,
    _triton_refuses,
)


def gated_linear_attention(
    query: Float[Tensor, "batch time heads head_dim"],
    key: Float[Tensor, "batch time heads head_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    log_decay: Float[Tensor, "batch time heads head_dim"],
    initial_state: Float[Tensor, "batch heads head_dim value_dim"] | None = None,
    *,
    scale: float | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads head_dim value_dim"]]:
    """Causal linear attention with a decay a channel: S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T, o_t = scale S_t^T q_t.

    query, key and log_decay g <= 0, where -inf forgets all before, (batch, time, heads, head_dim); value (batch, time,
    heads, value_dim); initial_state (batch, heads, head_dim, value_dim) or None for zero; scale None for
    head_dim^-0.5. Returns o and the last state, in float32. Raises ValueError if shapes do not fit, or for a backend
    ("reference", "torch", "triton") that cannot serve the call.

    Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv 2312.06635.
    """
    shapes = (tuple(query.shape),)
    check_shapes("gated_linear_attention", query, key, value, log_decay, shapes, initial_state)
    if scale is None:
        scale = query.shape[-1] ** -0.5
    query, key, value = autocast(query, key, value)
    with torch.autocast(query.device.type, enabled=False):
        run = _BACKENDS.select(backend, query, key, value, log_decay, initial_state)
        return run(query, key, value, log_decay, initial_state, scale)


def _floor(query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, **_) -> tuple[Cost, Cost]:
    keys, values = size_in_bytes(query, key, log_decay), size_in_bytes(value)
    products = query.numel() * value.shape[-1]
    return Cost(keys + 2 * values, 4 * products), Cost(2 * keys + 3 * values, 10 * products)


def _inputs(
    random: Sampler, batch: int, time: int, heads: int, key_dim: int, value_dim: int, *, strongest: float = 0.5,
    initial: bool = True,
) -> dict:  # fmt: skip
    # Few strong gates are among many weak ones.
    gates = random.uniform(batch, time, heads, key_dim)
    return {
        "query": random.normal(batch, time, heads, key_dim),
        "key": random.normal(batch, time, heads, key_dim),
        "value": random.normal(batch, time, heads, value_dim),
        "log_decay": -strongest * (gates if strongest < 1 else gates**6),
        "initial_state": random.normal(batch, heads, key_dim, value_dim) if initial else None,
    }


SPEC = OpSpec(
    function=gated_linear_attention,
    backends=_BACKENDS,
    cases={
        "prime": lambda random: _inputs(random, 1, 7, 2, 5, 3),
        "one step": lambda random: _inputs(random, 2, 1, 1, 4, 2),
        "two chunks": lambda random: _inputs(random, 1, 19, 2, 3, 5, initial=False),
        "63 steps": lambda random: {**_inputs(random, 1, 63, 1, 4, 5), "scale": 1.0},
        "strong decay": lambda random: _inputs(random, 1, 21, 1, 3, 2, strongest=200.0),
        "no samples": lambda random: _inputs(random, 0, 4, 2, 3, 3),
    },
    large_cases={
        "several chunks": lambda random: _inputs(random, 2, 157, 2, 7, 11),
        "several chunks, strong decay": lambda random: _inputs(random, 1, 157, 1, 5, 7, strongest=200.0),
        "several chunks, few weak": lambda random: _inputs(random, 1, 157, 1, 5, 7, strongest=8.0),
    },
    benchmarks={"2x1024, 4 heads of 64": lambda random: _inputs(random, 2, 1024, 4, 64, 64)},
    differentiable=("query", "key", "value", "log_decay", "initial_state"),
    float32=("initial_state",),
    floor=_floor,
    paper="Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv 2312.06635",
)
