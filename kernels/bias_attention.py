"""Attention with a bias on the scores: relative positions of windows, pairs, linear biases, masks.

    y_i = sum_j softmax_j(scale * q_i . k_j + bias_ij - slope |i + Tk - Tq - j|) v_j

Shapes: query and y (batch, Tq, heads, head_dim); key and value (batch, Tk, heads, head_dim); slopes (heads,); bias
(heads, Tq, Tk) or (groups, heads, Tq, Tk), whose heads, Tq and Tk may be 1; mask (groups, Tk) or (groups, Tq, Tk),
True where a key may be seen. Groups divide the batch, and entry b has group b % groups: one group is shared by all, as
many as the batch are one each, and between lie windows, which follow each other in the batch and repeat with every
image. Causal queries are the last Tq of the keys and see none after themselves. A query that sees no key gives 0.

Softmax and sums are float32 (float64 for float64 inputs); y and the gradients have the dtypes of their inputs. Under
autocast query, key and value are cast to its dtype. The gradient of the bias is summed in a fixed order.

Floor, for P = batch * heads * Tq * Tk pairs and head_dim D: the forward reads query, key, value and bias and writes y,
with 4PD flops; the backward reads these, y and its gradient and writes four gradients, with 10PD flops.

Papers: Swin Transformer, arXiv 2103.14030; Train Short, Test Long (ALiBi), arXiv 2108.12409.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ._runtime import (
    INTERPRETING,
    Backends,
    autocast,
    cdiv,
    dot_dtype,
    dot_precision,
    jit,
    next_power_of_2,
    operator,
    processor_count,
    tl,
)
from ._spec import Cost, OpSpec, Sampler, size_in_bytes

MAX_TRITON_HEAD_DIM = 128


def bias_attention_reference(
    query: Float[Tensor, "batch queries heads head_dim"],
    key: Float[Tensor, "batch keys heads head_dim"],
    value: Float[Tensor, "batch keys heads head_dim"],
    bias: Float[Tensor, "bias_groups heads queries keys"] | None,
    mask: Bool[Tensor, "mask_groups #queries keys"] | None,
    slopes: Float[Tensor, " heads"] | None,
    causal: bool,
    scale: float,
) -> Float[Tensor, "batch queries heads head_dim"]:
    q, k, v = (_widen(tensor) for tensor in (query, key, value))
    scores = torch.einsum("bqhd,bkhd->bhqk", q * scale, k)
    if bias is not None:
        scores = scores + _widen(bias).repeat(len(query) // len(bias), 1, 1, 1)
    ahead = _ahead(query, key)
    if slopes is not None:
        scores = scores - _widen(slopes)[:, None, None] * ahead.abs().to(scores.dtype)
    sees = torch.ones_like(ahead, dtype=torch.bool)[None, None]
    if causal:
        sees = sees & (ahead <= 0)
    if mask is not None:
        sees = sees & mask.repeat(len(query) // len(mask), 1, 1)[:, None]
    any_key = sees.any(-1, keepdim=True)  # a row of -inf alone would have NaN for its gradient
    weights = scores.masked_fill(~sees & any_key, -torch.inf).softmax(-1).masked_fill(~any_key, 0)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v).to(query.dtype)


def bias_attention_torch(
    query: Float[Tensor, "batch queries heads head_dim"],
    key: Float[Tensor, "batch keys heads head_dim"],
    value: Float[Tensor, "batch keys heads head_dim"],
    bias: Float[Tensor, "bias_groups heads queries keys"] | None,
    mask: Bool[Tensor, "mask_groups #queries keys"] | None,
    slopes: Float[Tensor, " heads"] | None,
    causal: bool,
    scale: float,
) -> Float[Tensor, "batch queries heads head_dim"]:
    """Sum what is added to the scores once a group, and give it to torch's attention."""
    addend, seen = _scores_addend(query, key, bias, mask, slopes, causal)
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    if addend is None or len(addend) in (1, len(query)):
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=addend, scale=scale)
    else:  # groups fold into the heads
        q, k, v = (tensor.unflatten(0, (-1, len(addend))).flatten(1, 2) for tensor in (q, k, v))
        heads = query.shape[2]
        addend = addend.expand(-1, heads, -1, -1).flatten(0, 1).unsqueeze(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=addend, scale=scale)
        y = y.unflatten(1, (-1, heads)).flatten(0, 1)
    if seen is not None:
        y = y.unflatten(0, (-1, len(seen))).masked_fill(~seen[:, None, :, None], 0).flatten(0, 1)
    return y.transpose(1, 2)


