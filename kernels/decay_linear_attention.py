"""Causal linear attention whose memory decays by one factor a head and step.

    S_t = exp(g_t) S_{t-1} + k_t v_t^T,    o_t = scale * S_t^T q_t

Shapes: query and key (batch, time, heads or 1, head_dim), value (batch, time, heads, value_dim), log decay g (heads,)
where it is constant (RetNet, Lightning Attention, TransNormer) or (batch, time, heads) where data decide (Mamba-2's
SSD), initial_state S_0 (batch, heads, head_dim, value_dim) or None for zero. Returns o in the dtype of value, and the
last S in float32. Decays and sums are float32 (float64 for float64 inputs).

In chunks of C steps, with G the running sum of g in the chunk and S the state before it,

    O = ((Q K^T) * exp(G_i - G_j)[j <= i]) V + exp(G) Q S,    S' = exp(G_C) S + (exp(G_C - G) K)^T V

Only sums of g over the steps between i and j are exponentiated: no decay is too strong, and -inf forgets everything.

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

CHUNK = 64  # steps; on a CPU as fast as 32 and 128


def decay_linear_attention_reference(
    query: Float[Tensor, "batch time key_heads head_dim"],
    key: Float[Tensor, "batch time key_heads head_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    log_decay: Float[Tensor, " heads"] | Float[Tensor, "batch time heads"],
    initial_state: Float[Tensor, "batch heads head_dim value_dim"] | None,
    scale: float,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads head_dim value_dim"]]:
    q, k, v, decay, state = _widen(query, key, value, log_decay, initial_state)
    q, k, decay = q.expand(*v.shape[:3], -1), k.expand(*v.shape[:3], -1), decay.exp().expand(v.shape[:3])
    outputs = []
    for q_t, k_t, v_t, decay_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), decay.unbind(1)):
        state = decay_t[..., None, None] * state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q_t, state))
    return torch.stack(outputs, 1).to(value.dtype), state


def decay_linear_attention_torch(
    query: Float[Tensor, "batch time key_heads head_dim"],
    key: Float[Tensor, "batch time key_heads head_dim"],
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
    states, final = states_between_chunks(update, since_start[..., -1:, None].exp(), state, False)
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
        initial_state = value.new_zeros(value.shape[0], value.shape[2], query.shape[-1], value.shape[-1])
    return tuple(tensor.to(dtype) for tensor in (query, key, value, log_decay, initial_state))


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _running_sums(log_decay):
    """Running sums in base 2, whole numbers and rests apart, so that differences keep their digits; -inf becomes 0."""
    exponent = tl.maximum(log_decay * 1.4426950408889634, -16384.0)
    whole = tl.floor(exponent + 0.5)
    return tl.cumsum(whole, axis=0), tl.cumsum(exponent - whole, axis=0)


@jit
def _decay_between(later_whole, later_rest, earlier_whole, earlier_rest, allowed):
    """The decay from earlier steps to later ones, zero where it is not allowed."""
    return tl.exp2(tl.where(allowed, (later_whole - earlier_whole) + (later_rest - earlier_rest), -16384.0))


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
    query_ptr += batch * query_batch + head * query_head
    key_ptr += batch * key_batch + head * key_head
    value_ptr += batch * value_batch + head * value_head
    states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    output_ptr += (batch * time * heads + head) * value_dim

    gates = decay_ptr + batch * decay_batch + head * decay_head + row * decay_time
    whole, rest = _running_sums(tl.load(gates, mask=row < time, other=0.0).to(tl.float32))
    since_start = tl.exp2(whole + rest)[:, None]

    scores = tl.zeros([LENGTH, LENGTH], tl.float32)
    for start in range(0, key_dim, KEYS):
        channel = start + tl.arange(0, KEYS)
        query = load_tile(query_ptr, row, query_time, time, channel, key_dim).to(DOT)
        key = load_transposed(key_ptr, row, key_time, time, channel, key_dim).to(DOT)
        scores += tl.dot(query, key, input_precision=PRECISION)
    lower = position[:, None] >= position[None, :]
    scores *= _decay_between(whole[:, None], rest[:, None], whole[None, :], rest[None, :], lower)

    for column_start in range(0, value_dim, VALUES):
        column = column_start + tl.arange(0, VALUES)
        earlier = tl.zeros([LENGTH, VALUES], tl.float32)
        for start in range(0, key_dim, KEYS):
            channel = start + tl.arange(0, KEYS)
            query = load_tile(query_ptr, row, query_time, time, channel, key_dim).to(STATE_DOT)
            state = load_tile(states_ptr, channel, value_dim, key_dim, column, value_dim).to(STATE_DOT)
            earlier += tl.dot(query, state, input_precision=STATE_PRECISION)
        value = load_tile(value_ptr, row, value_time, time, column, value_dim).to(DOT)
        output = earlier * since_start + tl.dot(scores.to(DOT), value, input_precision=PRECISION)
        store_tile(output_ptr, row, heads * value_dim, time, column, value_dim, output * scale)


@jit(do_not_specialize=("time", "chunks"))
def _backward_kernel(
    grad_ptr, query_ptr, key_ptr, value_ptr, decay_ptr, states_ptr, grad_states_ptr,
    grad_query_ptr, grad_key_ptr, grad_value_ptr, grad_decay_ptr, time, chunks, heads, key_dim, value_dim, scale,
    grad_batch, grad_time, grad_head, query_batch, query_time, query_head, key_batch, key_time, key_head,
    value_batch, value_time, value_head, decay_batch, decay_time, decay_head,
    DOT: tl.constexpr, PRECISION: tl.constexpr, STATE_DOT: tl.constexpr, STATE_PRECISION: tl.constexpr,
    LENGTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    sequence, chunk = tl.cast(tl.program_id(0), tl.int64), tl.cast(tl.program_id(1), tl.int64)
    batch, head = sequence // heads, sequence % heads
    position = tl.arange(0, LENGTH)
    row = chunk * LENGTH + position
    grad_ptr += batch * grad_batch + head * grad_head
    query_ptr += batch * query_batch + head * query_head
    key_ptr += batch * key_batch + head * key_head
    value_ptr += batch * value_batch + head * value_head
    states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    grad_states_ptr += (sequence * chunks + chunk) * key_dim * value_dim
    grad_query_ptr += (batch * time * heads + head) * key_dim
    grad_key_ptr += (batch * time * heads + head) * key_dim
    grad_value_ptr += (batch * time * heads + head) * value_dim

    gates = decay_ptr + batch * decay_batch + head * decay_head + row * decay_time
    gate = tl.load(gates, mask=row < time, other=0.0).to(tl.float32)
    whole, rest = _running_sums(gate)
    last = position == LENGTH - 1
    last_whole = tl.sum(tl.where(last, whole, 0.0), axis=0)
    last_rest = tl.sum(tl.where(last, rest, 0.0), axis=0)
    since_start = tl.exp2(whole + rest)
    until_end = tl.exp2((last_whole - whole) + (last_rest - rest))
    forget = tl.exp2(last_whole + last_rest)
    lower = position[:, None] >= position[None, :]
    upper = position[:, None] <= position[None, :]
    # [query, key] and [key, query]: both are computed, because no product is transposed after the fact.
    decay = _decay_between(whole[:, None], rest[:, None], whole[None, :], rest[None, :], lower)
    decay_t = _decay_between(whole[None, :], rest[None, :], whole[:, None], rest[:, None], upper)

    scores = tl.zeros([LENGTH, LENGTH], tl.float32)
    scores_t = tl.zeros([LENGTH, LENGTH], tl.float32)
    for start in range(0, key_dim, KEYS):
        channel = start + tl.arange(0, KEYS)
        query = load_tile(query_ptr, row, query_time, time, channel, key_dim).to(DOT)
        key_t = load_transposed(key_ptr, row, key_time, time, channel, key_dim).to(DOT)
        scores += tl.dot(query, key_t, input_precision=PRECISION)
        key = load_tile(key_ptr, row, key_time, time, channel, key_dim).to(DOT)
        query_t = load_transposed(query_ptr, row, query_time, time, channel, key_dim).to(DOT)
        scores_t += tl.dot(key, query_t, input_precision=PRECISION)
    scores_t = (scores_t * decay_t * scale).to(DOT)

    grad_scores = tl.zeros([LENGTH, LENGTH], tl.float32)
    grad_scores_t = tl.zeros([LENGTH, LENGTH], tl.float32)
    for column_start in range(0, value_dim, VALUES):
        column = column_start + tl.arange(0, VALUES)
        grad = load_tile(grad_ptr, row, grad_time, time, column, value_dim).to(DOT)
        value_t = load_transposed(value_ptr, row, value_time, time, column, value_dim).to(DOT)
        grad_scores += tl.dot(grad, value_t, input_precision=PRECISION)
        value = load_tile(value_ptr, row, value_time, time, column, value_dim).to(DOT)
        grad_t = load_transposed(grad_ptr, row, grad_time, time, column, value_dim).to(DOT)
        grad_scores_t += tl.dot(value, grad_t, input_precision=PRECISION)

        later = tl.zeros([LENGTH, VALUES], tl.float32)
        for start in range(0, key_dim, KEYS):
            channel = start + tl.arange(0, KEYS)
            key = load_tile(key_ptr, row, key_time, time, channel, key_dim).to(STATE_DOT)
            state = load_tile(grad_states_ptr, channel, value_dim, key_dim, column, value_dim).to(STATE_DOT)
            later += tl.dot(key, state, input_precision=STATE_PRECISION)
        grad_value = later * until_end[:, None] + tl.dot(scores_t, grad, input_precision=PRECISION)
        store_tile(grad_value_ptr, row, heads * value_dim, time, column, value_dim, grad_value)

    grad_scores *= decay * scale
    grad_scores_t = (grad_scores_t * decay_t * scale).to(DOT)
    # A gate g_l decays what passes from a step before l to step l or one after it: pairs within the chunk (without the
    # diagonal, which no gate touches and which would drown the others), the state before the chunk, what the chunk
    # adds to the state after it, and the state on its way through.
    pairs = tl.where(position[:, None] > position[None, :], grad_scores * scores, 0.0)
    arriving = tl.sum(pairs, axis=1) - tl.sum(pairs, axis=0)
    leaving = tl.zeros([LENGTH], tl.float32)
    passing = tl.zeros([KEYS], tl.float32)
    grad_scores = grad_scores.to(DOT)
    for start in range(0, key_dim, KEYS):
        channel = start + tl.arange(0, KEYS)
        from_state = tl.zeros([LENGTH, KEYS], tl.float32)
        to_state = tl.zeros([LENGTH, KEYS], tl.float32)
        for column_start in range(0, value_dim, VALUES):
            column = column_start + tl.arange(0, VALUES)
            grad = load_tile(grad_ptr, row, grad_time, time, column, value_dim).to(STATE_DOT)
            state_t = load_transposed(states_ptr, channel, value_dim, key_dim, column, value_dim)
            from_state += tl.dot(grad, state_t.to(STATE_DOT), input_precision=STATE_PRECISION)
            value = load_tile(value_ptr, row, value_time, time, column, value_dim).to(STATE_DOT)
            grad_state_t = load_transposed(grad_states_ptr, channel, value_dim, key_dim, column, value_dim)
            to_state += tl.dot(value, grad_state_t.to(STATE_DOT), input_precision=STATE_PRECISION)
            passing += tl.sum(state_t * grad_state_t, axis=0)
        from_state *= since_start[:, None] * scale
        to_state *= until_end[:, None]
        query = load_tile(query_ptr, row, query_time, time, channel, key_dim)
        key = load_tile(key_ptr, row, key_time, time, channel, key_dim)
        grad_query = from_state + tl.dot(grad_scores, key.to(DOT), input_precision=PRECISION)
        grad_key = to_state + tl.dot(grad_scores_t, query.to(DOT), input_precision=PRECISION)
        store_tile(grad_query_ptr, row, heads * key_dim, time, channel, key_dim, grad_query)
        store_tile(grad_key_ptr, row, heads * key_dim, time, channel, key_dim, grad_key)
        arriving += tl.sum(from_state * query.to(tl.float32), axis=1)
        leaving += tl.sum(to_state * key.to(tl.float32), axis=1)

    leaving = tl.where((position < LENGTH - 1) & (row < time - 1), leaving, 0.0)  # no gate follows the last step
    grad_decay = tl.sum(arriving, axis=0) - tl.cumsum(arriving, axis=0) + arriving
    grad_decay += tl.cumsum(leaving, axis=0) - leaving + forget * tl.sum(passing, axis=0)
    tl.store(grad_decay_ptr + (batch * time + row) * heads + head, grad_decay, mask=row < time)


def _settings(query: Tensor, value: Tensor) -> dict:
    side = block_side(query.dtype)
    return {
        "DOT": dot_dtype(query.dtype),
        "PRECISION": dot_precision(),
        **state_dot(query.dtype),
        "LENGTH": triton_chunk_length(query.dtype),
        "KEYS": dot_block(query.shape[-1], side),
        "VALUES": dot_block(value.shape[-1], side),
        "num_stages": 2,
    }


def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    batch, _, heads, key_dim = query.shape
    return value.new_empty(value.shape), value.new_empty((batch, heads, key_dim, value.shape[-1]), dtype=torch.float32)


@operator("decay_linear_attention", fake=_forward_fake)
def _forward(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    output, final = _forward_fake(query, key, value, log_decay, initial, scale)
    query, key, value = map(unit_stride, (query, key, value))
    (batch, time, heads, key_dim), value_dim = query.shape, value.shape[-1]
    settings = _settings(query, value)
    chunks = cdiv(time, settings["LENGTH"])
    if output.numel():
        states, final = chunk_states(key, value, log_decay, initial, settings["LENGTH"])
        _forward_kernel[(batch * heads, chunks)](
            query, key, value, log_decay, states, output, time, chunks, heads, key_dim, value_dim, scale,
            *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *log_decay.stride(), num_warps=4, **settings,
        )  # fmt: skip
    return output, final


def _backward_fake(
    grad: Tensor, grad_final: Tensor, query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor,
    initial: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    empty = [tensor.new_empty(tensor.shape) for tensor in (query, key, value)]
    return *empty, log_decay.new_empty(log_decay.shape), grad_final.new_empty(grad_final.shape)


@operator("decay_linear_attention_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, grad_final: Tensor, query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor,
    initial: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    *grads, grad_initial = _backward_fake(grad, grad_final, query, key, value, log_decay, initial, scale)
    grad, query, key, value = map(unit_stride, (grad, query, key, value))
    (batch, time, heads, key_dim), value_dim = query.shape, value.shape[-1]
    settings = _settings(query, value)
    chunks = cdiv(time, settings["LENGTH"])
    if grad.numel():
        # The states are computed again: keeping them would cost as much memory as the inputs.
        states, _ = chunk_states(key, value, log_decay, initial, settings["LENGTH"])
        grad_states, grad_initial = chunk_states(
            query, grad, log_decay, grad_final, settings["LENGTH"], scale, reverse=True
        )
        _backward_kernel[(batch * heads, chunks)](
            grad, query, key, value, log_decay, states, grad_states, *grads,
            time, chunks, heads, key_dim, value_dim, scale, *grad.stride()[:3], *query.stride()[:3], *key.stride()[:3],
            *value.stride()[:3], *log_decay.stride(), num_warps=8, **settings,
        )  # fmt: skip
    return *grads, grad_initial


def _save_for_backward(ctx, inputs, output):
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx, grad, grad_final):
    *inputs, initial = ctx.saved_tensors
    *grads, grad_initial = _backward(grad, grad_final, *inputs, initial, ctx.scale)
    return *grads, None if initial is None else grad_initial.to(initial.dtype), None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _decay_linear_attention_triton(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial_state: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    # Gates are small next to keys: float32, so that the gradient of a constant one is summed without rounding.
    query, key = query.expand(*value.shape[:3], -1), key.expand(*value.shape[:3], -1)
    return _forward(query, key, value, log_decay.float().expand(value.shape[:3]), initial_state, scale)


def _triton_refuses(query: Tensor, key: Tensor, value: Tensor, *_) -> str | None:
    if not query.dtype == key.dtype == value.dtype:
        return f"query, key and value must have one dtype, not {query.dtype}, {key.dtype} and {value.dtype}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends(
    "decay_linear_attention",
    decay_linear_attention_reference,
    decay_linear_attention_torch,
    _decay_linear_attention_triton,
    _triton_refuses,
)


def decay_linear_attention(
    query: Float[Tensor, "batch time key_heads head_dim"],
    key: Float[Tensor, "batch time key_heads head_dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    log_decay: Float[Tensor, " heads"] | Float[Tensor, "batch time heads"],
    initial_state: Float[Tensor, "batch heads head_dim value_dim"] | None = None,
    *,
    scale: float | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time heads value_dim"], Float[Tensor, "batch heads head_dim value_dim"]]:
    """Causal linear attention with one decay a head: S_t = exp(g_t) S_{t-1} + k_t v_t^T, o_t = scale * S_t^T q_t.

    query, key (batch, time, heads, head_dim), or of one head that all share; value (batch, time, heads, value_dim);
    log_decay g <= 0, (heads,) where it is constant and finite, otherwise (batch, time, heads), where -inf forgets all
    before; initial_state (batch, heads, head_dim, value_dim) or None for zero; scale None for head_dim^-0.5. Returns o
    and the last S, in float32. Raises ValueError if shapes do not fit, or for a backend ("reference", "torch",
    "triton") that cannot serve the call.

    Retentive Network, arXiv 2307.08621; Lightning Attention-2, arXiv 2401.04658; Transformers are SSMs, arXiv
    2405.21060.
    """
    shapes = (tuple(value.shape[2:3]), tuple(value.shape[:3]))
    check_shapes("decay_linear_attention", query, key, value, log_decay, shapes, initial_state, shared_keys=True)
    if scale is None:
        scale = query.shape[-1] ** -0.5
    query, key, value = autocast(query, key, value)
    with torch.autocast(query.device.type, enabled=False):
        run = _BACKENDS.select(backend, query, key, value, log_decay, initial_state)
        return run(query, key, value, log_decay, initial_state, scale)


def _floor(query: Tensor, key: Tensor, value: Tensor, **_) -> tuple[Cost, Cost]:
    forward = size_in_bytes(query, key) + 2 * size_in_bytes(value)
    backward = 2 * size_in_bytes(query, key) + 3 * size_in_bytes(value)
    products = value.numel() * query.shape[-1]
    return Cost(forward, 4 * products), Cost(backward, 10 * products)


def _inputs(
    random: Sampler, batch: int, time: int, heads: int, key_dim: int, value_dim: int, *, constant: bool = False,
    strongest: float = 0.5, initial: bool = True, key_heads: int | None = None,
) -> dict:  # fmt: skip
    # Few gates are strong, most are weak.
    gates = random.uniform(*((heads,) if constant else (batch, time, heads)))
    return {
        "query": random.normal(batch, time, key_heads or heads, key_dim),
        "key": random.normal(batch, time, key_heads or heads, key_dim),
        "value": random.normal(batch, time, heads, value_dim),
        "log_decay": -strongest * (gates if strongest < 1 else gates**6),
        "initial_state": random.normal(batch, heads, key_dim, value_dim) if initial else None,
    }


SPEC = OpSpec(
    function=decay_linear_attention,
    backends=_BACKENDS,
    cases={
        "prime": lambda random: _inputs(random, 1, 7, 2, 5, 3),
        "shared keys": lambda random: _inputs(random, 2, 5, 3, 2, 4, key_heads=1),
        "one step": lambda random: _inputs(random, 2, 1, 1, 4, 2),
        "constant": lambda random: _inputs(random, 1, 19, 2, 3, 5, constant=True, initial=False),
        "63 steps": lambda random: {**_inputs(random, 1, 63, 1, 4, 5), "scale": 1.0},
        "strong decay": lambda random: _inputs(random, 1, 21, 1, 3, 2, strongest=200.0),
        "no samples": lambda random: _inputs(random, 0, 4, 2, 3, 3),
    },
    large_cases={
        "several chunks": lambda random: _inputs(random, 2, 157, 2, 7, 11),
        "several chunks, constant": lambda random: _inputs(random, 2, 130, 2, 7, 11, constant=True),
        "several chunks, strong decay": lambda random: _inputs(random, 1, 157, 1, 5, 7, strongest=200.0),
    },
    benchmarks={
        "2x1024, 4 heads of 64": lambda random: _inputs(random, 2, 1024, 4, 64, 64),
        "2x1024, 4 heads of 64, constant": lambda random: _inputs(random, 2, 1024, 4, 64, 64, constant=True),
    },
    differentiable=("query", "key", "value", "log_decay", "initial_state"),
    float32=("initial_state",),
    floor=_floor,
    paper="Retentive Network, arXiv 2307.08621; Transformers are SSMs, arXiv 2405.21060",
)
