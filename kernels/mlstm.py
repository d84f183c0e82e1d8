"""The mLSTM recurrence: a matrix memory with an exponential input gate, a forget gate and a normalizer.

    F_t = log sigmoid(f_t)
    m_t = max(F_t + m_{t-1}, i_t)                         keeps the exponentials at most 1
    C_t = exp(F_t + m_{t-1} - m_t) C_{t-1} + exp(i_t - m_t) k_t v_t^T
    n_t = exp(F_t + m_{t-1} - m_t) n_{t-1} + exp(i_t - m_t) k_t
    h_t = scale q_t C_t / (max(|scale q_t n_t|, exp(-m_t)) + eps)

Shapes: q, k (batch, time, heads, key_dim), v and h (batch, time, heads, value_dim), i and f (batch, time, heads); the
states C (batch, heads, key_dim, value_dim), n (batch, heads, key_dim), m (batch, heads), which start from 0. An input
gate of -inf writes nothing, a forget gate of inf forgets nothing: both together skip a step.

C_t e^{m_t} and n_t e^{m_t} do not depend on m, and h only through eps. All forms but the reference take m as a constant
and put back by hand what depends on it: eps and the final states. exp(-m) stops at m = -80, where h is nothing anyway.

With log decays a_t = F_t + m_{t-1} - m_t, keys exp(i_t - m_t) k_t and values (v_t, 1) this is decay_linear_attention,
which the torch form runs; no exponent is positive. m is a running maximum of i_t less the sum of F, in float64
(float32 where the device has none).

States, gates and sums are float32 (float64 for float64 inputs); h has the dtype of v, each gradient that of its input.
The kernels multiply in the dtype of q. Autocast casts q, k and v.

Floor, for R = batch * time * heads: the forward reads q, k, v and writes h, R(2K + 2V)e bytes, with 4RL(K + V) / 2 +
4RKV flops in chunks of L = 64; the backward reads q, k, v and two tensors like v and writes three, with 2.5 times that.

Papers: xLSTM: Extended Long Short-Term Memory, arXiv 2405.04517; Tiled Flash Linear Attention, arXiv 2503.14376.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._chunks import (
    block_side,
    chunk_states,
    dot_block,
    load_tile,
    load_transposed,
    state_dot,
    store_tile,
    triton_chunk_length,
)
from ._runtime import Backends, autocast, cdiv, dot_dtype, dot_precision, jit, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes
from .decay_linear_attention import _decay_between, decay_linear_attention_torch
from .delta_rule import _chunk_decays
from .linear_scan import unit_stride

LOWEST = -80.0  # exp(80) is still a float32


class MLSTMState(NamedTuple):
    """What the mLSTM remembers: C and n, both divided by e^m, and m. In float32."""

    cell: Float[Tensor, "batch heads key_dim value_dim"]
    normalizer: Float[Tensor, "batch heads key_dim"]
    stabilizer: Float[Tensor, "batch heads"]


def mlstm_reference(
    query: Float[Tensor, "batch time heads key_dim"],
    key: Float[Tensor, "batch time heads key_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    input_gate: Float[Tensor, "batch time heads"],
    forget_gate: Float[Tensor, "batch time heads"],
    initial_state: MLSTMState,
    scale: float,
    eps: float,
) -> tuple[Float[Tensor, "batch time heads value_dim"], MLSTMState]:
    cell, normalizer, stabilizer = initial_state
    steps = (part.to(cell.dtype).unbind(1) for part in (query, key, value, input_gate, forget_gate))
    outputs = []
    with torch.autocast(query.device.type, enabled=False):
        for q, k, v, gate, forget in zip(*steps):
            kept = F.logsigmoid(forget) + stabilizer
            stabilizer = torch.maximum(kept, gate)
            keep, write = torch.exp(kept - stabilizer), torch.exp(gate - stabilizer)
            written = write.unsqueeze(-1) * k
            cell = keep[..., None, None] * cell + written.unsqueeze(-1) * v.unsqueeze(-2)
            normalizer = keep.unsqueeze(-1) * normalizer + written
            numerator = scale * torch.einsum("bhk,bhkv->bhv", q, cell)
            floor = torch.exp(-stabilizer.clamp_min(LOWEST))
            denominator = torch.maximum((scale * q * normalizer).sum(-1).abs(), floor) + eps
            outputs.append(numerator / denominator.unsqueeze(-1))
    y = torch.stack(outputs, 1) if outputs else value
    return y.to(value.dtype), MLSTMState(cell, normalizer, stabilizer)


class _Gates(NamedTuple):
    """Of each step: the logarithms of what it keeps and writes, for which m is a constant; and m."""

    log_keep: Tensor
    log_write: Tensor
    stabilizer: Tensor


def _stabilize(input_gate: Tensor, forget_gate: Tensor, initial: Tensor) -> _Gates:
    wide = initial.dtype
    exact = torch.float64 if initial.device.type != "mps" else wide
    log_forget, gate, initial = F.logsigmoid(forget_gate.to(wide)).to(exact), input_gate.to(exact), initial.unsqueeze(1)
    total = log_forget.cumsum(1)
    stabilizer = total + torch.maximum(initial.to(exact), (gate - total).cummax(1).values)
    fixed = stabilizer.detach()
    before = torch.cat((initial.to(exact), fixed[:, :-1]), 1)
    return _Gates((log_forget + before - fixed).to(wide), (gate - fixed).to(wide), stabilizer.to(wide))


def _final_state(cell: Tensor, normalizer: Tensor, stabilizer: Tensor) -> MLSTMState:
    """With the gradient of m at the end: C and n were computed as though it were a constant."""
    last = stabilizer[:, -1]
    one = torch.exp(last.detach() - last).unsqueeze(-1)
    return MLSTMState(cell * one.unsqueeze(-1), normalizer * one, last)


# --- torch ------------------------------------------------------------------------------------------------------------


def mlstm_torch(
    query: Float[Tensor, "batch time heads key_dim"],
    key: Float[Tensor, "batch time heads key_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    input_gate: Float[Tensor, "batch time heads"],
    forget_gate: Float[Tensor, "batch time heads"],
    initial_state: MLSTMState,
    scale: float,
    eps: float,
) -> tuple[Float[Tensor, "batch time heads value_dim"], MLSTMState]:
    dtype, wide = value.dtype, initial_state.cell.dtype
    gates = _stabilize(input_gate, forget_gate, initial_state.stabilizer)
    with torch.autocast(query.device.type, enabled=False):
        written = key.to(wide) * gates.log_write.exp().unsqueeze(-1)
        value = F.pad(value.to(wide), (0, 1), value=1.0)  # the normalizer is one more column of the cell
        state = torch.cat((initial_state.cell, initial_state.normalizer.unsqueeze(-1)), -1)
        y, state = decay_linear_attention_torch(query.to(wide), written, value, gates.log_keep, state, scale)
    floor = torch.exp(-gates.stabilizer.detach().clamp_min(LOWEST))
    drift = torch.exp(gates.stabilizer - gates.stabilizer.detach())  # 1, with the gradient of m through eps
    denominator = torch.maximum(y[..., -1].abs(), floor) + eps * drift
    y = (y[..., :-1] / denominator.unsqueeze(-1)).to(dtype)
    return y, _final_state(state[..., :-1], state[..., -1], gates.stabilizer)


# --- Triton -----------------------------------------------------------------------------------------------------------
#
# The states before chunks, and backwards their gradients, come from `chunk_states`; the kernels here take all chunks at
# once. The backward computes the states again. What is one number a step is (batch, heads, time) in float32.


@jit
def _load_write(log_write_ptr, row, time):
    """What each step of a chunk writes, at most 1; nothing past the end."""
    return tl.exp(tl.load(log_write_ptr + row, mask=row < time, other=float("-inf")))


@jit(do_not_specialize=["time"])
def _forward_kernel(
    query_ptr, key_ptr, value_ptr, log_keep_ptr, log_write_ptr, stabilizer_ptr, cells_ptr, normalizers_ptr,
    y_ptr, alignment_ptr, time, heads, key_dim, value_dim, scale, eps, lowest,
    query_batch, query_time, query_head, key_batch, key_time, key_head, value_batch, value_time, value_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """h, and the alignment q n, the absolute value of which divides it."""
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    query_ptr += batch * query_batch + head * query_head
    key_ptr += batch * key_batch + head * key_head
    value_ptr += batch * value_batch + head * value_head
    border = sequence * tl.num_programs(1) + chunk
    column = tl.program_id(2) * VALUES + tl.arange(0, VALUES)
    position = tl.arange(0, LENGTH)
    step = chunk * LENGTH + position
    whole, rest, since_start, _, _ = _chunk_decays(log_keep_ptr + sequence * time, step, 1, time, LENGTH)
    write = _load_write(log_write_ptr + sequence * time, step, time)

    scores = tl.zeros([LENGTH, LENGTH], tl.float32)
    y = tl.zeros([LENGTH, VALUES], tl.float32)
    alignment = tl.zeros([LENGTH], tl.float32)
    for first in range(0, key_dim, KEYS):
        channel = first + tl.arange(0, KEYS)
        query = load_tile(query_ptr, step, query_time, time, channel, key_dim)
        key = load_transposed(key_ptr, step, key_time, time, channel, key_dim)
        cell = load_tile(cells_ptr + border * key_dim * value_dim, channel, value_dim, key_dim, column, value_dim)
        normalizer = tl.load(normalizers_ptr + border * key_dim + channel, mask=channel < key_dim, other=0.0)
        scores += tl.dot(query.to(DOT), key.to(DOT), input_precision=PRECISION)
        y += tl.dot(query.to(STATE_DOT), cell.to(STATE_DOT), input_precision=STATE_PRECISION)
        alignment += tl.sum(query.to(tl.float32) * normalizer[None, :], 1)
    past = position[:, None] >= position[None, :]
    scores *= write[None, :] * _decay_between(whole[:, None], rest[:, None], whole[None, :], rest[None, :], past)
    value = load_tile(value_ptr, step, value_time, time, column, value_dim)
    y = y * since_start[:, None] + tl.dot(scores.to(DOT), value.to(DOT), input_precision=PRECISION)
    alignment = scale * (alignment * since_start + tl.sum(scores, 1))

    stabilizer = tl.load(stabilizer_ptr + sequence * time + step, mask=step < time, other=0.0)
    denominator = tl.maximum(tl.abs(alignment), tl.exp(-tl.maximum(stabilizer, lowest))) + eps
    y_ptr += (batch * time * heads + head) * value_dim
    store_tile(y_ptr, step, heads * value_dim, time, column, value_dim, scale * y / denominator[:, None])
    tl.store(alignment_ptr + sequence * time + step, alignment, mask=(step < time) & (tl.program_id(2) == 0))


@jit(do_not_specialize=["time"])
def _value_gradient_kernel(
    query_ptr, key_ptr, log_keep_ptr, log_write_ptr, grad_ptr, grad_cells_ptr, grad_value_ptr,
    time, heads, key_dim, value_dim,
    query_batch, query_time, query_head, key_batch, key_time, key_head, grad_batch, grad_time, grad_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    query_ptr += batch * query_batch + head * query_head
    key_ptr += batch * key_batch + head * key_head
    grad_ptr += batch * grad_batch + head * grad_head
    grad_cells_ptr += (sequence * tl.num_programs(1) + chunk) * key_dim * value_dim
    column = tl.program_id(2) * VALUES + tl.arange(0, VALUES)
    position = tl.arange(0, LENGTH)
    step = chunk * LENGTH + position
    whole, rest, _, until_end, _ = _chunk_decays(log_keep_ptr + sequence * time, step, 1, time, LENGTH)
    write = _load_write(log_write_ptr + sequence * time, step, time)

    scores = tl.zeros([LENGTH, LENGTH], tl.float32)  # of a key (row) for a query (column)
    grad_value = tl.zeros([LENGTH, VALUES], tl.float32)
    for first in range(0, key_dim, KEYS):
        channel = first + tl.arange(0, KEYS)
        key = load_tile(key_ptr, step, key_time, time, channel, key_dim)
        query = load_transposed(query_ptr, step, query_time, time, channel, key_dim)
        grad_cell = load_tile(grad_cells_ptr, channel, value_dim, key_dim, column, value_dim)
        scores += tl.dot(key.to(DOT), query.to(DOT), input_precision=PRECISION)
        grad_value += tl.dot(key.to(STATE_DOT), grad_cell.to(STATE_DOT), input_precision=STATE_PRECISION)
    later = position[:, None] <= position[None, :]
    scores *= write[:, None] * _decay_between(whole[None, :], rest[None, :], whole[:, None], rest[:, None], later)
    grad = load_tile(grad_ptr, step, grad_time, time, column, value_dim)
    grad_value *= (until_end * write)[:, None]
    grad_value += tl.dot(scores.to(DOT), grad.to(DOT), input_precision=PRECISION)
    grad_value_ptr += (batch * time * heads + head) * value_dim
    store_tile(grad_value_ptr, step, heads * value_dim, time, column, value_dim, grad_value)


@jit(do_not_specialize=["time"])
def _query_key_gradient_kernel(
    query_ptr, key_ptr, value_ptr, log_keep_ptr, log_write_ptr, grad_ptr, grad_alignment_ptr,
    cells_ptr, normalizers_ptr, grad_cells_ptr, grad_normalizers_ptr, grad_query_ptr, grad_key_ptr, products_ptr,
    time, heads, key_dim, value_dim,
    query_batch, query_time, query_head, key_batch, key_time, key_head, value_batch, value_time, value_head,
    grad_batch, grad_time, grad_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """The gradients of q and k, and the product of each with its gradient, from which those of the gates follow."""
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    query_ptr += batch * query_batch + head * query_head
    key_ptr += batch * key_batch + head * key_head
    value_ptr += batch * value_batch + head * value_head
    grad_ptr += batch * grad_batch + head * grad_head
    border = sequence * tl.num_programs(1) + chunk
    cells_ptr += border * key_dim * value_dim
    grad_cells_ptr += border * key_dim * value_dim
    channel = tl.program_id(2) * KEYS + tl.arange(0, KEYS)
    position = tl.arange(0, LENGTH)
    step = chunk * LENGTH + position
    whole, rest, since_start, until_end, _ = _chunk_decays(log_keep_ptr + sequence * time, step, 1, time, LENGTH)
    write = _load_write(log_write_ptr + sequence * time, step, time)
    grad_alignment = tl.load(grad_alignment_ptr + sequence * time + step, mask=step < time, other=0.0)
    normalizer = tl.load(normalizers_ptr + border * key_dim + channel, mask=channel < key_dim, other=0.0)
    grad_normalizer = tl.load(grad_normalizers_ptr + border * key_dim + channel, mask=channel < key_dim, other=0.0)

    by_query = tl.zeros([LENGTH, LENGTH], tl.float32)  # the gradient of the scores, with queries in rows
    by_key = tl.zeros([LENGTH, LENGTH], tl.float32)  # and with keys in rows
    grad_query = tl.zeros([LENGTH, KEYS], tl.float32)
    grad_key = tl.zeros([LENGTH, KEYS], tl.float32)
    for first in range(0, value_dim, VALUES):
        column = first + tl.arange(0, VALUES)
        grad = load_tile(grad_ptr, step, grad_time, time, column, value_dim)
        grad_columns = load_transposed(grad_ptr, step, grad_time, time, column, value_dim)
        value = load_tile(value_ptr, step, value_time, time, column, value_dim)
        value_columns = load_transposed(value_ptr, step, value_time, time, column, value_dim)
        cell = load_transposed(cells_ptr, channel, value_dim, key_dim, column, value_dim)
        grad_cell = load_transposed(grad_cells_ptr, channel, value_dim, key_dim, column, value_dim)
        by_query += tl.dot(grad.to(DOT), value_columns.to(DOT), input_precision=PRECISION)
        by_key += tl.dot(value.to(DOT), grad_columns.to(DOT), input_precision=PRECISION)
        grad_query += tl.dot(grad.to(STATE_DOT), cell.to(STATE_DOT), input_precision=STATE_PRECISION)
        grad_key += tl.dot(value.to(STATE_DOT), grad_cell.to(STATE_DOT), input_precision=STATE_PRECISION)
    past, later = position[:, None] >= position[None, :], position[:, None] <= position[None, :]
    by_query += grad_alignment[:, None]
    by_query *= write[None, :] * _decay_between(whole[:, None], rest[:, None], whole[None, :], rest[None, :], past)
    by_key += grad_alignment[None, :]
    by_key *= write[:, None] * _decay_between(whole[None, :], rest[None, :], whole[:, None], rest[:, None], later)

    query = load_tile(query_ptr, step, query_time, time, channel, key_dim)
    key = load_tile(key_ptr, step, key_time, time, channel, key_dim)
    grad_query += grad_alignment[:, None] * normalizer[None, :]
    grad_query *= since_start[:, None]
    grad_query += tl.dot(by_query.to(DOT), key.to(DOT), input_precision=PRECISION)
    grad_key += grad_normalizer[None, :]
    grad_key *= (until_end * write)[:, None]
    grad_key += tl.dot(by_key.to(DOT), query.to(DOT), input_precision=PRECISION)

    offset = (batch * time * heads + head) * key_dim
    store_tile(grad_query_ptr + offset, step, heads * key_dim, time, channel, key_dim, grad_query)
    store_tile(grad_key_ptr + offset, step, heads * key_dim, time, channel, key_dim, grad_key)
    sequences = tl.num_programs(0)
    products_ptr += (tl.program_id(2) * 2 * sequences + sequence) * time
    tl.store(products_ptr + step, tl.sum(query.to(tl.float32) * grad_query, 1), mask=step < time)
    tl.store(products_ptr + sequences * time + step, tl.sum(key.to(tl.float32) * grad_key, 1), mask=step < time)


def _settings(query: Tensor, value: Tensor) -> dict:
    return {
        "DOT": dot_dtype(query.dtype), "PRECISION": dot_precision(), **state_dot(query.dtype),
        "LENGTH": triton_chunk_length(query.dtype), "KEYS": dot_block(query.shape[-1], block_side(query.dtype)),
        "VALUES": dot_block(value.shape[-1], block_side(value.dtype)), "num_warps": 4, "num_stages": 2,
    }  # fmt: skip


def _by_head(x: Tensor) -> Tensor:
    """(batch, time, heads) to (batch, heads, time)."""
    return x.transpose(1, 2).contiguous()


def _states(key: Tensor, value: Tensor, log_keep: Tensor, log_write: Tensor, cell: Tensor, normalizer: Tensor):
    """C and n before each chunk, and the last of each."""
    length = triton_chunk_length(key.dtype)
    written = (key * log_write.exp().unsqueeze(-1)).to(key.dtype)
    ones = value.new_ones(()).expand(*value.shape[:3], 1)
    cells, last_cell = chunk_states(written, value, log_keep, cell, length)
    normalizers, last_normalizer = chunk_states(written, ones, log_keep, normalizer.unsqueeze(-1), length)
    return cells, normalizers, last_cell, last_normalizer.squeeze(-1)


def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, log_keep: Tensor, log_write: Tensor, stabilizer: Tensor,
    cell: Tensor, normalizer: Tensor, scale: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, heads, _ = query.shape
    alignment = cell.new_empty((batch, heads, time))
    return value.new_empty(value.shape), cell.new_empty(cell.shape), normalizer.new_empty(normalizer.shape), alignment


@operator("mlstm", fake=_forward_fake)
def _forward(
    query: Tensor, key: Tensor, value: Tensor, log_keep: Tensor, log_write: Tensor, stabilizer: Tensor,
    cell: Tensor, normalizer: Tensor, scale: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, heads, key_dim = query.shape
    query, key, value = map(unit_stride, (query, key, value))
    y, last_cell, last_normalizer, alignment = _forward_fake(
        query, key, value, log_keep, log_write, stabilizer, cell, normalizer, scale, eps
    )
    if value.numel():
        settings = _settings(query, value)
        cells, normalizers, last_cell, last_normalizer = _states(key, value, log_keep, log_write, cell, normalizer)
        _forward_kernel[(batch * heads, cells.shape[2], cdiv(value.shape[-1], settings["VALUES"]))](
            query, key, value, _by_head(log_keep), _by_head(log_write), _by_head(stabilizer), cells, normalizers,
            y, alignment, time, heads, key_dim, value.shape[-1], scale, eps, LOWEST,
            *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], **settings,
        )  # fmt: skip
    return y, last_cell, last_normalizer, alignment


def _backward_fake(
    grad_y: Tensor, grad_cell: Tensor, grad_normalizer: Tensor, query: Tensor, key: Tensor, value: Tensor,
    log_keep: Tensor, log_write: Tensor, stabilizer: Tensor, cell: Tensor, normalizer: Tensor,
    y: Tensor, last_cell: Tensor, last_normalizer: Tensor, alignment: Tensor, scale: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    inputs = (query, key, value, log_keep, log_write, stabilizer, cell, normalizer)
    return tuple(part.new_empty(part.shape) for part in inputs)


@operator("mlstm_backward", fake=_backward_fake)
def _backward(
    grad_y: Tensor, grad_cell: Tensor, grad_normalizer: Tensor, query: Tensor, key: Tensor, value: Tensor,
    log_keep: Tensor, log_write: Tensor, stabilizer: Tensor, cell: Tensor, normalizer: Tensor,
    y: Tensor, last_cell: Tensor, last_normalizer: Tensor, alignment: Tensor, scale: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, heads, key_dim = query.shape
    value_dim = value.shape[-1]
    query, key, value = map(unit_stride, (query, key, value))
    grad_query, grad_key, grad_value = (part.new_empty(part.shape) for part in (query, key, value))
    first_cell, first_normalizer = cell.new_empty(cell.shape), normalizer.new_empty(normalizer.shape)

    floor = torch.exp(-_by_head(stabilizer).clamp_min(LOWEST))
    denominator = torch.maximum(alignment.abs(), floor) + eps
    share = _by_head((grad_y.float() * y.float()).sum(-1)) / denominator  # what the denominator takes from the loss
    grad_alignment = torch.where(alignment.abs() > floor, -scale * share * alignment.sign(), 0.0)
    grad = (grad_y * (scale / denominator).transpose(1, 2).unsqueeze(-1)).to(query.dtype).contiguous()
    settings = _settings(query, value)
    products = cell.new_empty((cdiv(key_dim, settings["KEYS"]), 2, batch, heads, time))
    if value.numel():
        cells, normalizers, *_ = _states(key, value, log_keep, log_write, cell, normalizer)
        by_step = grad_alignment.transpose(1, 2).unsqueeze(-1).to(query.dtype)
        grad_cells, first_cell = chunk_states(query, grad, log_keep, grad_cell, settings["LENGTH"], reverse=True)
        grad_normalizers, first_normalizer = chunk_states(
            query, by_step, log_keep, grad_normalizer.unsqueeze(-1), settings["LENGTH"], reverse=True
        )
        first_normalizer = first_normalizer.squeeze(-1)
        gates = _by_head(log_keep), _by_head(log_write)
        sizes, strides = (time, heads, key_dim, value_dim), (*query.stride()[:3], *key.stride()[:3])
        _value_gradient_kernel[(batch * heads, cells.shape[2], cdiv(value_dim, settings["VALUES"]))](
            query, key, *gates, grad, grad_cells, grad_value, *sizes, *strides, *grad.stride()[:3], **settings
        )
        _query_key_gradient_kernel[(batch * heads, cells.shape[2], len(products))](
            query, key, value, *gates, grad, grad_alignment, cells, normalizers, grad_cells, grad_normalizers,
            grad_query, grad_key, products, *sizes, *strides, *value.stride()[:3], *grad.stride()[:3], **settings,
        )  # fmt: skip

    # Each q_t comes with e^{b_t}, each k_s with e^{-b_s} w_s, and the last state with e^{b_T}, where b runs from the
    # first step: hence the gradients of the logarithms.
    of_query, of_key = products.sum(0)
    of_sums = of_query - of_key
    end = (grad_cell * last_cell).sum((-2, -1)) + (grad_normalizer * last_normalizer).sum(-1)
    grad_keep = of_sums.double().flip(-1).cumsum(-1).flip(-1).to(cell.dtype) + end.unsqueeze(-1)
    gates = (
        part.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # an op must not return views of one tensor
        for part in (grad_keep, of_key, -eps * share)
    )
    return grad_query, grad_key, grad_value, *gates, first_cell, first_normalizer


def _save_for_backward(ctx, inputs, output):
    *tensors, ctx.scale, ctx.eps = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradient(ctx, grad_y, grad_cell, grad_normalizer, _):
    grads = _backward(grad_y, grad_cell, grad_normalizer, *ctx.saved_tensors, ctx.scale, ctx.eps)
    return *grads, None, None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _mlstm_triton(
    query: Tensor, key: Tensor, value: Tensor, input_gate: Tensor, forget_gate: Tensor, initial_state: MLSTMState,
    scale: float, eps: float,
) -> tuple[Tensor, MLSTMState]:  # fmt: skip
    gates = _stabilize(input_gate, forget_gate, initial_state.stabilizer)
    y, cell, normalizer, _ = _forward(query, key, value, *gates, *initial_state[:2], scale, eps)
    return y, _final_state(cell, normalizer, gates.stabilizer)


def _triton_refuses(query: Tensor, key: Tensor, value: Tensor, *_, **__) -> str | None:
    if not query.dtype == key.dtype == value.dtype:
        return f"query, key and value have different dtypes, {query.dtype}, {key.dtype} and {value.dtype}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("mlstm", mlstm_reference, mlstm_torch, _mlstm_triton, _triton_refuses)


def mlstm(
    query: Float[Tensor, "batch time heads key_dim"],
    key: Float[Tensor, "batch time heads key_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    input_gate: Float[Tensor, "batch time heads"],
    forget_gate: Float[Tensor, "batch time heads"],
    initial_state: MLSTMState | None = None,
    *,
    scale: float | None = None,
    eps: float = 1e-6,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time heads value_dim"], MLSTMState]:
    """The mLSTM recurrence: h_t = q_t C_t / (max(|q_t n_t|, exp(-m_t)) + eps), C a gated sum of k v^T, n one of k.

    C and n decay by sigmoid(f) and gain exp(i) k v^T and exp(i) k; both are kept divided by e^m, m_t = max(log
    sigmoid(f_t) + m_{t-1}, i_t).

    query and key (batch, time, heads, key_dim), value (batch, time, heads, value_dim), input_gate i and forget_gate f
    (batch, time, heads) before their functions, initial_state (C, n, m) or None for zeros, scale of the queries or None
    for key_dim^-0.5. Returns h in the dtype and shape of value, and the state after the last step in float32. Raises
    ValueError for shapes that do not fit, or a backend that cannot serve the call.

    xLSTM: Extended Long Short-Term Memory, arXiv 2405.04517; in chunks: Tiled Flash Linear Attention, arXiv 2503.14376.
    """
    if not (query.shape == key.shape and query.shape[:3] == value.shape[:3]) or query.dim() != 4 or value.dim() != 4:
        raise ValueError(
            "mlstm: query and key must be (batch, time, heads, key_dim), value (batch, time, heads, value_dim); they "
            f"are {tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    batch, time, heads, key_dim = query.shape
    if not input_gate.shape == forget_gate.shape == (batch, time, heads):
        raise ValueError(
            f"mlstm: gates must be {(batch, time, heads)}; they are {tuple(input_gate.shape)} and "
            f"{tuple(forget_gate.shape)}"
        )
    shapes = ((batch, heads, key_dim, value.shape[-1]), (batch, heads, key_dim), (batch, heads))
    wide = torch.promote_types(query.dtype, torch.float32)
    if initial_state is None:
        state = MLSTMState(*(query.new_zeros(shape, dtype=wide) for shape in shapes))
    else:
        for name, part, shape in zip(MLSTMState._fields, initial_state, shapes):
            if part.shape != shape:
                raise ValueError(f"mlstm: the state's {name} must be {shape}; it is {tuple(part.shape)}")
        state = MLSTMState(*(part.to(wide) for part in initial_state))
    query, key, value = autocast(query, key, value)
    if not time:
        return value.clone(), state
    run = _BACKENDS.select(backend, query, key, value, input_gate, forget_gate, *state)
    return run(query, key, value, input_gate, forget_gate, state, key_dim**-0.5 if scale is None else scale, eps)


def _floor(query: Tensor, key: Tensor, value: Tensor, **_) -> tuple[Cost, Cost]:
    read = size_in_bytes(query, key, value)
    steps, key_dim, value_dim = query[..., 0].numel(), query.shape[-1], value.shape[-1]
    flops = steps * (2 * 64 * (key_dim + value_dim) + 4 * key_dim * value_dim)
    values = size_in_bytes(value)
    return Cost(read + values, flops), Cost(2 * read + 2 * values, 2.5 * flops)


def _inputs(
    random: Sampler, batch: int, time: int, heads: int, key_dim: int, value_dim: int, *, state: bool = False
) -> dict:
    initial = None
    if state:
        initial = MLSTMState(
            random.normal(batch, heads, key_dim, value_dim), random.normal(batch, heads, key_dim),
            random.normal(batch, heads),
        )  # fmt: skip
    return {
        "query": random.normal(batch, time, heads, key_dim),
        "key": random.normal(batch, time, heads, key_dim),
        "value": random.normal(batch, time, heads, value_dim),
        "input_gate": random.normal(batch, time, heads) - 1,
        "forget_gate": random.normal(batch, time, heads) + 2,
        "initial_state": initial,
    }


def _extreme(random: Sampler, time: int) -> dict:
    """Gates of +-100: steps that forget all, keep all, write nothing, or outweigh everything before.

    The normalizer is then all that a sum is divided by: queries and keys are positive, that it may not be near zero.
    """
    inputs = _inputs(random, 1, time, 2, 5, 3, state=True)
    for name in ("input_gate", "forget_gate"):
        inputs[name] = torch.where(inputs[name].abs() > 1.5, 100 * inputs[name].sign(), inputs[name])
    inputs["initial_state"] = MLSTMState(*map(torch.abs, inputs["initial_state"]))
    return {**inputs, "query": inputs["query"].abs(), "key": inputs["key"].abs()}


SPEC = OpSpec(
    function=mlstm,
    backends=_BACKENDS,
    cases={
        "one step": lambda random: _inputs(random, 1, 1, 2, 3, 2, state=True),
        "prime": lambda random: _inputs(random, 2, 19, 1, 7, 5, state=True),
        "no state": lambda random: {**_inputs(random, 1, 5, 2, 17, 1), "scale": 0.3, "eps": 1e-2},
        "extreme gates": lambda random: _extreme(random, 19),
        "no samples": lambda random: _inputs(random, 0, 3, 1, 3, 2),
    },
    large_cases={
        "several chunks": lambda random: _inputs(random, 2, 193, 2, 16, 24, state=True),
        "extreme gates in several chunks": lambda random: _extreme(random, 67),
    },
    benchmarks={
        "1024 steps, 4 heads of 64": lambda random: _inputs(random, 2, 1024, 4, 64, 64),
        "256 steps, 4 heads, keys 64, values 128": lambda random: _inputs(random, 4, 256, 4, 64, 128),
    },
    differentiable=("query", "key", "value", "input_gate", "forget_gate", "initial_state"),
    floor=_floor,
    paper="xLSTM: Extended Long Short-Term Memory, arXiv 2405.04517",
    float32=("initial_state",),
)
