"""Causal linear attention whose memory decays by one factor a head and step.

    S_t = exp(g_t) S_{t-1} + k_t v_t^T,    o_t = scale * S_t^T q_t

Shapes: query and key (batch, time, heads, head_dim), value (batch, time, heads, value_dim), log decay g (heads,) where it
is constant (RetNet, Lightning Attention, TransNormer) or (batch, time, heads) where data decide (Mamba-2's SSD, xPos-free
gated retention), initial_state S_0 (batch, heads, head_dim, value_dim) or None for zero. Returns o in the dtype of value,
and the last S in float32. Decays and sums are float32 (float64 for float64 inputs).

In chunks of C steps, with G the running sum of g in the chunk and S the state before it,

    O = ((Q K^T) * exp(G_i - G_j)[j <= i]) V + exp(G) Q S,    S' = exp(G_C) S + (exp(G_C - G) K)^T V

Only sums of g over the steps between i and j are ever exponentiated, so no decay is too strong; -inf forgets everything.

Floor, for N steps in all heads together, dims K and V and elements of e bytes: the forward reads q, k, v and writes o,
2N(K + V)e bytes, and multiplies 4NKV flops (the recurrence; chunks add 2NC(K + V)); the backward reads q, k, v and the
gradient of o and writes three gradients, N(4K + 3V)e bytes and 10NKV flops.

Papers: Retentive Network, arXiv 2307.08621; Lightning Attention-2, arXiv 2401.04658; Transformers are SSMs, arXiv
2405.21060.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._chunks import (
    check_shapes,
    chunk_length,
    chunk_states,
    dot_block,
    join_chunks,
    split_chunks,
    state_dot,
    states_between_chunks,
    triton_chunk_length,
)
from ._runtime import Backends, autocast, cdiv, dot_dtype, dot_precision, jit, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes
from .linear_scan import unit_stride

CHUNK = 64  # steps; on a CPU as fast as 32 and 128


def decay_linear_attention_reference(
    query: Float[Tensor, "batch time heads head_dim"],
    key: Float[Tensor, "batch time heads head_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    log_decay: Float[Tensor, " heads"] | Float[Tensor, "batch time heads"],
    initial_state: Float[Tensor, "batch heads head_dim value_dim"] | None,
    scale: float,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads head_dim value_dim"]]:
    q, k, v, decay, state = _widen(query, key, value, log_decay, initial_state)
    decay = decay.exp().expand(query.shape[:3])
    outputs = []
    for q_t, k_t, v_t, decay_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), decay.unbind(1)):
        state = decay_t[..., None, None] * state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q_t, state))
    return torch.stack(outputs, 1).to(value.dtype), state


def decay_linear_attention_torch(
    query: Float[Tensor, "batch time heads head_dim"],
    key: Float[Tensor, "batch time heads head_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    log_decay: Float[Tensor, " heads"] | Float[Tensor, "batch time heads"],
    initial_state: Float[Tensor, "batch heads head_dim value_dim"] | None,
    scale: float,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads head_dim value_dim"]]:
    q, k, v, log_decay, state = _widen(query, key, value, log_decay, initial_state)
    time, length = query.shape[1], chunk_length(query.shape[1], CHUNK)
    q, k, v = split_chunks(q * scale, length), split_chunks(k, length), split_chunks(v, length)

    constant = log_decay.ndim == 1
    steps = log_decay.expand(1, time, -1) if constant else log_decay
    steps = split_chunks(steps.unsqueeze(-1), length).squeeze(-1)
    since_start = steps.cumsum(-1)
    until_end = F.pad(steps[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1)
    # Within chunks a constant decay is the same everywhere, and steps after the last do not matter.
    between = _sums_between(log_decay[None, :, None, None].expand(-1, -1, -1, length) if constant else steps)

    scores = (q @ k.mT) * between.exp()
    update = (k * until_end.exp().unsqueeze(-1)).mT @ v
    states, final = states_between_chunks(update, since_start[..., -1:, None].exp(), state)
    output = scores @ v + (q * since_start.exp().unsqueeze(-1)) @ states
    return join_chunks(output, time).to(value.dtype), final


def _sums_between(steps: Tensor) -> Tensor:
    """[..., i, j]: the sum of the log decays after step j up to step i, -inf where j > i.

    Summed one by one: differences of running sums would lose digits, and -inf - -inf is not a number.
    """
    length = steps.shape[-1]
    lower = torch.ones(length, length, dtype=torch.bool, device=steps.device).tril()
    sums = steps.unsqueeze(-1).masked_fill(~lower.tril(-1), 0.0).cumsum(-2)
    return sums.masked_fill(~lower, -torch.inf)


def _widen(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial_state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(value.dtype, torch.float32)
    if initial_state is None:
        initial_state = value.new_zeros(value.shape[0], *query.shape[2:], value.shape[-1])
    return tuple(tensor.to(dtype) for tensor in (query, key, value, log_decay, initial_state))


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _running_sums(log_decay):
    """Running sums in base 2, whole numbers and rests apart, so that differences keep their digits; -inf becomes 0."""
    exponent = tl.maximum(log_decay * 1.4426950408889634, -16384.0)
    whole = tl.floor(exponent + 0.5)
    return tl.cumsum(whole, axis=0), tl.cumsum(exponent - whole, axis=0)


@jit(do_not_specialize=("time", "chunks"))
def _forward_kernel(
    query_ptr, key_ptr, value_ptr, decay_ptr, states_ptr, output_ptr, time, chunks, heads, key_dim, value_dim, scale,
    query_batch, query_time, query_head, key_batch, key_time, key_head, value_batch, value_time, value_head,
    decay_batch, decay_time, decay_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    position = tl.arange(0, LENGTH)
    row = chunk * LENGTH + position
    real = (row < time)[:, None]
    channels, columns = tl.arange(0, KEYS), tl.arange(0, VALUES)
    query_ptr += batch * query_batch + head * query_head
    key_ptr += batch * key_batch + head * key_head
    value_ptr += batch * value_batch + head * value_head
    states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    output_ptr += (batch * time * heads + head) * value_dim

    gates = decay_ptr + batch * decay_batch + head * decay_head + row * decay_time
    whole, rest = _running_sums(tl.load(gates, mask=row < time, other=0.0).to(tl.float32))
    since_start = tl.exp2(whole + rest)[:, None]
    between = tl.exp2(whole[:, None] - whole[None, :] + (rest[:, None] - rest[None, :]))

    scores = tl.zeros([LENGTH, LENGTH], tl.float32)
    for start in range(0, key_dim, KEYS):
        channel = start + channels
        query = tl.load(query_ptr + row[:, None] * query_time + channel[None, :], mask=real & (channel < key_dim)[None, :], other=0.0)
        keys = key_ptr + row[None, :] * key_time + channel[:, None]
        key = tl.load(keys, mask=(row < time)[None, :] & (channel < key_dim)[:, None], other=0.0)
        scores += tl.dot(query.to(tl.float32).to(DOT), key.to(tl.float32).to(DOT), input_precision=PRECISION)
    scores = tl.where(position[:, None] >= position[None, :], scores * between, 0.0)

    for column_start in range(0, value_dim, VALUES):
        column = column_start + columns
        inside = real & (column < value_dim)[None, :]
        earlier = tl.zeros([LENGTH, VALUES], tl.float32)
        for start in range(0, key_dim, KEYS):
            channel = start + channels
            query = tl.load(query_ptr + row[:, None] * query_time + channel[None, :], mask=real & (channel < key_dim)[None, :], other=0.0)
            places = states_ptr + channel[:, None] * value_dim + column[None, :]
            state = tl.load(places, mask=(channel < key_dim)[:, None] & (column < value_dim)[None, :], other=0.0)
            earlier += tl.dot(query.to(tl.float32).to(STATE_DOT), state.to(STATE_DOT), input_precision=STATE_PRECISION)
        value = tl.load(value_ptr + row[:, None] * value_time + column[None, :], mask=inside, other=0.0)
        output = earlier * since_start
        output += tl.dot(scores.to(DOT), value.to(tl.float32).to(DOT), input_precision=PRECISION)
        places = output_ptr + row[:, None] * heads * value_dim + column[None, :]
        tl.store(places, (output * scale).to(output_ptr.dtype.element_ty), mask=inside)