def _scores_addend(
    query: Tensor, key: Tensor, bias: Tensor | None, mask: Tensor | None, slopes: Tensor | None, causal: bool
) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the scores, (groups, heads or 1, queries or 1, keys), and who sees any key, (groups, queries).

    A large negative number stands for minus infinity, so that no row is without a finite score; several of them and a
    bias stay finite. Groups of bias and mask that do not divide each other become as many as the batch.
    """
    dtype = query.dtype
    outside = torch.finfo(dtype).min / 8
    addend, sees = (None if bias is None else bias.to(dtype)), mask
    ahead = _ahead(query, key)
    if slopes is not None:
        linear = (slopes[:, None, None] * -ahead.abs().to(slopes.dtype)).to(dtype)
        addend = linear[None] if addend is None else addend + linear
    if causal:
        sees = (ahead <= 0)[None] if sees is None else sees & (ahead <= 0)
    if sees is None:
        return addend, None
    hidden = torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, outside).unsqueeze(1)
    if addend is None:
        addend = hidden
    else:
        groups = max(len(addend), len(hidden))
        if groups % len(addend) or groups % len(hidden):
            groups = len(query)
        addend, hidden = (_repeat_groups(tensor, groups) for tensor in (addend, hidden))
        addend = addend + hidden
    return addend, sees.any(-1) if mask is not None or key.shape[1] < query.shape[1] else None


def _repeat_groups(x: Tensor, groups: int) -> Tensor:
    return x if len(x) in (1, groups) else x.repeat(groups // len(x), 1, 1, 1)


def _ahead(query: Tensor, key: Tensor) -> Tensor:
    """How far each key is ahead of each query (queries, keys); the last of both are level."""
    queries, keys = query.shape[1], key.shape[1]
    position = torch.arange(max(queries, keys), device=query.device)
    return position[:keys] - (position[:queries, None] + (keys - queries))


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


# --- Triton -----------------------------------------------------------------------------------------------------------
# A program owns a tile of queries (or of keys) of one head of one batch entry, and walks over tiles of the other. The
# gradient of the bias has programs of its own: one a tile of pairs, walking over the batch entries of its group. Values
# go through float32 on their way from memory for the interpreter's sake; on a GPU that is folded away.

LOG2E = tl.constexpr(1.4426950408889634)  # exponentials are powers of two


@jit
def _addend(
    bias_ptr, mask_ptr, slopes_ptr, query, key, batch, head, queries, keys,
    bias_groups, bias_group_stride, bias_head_stride, bias_query_stride, bias_key_stride,
    mask_groups, mask_group_stride, mask_query_stride,
    HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, HAS_SLOPES: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """What is added to the scores of queries and keys, one of which are a column and the other a row, and who sees."""
    query, key = tl.cast(query, tl.int64), tl.cast(key, tl.int64)
    sees = (query < queries) & (key < keys)
    ahead = key - query - (keys - queries)
    if CAUSAL:
        sees &= ahead <= 0
    if HAS_MASK:
        offset = (batch % mask_groups) * mask_group_stride + query * mask_query_stride + key
        sees &= tl.load(mask_ptr + offset, mask=sees, other=0) != 0
    addend = tl.where(sees, 0.0, float("-inf"))
    if HAS_BIAS:
        base = (batch % bias_groups) * bias_group_stride + head * bias_head_stride
        offset = base + query * bias_query_stride + key * bias_key_stride
        addend += tl.load(bias_ptr + offset, mask=sees, other=0.0).to(tl.float32)
    if HAS_SLOPES:
        addend -= tl.load(slopes_ptr + head).to(tl.float32) * tl.abs(ahead).to(tl.float32)
    return addend, sees


@jit
def _load(pointer, token, tokens, column, dim, token_stride, DOT_DTYPE: tl.constexpr):
    """Tokens (a column) by dimensions (a row), or the other way round."""
    offset = tl.cast(token, tl.int64) * token_stride + column
    return tl.load(pointer + offset, mask=(token < tokens) & (column < dim), other=0.0).to(tl.float32).to(DOT_DTYPE)


@jit
def _forward_kernel(
    query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, slopes_ptr, y_ptr, logsumexp_ptr,
    queries, keys, heads, dim, query_batch_stride, query_stride, query_head_stride,
    key_batch_stride, key_stride, key_head_stride,
    bias_groups, bias_group_stride, bias_head_stride, bias_query_stride, bias_key_stride,
    mask_groups, mask_group_stride, mask_query_stride, scale,
    HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, HAS_SLOPES: tl.constexpr, CAUSAL: tl.constexpr,
    BLOCK: tl.constexpr, DIM: tl.constexpr, DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(queries, BLOCK)
    tile = tl.program_id(0) % tiles
    pair = tl.cast(tl.program_id(0) // tiles, tl.int64)
    batch, head = pair // heads, pair % heads
    place, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    row = tile * BLOCK + place
    query_base = query_ptr + batch * query_batch_stride + head * query_head_stride
    key_base = batch * key_batch_stride + head * key_head_stride
    query = _load(query_base, row[:, None], queries, column[None, :], dim, query_stride, DOT_DTYPE)

    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    y = tl.zeros([BLOCK, DIM], tl.float32)
    stop = keys
    if CAUSAL:
        stop = tl.minimum(keys, (tile + 1) * BLOCK + keys - queries)
    for begin in range(0, stop, BLOCK):
        other = begin + place
        key = _load(key_ptr + key_base, other[None, :], keys, column[:, None], dim, key_stride, DOT_DTYPE)
        addend, _ = _addend(
            bias_ptr, mask_ptr, slopes_ptr, row[:, None], other[None, :], batch, head, queries, keys,
            bias_groups, bias_group_stride, bias_head_stride, bias_query_stride, bias_key_stride,
            mask_groups, mask_group_stride, mask_query_stride, HAS_BIAS, HAS_MASK, HAS_SLOPES, CAUSAL,
        )  # fmt: skip
        scores = (tl.dot(query, key, input_precision=PRECISION) * scale + addend) * LOG2E

        previous = largest
        largest = tl.maximum(previous, tl.max(scores, 1))
        finite = tl.where(largest == float("-inf"), 0.0, largest)  # of a query that has seen no key so far
        weights = tl.exp2(scores - finite[:, None])
        rescale = tl.exp2(previous - finite)
        total = total * rescale + tl.sum(weights, 1)
        value = _load(value_ptr + key_base, other[:, None], keys, column[None, :], dim, key_stride, DOT_DTYPE)
        y = y * rescale[:, None] + tl.dot(weights.to(DOT_DTYPE), value, input_precision=PRECISION)

    seen = total > 0.0
    total = tl.where(seen, total, 1.0)
    y = y / total[:, None]
    offset = (((batch * queries + row) * heads + head) * dim)[:, None] + column[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=(row < queries)[:, None] & (column < dim)[None, :])
    # Plus infinity makes every weight of a query without keys zero in the backward.
    logsumexp = tl.where(seen, largest + tl.log2(total), float("inf"))
    tl.store(logsumexp_ptr + pair * queries + row, logsumexp, mask=row < queries)


@jit
def _backward_query_kernel(
    query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, slopes_ptr, grad_ptr, logsumexp_ptr, delta_ptr,
    grad_query_ptr, grad_slopes_ptr,
    queries, keys, heads, dim, query_batch_stride, query_stride, query_head_stride,
    key_batch_stride, key_stride, key_head_stride,
    bias_groups, bias_group_stride, bias_head_stride, bias_query_stride, bias_key_stride,
    mask_groups, mask_group_stride, mask_query_stride, scale,
    HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, HAS_SLOPES: tl.constexpr, CAUSAL: tl.constexpr,
    BLOCK: tl.constexpr, DIM: tl.constexpr, DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(queries, BLOCK)
    tile = tl.program_id(0) % tiles
    pair = tl.cast(tl.program_id(0) // tiles, tl.int64)
    batch, head = pair // heads, pair % heads
    place, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    row = tile * BLOCK + place
    query_base = query_ptr + batch * query_batch_stride + head * query_head_stride
    key_base = batch * key_batch_stride + head * key_head_stride
    own_base = (batch * queries * heads + head) * dim
    query = _load(query_base, row[:, None], queries, column[None, :], dim, query_stride, DOT_DTYPE)
    grad = _load(grad_ptr + own_base, row[:, None], queries, column[None, :], dim, heads * dim, DOT_DTYPE)
    logsumexp = tl.load(logsumexp_ptr + pair * queries + row, mask=row < queries, other=float("inf"))[:, None]
    delta = tl.load(delta_ptr + pair * queries + row, mask=row < queries, other=0.0)[:, None]

    grad_query = tl.zeros([BLOCK, DIM], tl.float32)
    grad_slope = tl.zeros([BLOCK], tl.float32)
    stop = keys
    if CAUSAL:
        stop = tl.minimum(keys, (tile + 1) * BLOCK + keys - queries)
    for begin in range(0, stop, BLOCK):
        other = begin + place
        key = _load(key_ptr + key_base, other[None, :], keys, column[:, None], dim, key_stride, DOT_DTYPE)
        value = _load(value_ptr + key_base, other[None, :], keys, column[:, None], dim, key_stride, DOT_DTYPE)
        addend, sees = _addend(
            bias_ptr, mask_ptr, slopes_ptr, row[:, None], other[None, :], batch, head, queries, keys,
            bias_groups, bias_group_stride, bias_head_stride, bias_query_stride, bias_key_stride,
            mask_groups, mask_group_stride, mask_query_stride, HAS_BIAS, HAS_MASK, HAS_SLOPES, CAUSAL,
        )  # fmt: skip
        scores = (tl.dot(query, key, input_precision=PRECISION) * scale + addend) * LOG2E
        weights = tl.where(sees, tl.exp2(scores - logsumexp), 0.0)
        grad_scores = weights * (tl.dot(grad, value, input_precision=PRECISION) - delta)
        if HAS_SLOPES:
            distance = tl.abs(other[None, :] - row[:, None] - (keys - queries)).to(tl.float32)
            grad_slope -= tl.sum(grad_scores * distance, 1)
        # The keys once more, the other way round.
        key = _load(key_ptr + key_base, other[:, None], keys, column[None, :], dim, key_stride, DOT_DTYPE)
        grad_query += tl.dot(grad_scores.to(DOT_DTYPE), key, input_precision=PRECISION)

    grad_query *= scale
    offset = own_base + tl.cast(row, tl.int64)[:, None] * (heads * dim) + column[None, :]
    inside = (row < queries)[:, None] & (column < dim)[None, :]
    tl.store(grad_query_ptr + offset, grad_query.to(grad_query_ptr.dtype.element_ty), mask=inside)
    if HAS_SLOPES:
        tl.store(grad_slopes_ptr + pair * tiles + tile, tl.sum(grad_slope))


@jit
def _backward_key_value_kernel(
    query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, slopes_ptr, grad_ptr, logsumexp_ptr, delta_ptr,
    grad_key_ptr, grad_value_ptr,
    queries, keys, heads, dim, query_batch_stride, query_stride, query_head_stride,
    key_batch_stride, key_stride, key_head_stride,
    bias_groups, bias_group_stride, bias_head_stride, bias_query_stride, bias_key_stride,
    mask_groups, mask_group_stride, mask_query_stride, scale,
    HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, HAS_SLOPES: tl.constexpr, CAUSAL: tl.constexpr,
    BLOCK: tl.constexpr, DIM: tl.constexpr, DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # The tile holds keys, and the program walks over queries. Scores are computed keys by queries, so that no product
    # has to be transposed for the next.
    tiles = tl.cdiv(keys, BLOCK)
    tile = tl.program_id(0) % tiles
    pair = tl.cast(tl.program_id(0) // tiles, tl.int64)
    batch, head = pair // heads, pair % heads
    place, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    row = tile * BLOCK + place
    query_base = query_ptr + batch * query_batch_stride + head * query_head_stride
    key_base = batch * key_batch_stride + head * key_head_stride
    grad_base = grad_ptr + (batch * queries * heads + head) * dim
    key = _load(key_ptr + key_base, row[:, None], keys, column[None, :], dim, key_stride, DOT_DTYPE)
    value = _load(value_ptr + key_base, row[:, None], keys, column[None, :], dim, key_stride, DOT_DTYPE)

    grad_key = tl.zeros([BLOCK, DIM], tl.float32)
    grad_value = tl.zeros([BLOCK, DIM], tl.float32)
    start = 0
    if CAUSAL:
        start = tl.maximum(tile * BLOCK + queries - keys, 0) // BLOCK * BLOCK
    for begin in range(start, queries, BLOCK):
        other = begin + place
        query = _load(query_base, other[None, :], queries, column[:, None], dim, query_stride, DOT_DTYPE)
        grad = _load(grad_base, other[None, :], queries, column[:, None], dim, heads * dim, DOT_DTYPE)
        logsumexp = tl.load(logsumexp_ptr + pair * queries + other, mask=other < queries, other=float("inf"))[None, :]
        delta = tl.load(delta_ptr + pair * queries + other, mask=other < queries, other=0.0)[None, :]
        addend, sees = _addend(
            bias_ptr, mask_ptr, slopes_ptr, other[None, :], row[:, None], batch, head, queries, keys,
            bias_groups, bias_group_stride, bias_head_stride, bias_query_stride, bias_key_stride,
            mask_groups, mask_group_stride, mask_query_stride, HAS_BIAS, HAS_MASK, HAS_SLOPES, CAUSAL,
        )  # fmt: skip
        scores = (tl.dot(key, query, input_precision=PRECISION) * scale + addend) * LOG2E
        weights = tl.where(sees, tl.exp2(scores - logsumexp), 0.0)
        grad_scores = weights * (tl.dot(value, grad, input_precision=PRECISION) - delta)
        query = _load(query_base, other[:, None], queries, column[None, :], dim, query_stride, DOT_DTYPE)
        grad = _load(grad_base, other[:, None], queries, column[None, :], dim, heads * dim, DOT_DTYPE)
        grad_value += tl.dot(weights.to(DOT_DTYPE), grad, input_precision=PRECISION)
        grad_key += tl.dot(grad_scores.to(DOT_DTYPE), query, input_precision=PRECISION)

    grad_key *= scale
    offset = (((batch * keys + row) * heads + head) * dim)[:, None] + column[None, :]
    inside = (row < keys)[:, None] & (column < dim)[None, :]
    tl.store(grad_key_ptr + offset, grad_key.to(grad_key_ptr.dtype.element_ty), mask=inside)
    tl.store(grad_value_ptr + offset, grad_value.to(grad_value_ptr.dtype.element_ty), mask=inside)


@jit
def _backward_bias_kernel(
    query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, slopes_ptr, grad_ptr, logsumexp_ptr, delta_ptr, partial_ptr,
    batches, queries, keys, heads, dim, query_batch_stride, query_stride, query_head_stride,
    key_batch_stride, key_stride, key_head_stride,
    bias_groups, bias_group_stride, bias_head_stride, bias_query_stride, bias_key_stride,
    mask_groups, mask_group_stride, mask_query_stride, scale,
    HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, HAS_SLOPES: tl.constexpr, CAUSAL: tl.constexpr,
    BLOCK: tl.constexpr, DIM: tl.constexpr, DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # A program owns a tile of pairs of one head of one group, and a share of the group's batch entries.
    tiles = tl.cdiv(keys, BLOCK)
    query_tile, key_tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    group, head = tl.cast(tl.program_id(1) // heads, tl.int64), tl.program_id(1) % heads
    share, shares = tl.program_id(2), tl.num_programs(2)
    place, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    row, other = query_tile * BLOCK + place, key_tile * BLOCK + place

    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for turn in range(share, batches // bias_groups, shares):
        batch = tl.cast(turn, tl.int64) * bias_groups + group
        pair = batch * heads + head
        query_base = query_ptr + batch * query_batch_stride + head * query_head_stride
        key_base = batch * key_batch_stride + head * key_head_stride
        grad_base = grad_ptr + (batch * queries * heads + head) * dim
        query = _load(query_base, row[:, None], queries, column[None, :], dim, query_stride, DOT_DTYPE)
        grad = _load(grad_base, row[:, None], queries, column[None, :], dim, heads * dim, DOT_DTYPE)
        key = _load(key_ptr + key_base, other[None, :], keys, column[:, None], dim, key_stride, DOT_DTYPE)
        value = _load(value_ptr + key_base, other[None, :], keys, column[:, None], dim, key_stride, DOT_DTYPE)
        logsumexp = tl.load(logsumexp_ptr + pair * queries + row, mask=row < queries, other=float("inf"))[:, None]
        delta = tl.load(delta_ptr + pair * queries + row, mask=row < queries, other=0.0)[:, None]
        addend, sees = _addend(
            bias_ptr, mask_ptr, slopes_ptr, row[:, None], other[None, :], batch, head, queries, keys,
            bias_groups, bias_group_stride, bias_head_stride, bias_query_stride, bias_key_stride,
            mask_groups, mask_group_stride, mask_query_stride, HAS_BIAS, HAS_MASK, HAS_SLOPES, CAUSAL,
        )  # fmt: skip
        scores = (tl.dot(query, key, input_precision=PRECISION) * scale + addend) * LOG2E
        weights = tl.where(sees, tl.exp2(scores - logsumexp), 0.0)
        total += weights * (tl.dot(grad, value, input_precision=PRECISION) - delta)

    plane = (tl.cast(share, tl.int64) * bias_groups + group) * heads + head
    offset = (plane * queries + row)[:, None] * keys + other[None, :]
    tl.store(partial_ptr + offset, total, mask=(row < queries)[:, None] & (other < keys)[None, :])


class _Launch(NamedTuple):
    """What all kernels are given, by the names of their arguments."""

    tensors: dict[str, Tensor | None]
    numbers: dict[str, int | float]
    constants: dict


def _launch(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None, slopes: Tensor | None,
    causal: bool, scale: float,
) -> _Launch:  # fmt: skip
    if query.stride(3) != 1:
        query = query.contiguous()
    if key.stride(3) != 1 or key.stride() != value.stride():
        key, value = key.contiguous(), value.contiguous()
    if mask is not None:
        mask = mask.contiguous().view(torch.int8)
    bias_strides = (1, 0, 0, 0, 0) if bias is None else (len(bias), *bias.stride())
    mask_strides = (1, 0, 0) if mask is None else (len(mask), mask.stride(0), mask.stride(1) * (mask.shape[1] > 1))
    numbers = (
        query.shape[1], key.shape[1], *query.shape[2:], *query.stride()[:3], *key.stride()[:3], *bias_strides,
        *mask_strides, scale,
    )  # fmt: skip
    names = (
        "queries", "keys", "heads", "dim", "query_batch_stride", "query_stride", "query_head_stride",
        "key_batch_stride", "key_stride", "key_head_stride",
        "bias_groups", "bias_group_stride", "bias_head_stride", "bias_query_stride", "bias_key_stride",
        "mask_groups", "mask_group_stride", "mask_query_stride", "scale",
    )  # fmt: skip
    return _Launch(
        tensors={
            "query_ptr": query,
            "key_ptr": key,
            "value_ptr": value,
            "bias_ptr": bias,
            "mask_ptr": mask,
            "slopes_ptr": None if slopes is None else slopes.contiguous(),
        },
        numbers=dict(zip(names, numbers)),
        constants={
            "HAS_BIAS": bias is not None,
            "HAS_MASK": mask is not None,
            "HAS_SLOPES": slopes is not None,
            "CAUSAL": causal,
            "BLOCK": _block(query),
            "DIM": max(16, next_power_of_2(query.shape[3])),
            "DOT_DTYPE": dot_dtype(query.dtype),
            "PRECISION": dot_precision(),
            "num_stages": 2 if query.shape[3] > 64 else 3,
        },
    )


def _block(query: Tensor) -> int:
    """64 tokens a tile, or 32 where they would not fit into a program; 16, the least of a dot, interpreting."""
    return 16 if INTERPRETING else 64 if query.dtype != torch.float32 and query.shape[3] <= 64 else 32


def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None, slopes: Tensor | None,
    causal: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch, queries, heads, _ = query.shape
    return query.new_empty(query.shape), query.new_empty((batch, heads, queries), dtype=torch.float32)


@operator("bias_attention", fake=_forward_fake)
def _forward(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None, slopes: Tensor | None,
    causal: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inputs = (query, key, value, bias, mask, slopes, causal, scale)
    y, logsumexp = _forward_fake(*inputs)
    batch, queries, heads, _ = query.shape
    tensors, numbers, constants = _launch(*inputs)
    grid = (cdiv(queries, constants["BLOCK"]) * batch * heads,)
    _forward_kernel[grid](**tensors, y_ptr=y, logsumexp_ptr=logsumexp, **numbers, **constants)
    return y, logsumexp


def _backward_fake(
    grad: Tensor, y: Tensor, logsumexp: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None,
    mask: Tensor | None, slopes: Tensor | None, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    optional = (query.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape) for tensor in (bias, slopes))
    return *(tensor.new_empty(tensor.shape) for tensor in (query, key, value)), *optional


@operator("bias_attention_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, y: Tensor, logsumexp: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None,
    mask: Tensor | None, slopes: Tensor | None, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    inputs = (query, key, value, bias, mask, slopes, causal, scale)
    grad_query, grad_key, grad_value, grad_bias, grad_slopes = _backward_fake(grad, y, logsumexp, *inputs)
    tensors, numbers, constants = _launch(*inputs)
    batch, queries, heads, _ = query.shape
    query_tiles, key_tiles = (cdiv(length, constants["BLOCK"]) for length in (queries, key.shape[1]))
    tensors["grad_ptr"] = grad.contiguous()
    tensors["logsumexp_ptr"] = logsumexp
    tensors["delta_ptr"] = (grad.float() * y.float()).sum(-1).transpose(1, 2).contiguous()
    # Every program writes one partial sum; their sum has a fixed order, which atomic additions would not.
    partial_slopes = None if slopes is None else query.new_empty((batch, heads, query_tiles), dtype=torch.float32)
    _backward_query_kernel[(query_tiles * batch * heads,)](
        **tensors, grad_query_ptr=grad_query, grad_slopes_ptr=partial_slopes, **numbers, **constants
    )
    _backward_key_value_kernel[(key_tiles * batch * heads,)](
        **tensors, grad_key_ptr=grad_key, grad_value_ptr=grad_value, **numbers, **constants
    )
    if slopes is not None:
        grad_slopes = partial_slopes.sum((0, 2)).to(slopes.dtype)
    if bias is not None:
        pairs, planes = query_tiles * key_tiles, len(bias) * heads
        shares = min(batch // len(bias), cdiv(4 * processor_count(query.device), pairs * planes))
        partial = query.new_empty((shares, *bias.shape), dtype=torch.float32)
        _backward_bias_kernel[(pairs, planes, shares)](
            **tensors, partial_ptr=partial, batches=batch, **numbers, **constants
        )
        grad_bias = partial.sum(0).to(bias.dtype)
    return grad_query, grad_key, grad_value, grad_bias, grad_slopes


def _save_for_backward(ctx, inputs, output):
    *tensors, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*output, *tensors)


def _gradient(ctx, grad, _):
    saved = ctx.saved_tensors
    *grads, grad_bias, grad_slopes = _backward(grad, *saved, ctx.causal, ctx.scale)
    bias, _, slopes = saved[5:]
    return *grads, None if bias is None else grad_bias, None, None if slopes is None else grad_slopes, None, None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _bias_attention_triton(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None, slopes: Tensor | None,
    causal: bool, scale: float,
) -> Tensor:  # fmt: skip
    return _forward(query, key, value, bias, mask, slopes, causal, scale)[0]


def _triton_refuses(query: Tensor, *_, **__) -> str | None:
    if query.shape[-1] > MAX_TRITON_HEAD_DIM:
        return f"head_dim {query.shape[-1]} is larger than {MAX_TRITON_HEAD_DIM}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends(
    "bias_attention", bias_attention_reference, bias_attention_torch, _bias_attention_triton, _triton_refuses
)


def bias_attention(
    query: Float[Tensor, "batch queries heads head_dim"],
    key: Float[Tensor, "batch keys heads head_dim"],
    value: Float[Tensor, "batch keys heads head_dim"],
    bias: Float[Tensor, "*bias_groups bias_heads bias_queries bias_keys"] | None = None,
    mask: Bool[Tensor, "mask_groups *mask_queries mask_keys"] | None = None,
    *,
    causal: bool = False,
    slopes: Float[Tensor, " slopes"] | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Float[Tensor, "batch queries heads head_dim"]:
    """Attend with a bias on the scores: softmax(scale * query key^T + bias - slope * distance) value.

    query (batch, Tq, heads, head_dim), key and value (batch, Tk, heads, head_dim). bias (heads, Tq, Tk) or (groups,
    heads, Tq, Tk), finite, may be 1 in heads, Tq and Tk; mask (groups, Tk) or (groups, Tq, Tk) is True where a key may
    be seen; batch entry b has group b % groups. `slopes` (heads,) subtracts from the scores the distance between query
    and key times the slope of the head (ALiBi). For `causal` and `slopes` the queries stand at the last Tq of the keys.
    scale is head_dim^-0.5 if None. A query that sees no key gives 0. Raises ValueError for shapes that do not fit, and
    for a backend ("reference", "torch", "triton") that cannot serve the call.

    Swin Transformer, arXiv 2103.14030; Train Short, Test Long (ALiBi), arXiv 2108.12409.
    """
    batch, queries, heads, _ = query.shape
    keys = key.shape[1]
    fits = key.shape == value.shape == (batch, keys, *query.shape[2:])
    if not fits or not query.dtype == key.dtype == value.dtype:
        found = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in (query, key, value))
        raise ValueError(f"bias_attention: query, key and value do not fit each other; they are {found}")
    if bias is not None:
        shape = tuple(bias.shape)
        wanted = zip(shape[-3:], (heads, queries, keys))
        if not 3 <= len(shape) <= 4 or any(found not in (1, want) for found, want in wanted):
            raise ValueError(
                f"bias_attention: bias has shape {shape}; these inputs need ([groups,] {heads}, {queries}, {keys}), "
                "where any may be 1"
            )
        bias = bias.reshape(-1, *shape[-3:])
        _check_groups("bias", len(bias), batch)
        bias = bias.expand(-1, heads, queries, keys)
    if mask is not None:
        if not 2 <= mask.ndim <= 3 or mask.shape[-1] != keys or mask.shape[1:-1] not in ((), (1,), (queries,)):
            raise ValueError(
                f"bias_attention: mask has shape {tuple(mask.shape)}; these inputs need (groups, {keys}) or "
                f"(groups, {queries}, {keys})"
            )
        _check_groups("mask", len(mask), batch)
        mask = mask.unsqueeze(1) if mask.ndim == 2 else mask
    if slopes is not None and slopes.shape != (heads,):
        raise ValueError(f"bias_attention: slopes has shape {tuple(slopes.shape)}; {heads} heads need one each")
    query, key, value = autocast(query, key, value)
    if query.numel() == 0 or keys == 0:
        return query.new_zeros(query.shape)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    inputs = (query, key, value, bias, mask, slopes, causal, scale)
    return _BACKENDS.select(backend, *inputs)(*inputs)


def _check_groups(name: str, groups: int, batch: int) -> None:
    if groups == 0 or batch % groups:
        raise ValueError(f"bias_attention: {name} has {groups} groups, which do not divide a batch of {batch}")


def _floor(query: Tensor, key: Tensor, bias: Tensor | None = None, **_) -> tuple[Cost, Cost]:
    flops = query.numel() * key.shape[1]
    moved = 2 * size_in_bytes(query, key) + size_in_bytes(bias)
    return Cost(moved, 4 * flops), Cost(2 * moved, 10 * flops)


def _inputs(random: Sampler, *shape: int, keys: int | None = None, **settings) -> dict:
    """Inputs of shape (batch, queries, heads, head_dim); the bias by its shape."""
    batch, queries, heads, dim = shape
    keys = queries if keys is None else keys
    made = {name: random.normal(batch, length, heads, dim) for name, length in zip(_NAMES, (queries, keys, keys))}
    for name, value in settings.items():
        made[name] = random.normal(*value) if name == "bias" else value
    return made


_NAMES = ("query", "key", "value")


def _alibi(heads: int) -> Tensor:
    return 2.0 ** torch.linspace(-8 / heads, -8, heads, dtype=torch.float64)


SPEC = OpSpec(
    function=bias_attention,
    backends=_BACKENDS,
    cases={
        "windows": lambda random: _inputs(
            random, 2, 9, 2, 5, bias=(2, 9, 9), mask=random.boolean(2, 9, 9, probability=0.6)
        ),
        "pairs": lambda random: _inputs(random, 1, 17, 1, 3, bias=(1, 1, 17, 17), causal=True),
        "groups of windows": lambda random: _inputs(random, 4, 5, 1, 4, bias=(2, 1, 5, 5), scale=0.3),
        "linear bias": lambda random: _inputs(random, 1, 19, 2, 4, slopes=_alibi(2), causal=True),
        "bias of keys": lambda random: _inputs(random, 1, 3, 2, 4, keys=21, bias=(1, 1, 21), slopes=_alibi(2)),
        "mask": lambda random: _inputs(random, 2, 7, 1, 8, keys=5, mask=random.boolean(2, 5, probability=0.3)),
        "more queries than keys": lambda random: _inputs(random, 1, 18, 1, 4, keys=3, bias=(1, 18, 3), causal=True),
        "one token": lambda random: _inputs(random, 1, 1, 1, 1, bias=(1, 1, 1)),
        "no batch": lambda random: _inputs(random, 0, 5, 1, 4),
    },
    large_cases={
        "many windows": lambda random: _inputs(
            random, 12, 49, 3, 8, bias=(3, 49, 49), mask=random.boolean(4, 49, 49, probability=0.7)
        ),
        "groups that do not divide": lambda random: _inputs(
            random, 6, 31, 2, 8, bias=(2, 2, 31, 31), mask=random.boolean(3, 31, probability=0.7)
        ),
        "long linear bias": lambda random: _inputs(random, 2, 251, 4, 8, keys=509, slopes=_alibi(4), causal=True),
    },
    benchmarks={
        "64 shifted windows of 49": lambda random: _inputs(
            random, 64, 49, 3, 32, bias=(3, 49, 49), mask=random.boolean(64, 49, 49, probability=0.9)
        ),
        "64 windows of 49": lambda random: _inputs(random, 64, 49, 3, 32, bias=(3, 49, 49)),
        "256 tokens, bias of pairs": lambda random: _inputs(random, 2, 256, 4, 32, bias=(2, 4, 256, 256)),
        "1024 tokens, linear bias": lambda random: _inputs(random, 1, 1024, 4, 64, slopes=_alibi(4), causal=True),
    },
    differentiable=("query", "key", "value", "bias", "slopes"),
    floor=_floor,
    paper="Swin Transformer, arXiv 2103.14030; Train Short, Test Long, arXiv 2108.12409",
)
