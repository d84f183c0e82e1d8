"""Attention within segments of packed sequences or graphs, optionally with a bias on edges.

    y_i = sum_j softmax_j(scale * q_i . k_j + b_ij) v_j        over the tokens j of the segment of i

Shapes: query, key, value and y (tokens, heads, head_dim), the segments one after another; cu_seqlens (segments + 1,)
holds 0, where each segment ends, and so at last the number of tokens; a segment may be empty. edge_index (2, edges)
holds the source and the target of each edge, two tokens of one segment, and edge_bias (edges, heads) what is added to
the score of the target as the query and the source as the key: b_ij is the sum over all edges from j to i, 0 without
any. Causal tokens see none after themselves; an edge from there has no effect.

Softmax and sums are float32 (float64 for float64 inputs); y and the gradients have the dtypes of their inputs. Under
autocast query, key and value are cast to its dtype. All sums have a fixed order. What the integers say is checked on
the CPU; on a GPU, which would have to wait for it, it is trusted.

Floor, for P pairs of tokens in the same segment in all heads and head_dim D: the forward reads query, key, value and
edges and writes y, with 4PD flops; the backward reads these, y and its gradient and writes four gradients, with 10PD.

Papers: Attention Is All You Need, arXiv 1706.03762; biases on edges: Do Transformers Really Perform Bad for Graph
Representation? (Graphormer), arXiv 2106.05234; packed segments: FlashAttention-2, arXiv 2307.08691.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ._runtime import (
    INTERPRETING,
    Backends,
    autocast,
    dot_dtype,
    dot_precision,
    jit,
    next_power_of_2,
    operator,
    tl,
)
from ._spec import Cost, OpSpec, Sampler, size_in_bytes

MAX_TRITON_HEAD_DIM = 128
MAX_SCORES = 1 << 20  # that the torch form computes at once: they should stay in the cache
FUSED_WIDTH = 96  # from which on torch's fused attention is the faster one
CAUSAL_ROWS = 128  # that it computes at once of causal scores, about half of which it then leaves out


def segment_attention_reference(
    query: Float[Tensor, "tokens heads head_dim"],
    key: Float[Tensor, "tokens heads head_dim"],
    value: Float[Tensor, "tokens heads head_dim"],
    cu_seqlens: Int[Tensor, " boundaries"],
    edge_index: Int[Tensor, "2 edges"] | None,
    edge_bias: Float[Tensor, "edges heads"] | None,
    causal: bool,
    scale: float,
) -> Float[Tensor, "tokens heads head_dim"]:
    """One dense attention a segment."""
    _check_values(len(query), cu_seqlens, edge_index)
    boundaries, outputs = cu_seqlens.tolist(), []
    for first, stop in itertools.pairwise(boundaries):
        q, k, v = (_widen(tensor[first:stop]).transpose(0, 1) for tensor in (query, key, value))
        scores = q * scale @ k.mT
        if edge_bias is not None:
            source, target = edge_index.long()
            inside = (first <= target) & (target < stop)
            head = torch.arange(query.shape[1], device=query.device)
            places = (head, target[inside, None] - first, source[inside, None] - first)
            scores = scores.index_put(places, _widen(edge_bias[inside]), accumulate=True)
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores[0], dtype=torch.bool).triu(1), -torch.inf)
        outputs.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outputs).to(query.dtype)


def _check_values(tokens: int, cu_seqlens: Tensor, edge_index: Tensor | None) -> None:
    """Raises ValueError where the integers make no sense; says nothing of those on a GPU."""
    if cu_seqlens.is_cuda:
        return
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens or (cu_seqlens.diff() < 0).any():
        shown = ", ".join(map(str, cu_seqlens[:8].tolist())) + (", ..." if len(cu_seqlens) > 8 else "")
        raise ValueError(
            f"segment_attention: cu_seqlens must rise from 0 to the number of tokens, {tokens}; it is [{shown}] and "
            f"ends with {cu_seqlens[-1].item()}"
        )
    if edge_index is not None and edge_index.numel():
        outside = (edge_index < 0) | (edge_index >= tokens)
        segment = torch.searchsorted(cu_seqlens[1:].contiguous(), edge_index.contiguous(), right=True)
        wrong = outside.any(0) | (segment[0] != segment[1])
        if wrong.any():
            number = int(wrong.nonzero()[0])
            source, target = edge_index[:, number].tolist()
            raise ValueError(
                f"segment_attention: edge {number} goes from token {source} to token {target}, which are not two of "
                f"the {tokens} tokens in one segment"
            )


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


# --- torch: buckets of segments of like length ------------------------------------------------------------------------
# How many buckets there are depends on values, which torch.compile cannot trace: so the torch form is a custom op too,
# with its backward written out.


class _Bucket(NamedTuple):
    """Rows of a bucket lie by segment, head and place, so that all of its segments and heads are one batch."""

    segments: int
    width: int  # of the longest segment
    places: slice  # of its padded tokens among all
    heads: int

    def of(self, rows: Tensor) -> Tensor:
        """(segments * heads, width, head_dim), a view of all rows."""
        span = slice(self.places.start * self.heads, self.places.stop * self.heads)
        return rows[span].unflatten(0, (-1, self.width))


class _Plan(NamedTuple):
    """Segments sorted by length, cut into buckets, and padded to the longest of each."""

    buckets: list[_Bucket]
    source: Tensor  # of each row, its token and head, as numbered in (tokens, heads); of padding, the segment's last
    padding: Tensor  # rows that are padding
    row: Tensor  # of each token and head, its row
    score: Tensor | None  # (edges, heads), the place of each score among those of all buckets

    def spread(self, x: Tensor) -> Tensor:
        """The rows of x (tokens, heads, head_dim)."""
        return x.flatten(0, 1).index_select(0, self.source)

    def gather(self, rows: Tensor, like: Tensor) -> Tensor:
        return rows.index_select(0, self.row).to(like.dtype).view(like.shape)


def _plan(tokens: int, heads: int, cu_seqlens: Tensor, edge_index: Tensor | None) -> _Plan:
    lengths, order = cu_seqlens.diff().long().sort()
    empty = int((lengths == 0).sum())
    lengths, order = lengths[empty:], order[empty:]
    # Lengths up to the same multiple of a quarter of a power of two share a bucket: at most a third is padding.
    step = torch.exp2(lengths.double().log2().ceil() - 2).clamp(min=8)
    _, counts = torch.unique_consecutive((lengths / step).ceil() * step, return_counts=True)
    widths = lengths[counts.cumsum(0) - 1]

    buckets, place = [], 0
    for count, width in zip(counts.tolist(), widths.tolist()):
        most = max(1, MAX_SCORES // (heads * width**2))
        for first in range(0, count, most):
            segments = min(most, count - first)
            buckets.append(_Bucket(segments, width, slice(place, place + segments * width), heads))
            place += segments * width

    # Selecting and scattering, which costs a third of what indexing does for so few numbers.
    device = lengths.device
    width, head = widths.repeat_interleave(counts), torch.arange(heads, device=device)
    first_place = width.cumsum(0) - width
    segment = torch.arange(len(width), device=device).repeat_interleave(width)
    offset = torch.arange(place, device=device) - first_place.index_select(0, segment)
    last = lengths.index_select(0, segment) - 1
    token = cu_seqlens.index_select(0, order).index_select(0, segment) + torch.minimum(offset, last)
    first_row = first_place.mul(heads).index_select(0, segment) + offset
    row = first_row.unsqueeze(1) + width.index_select(0, segment).unsqueeze(1) * head
    named = token.unsqueeze(1) * heads + head
    source = torch.empty(place * heads, dtype=torch.long, device=device).scatter_(0, row.flatten(), named.flatten())
    padding = row.index_select(0, (offset > last).nonzero().squeeze(1)).flatten()
    own = (offset <= last).nonzero().squeeze(1)
    place_of = torch.empty(tokens, dtype=torch.long, device=device).scatter_(0, token.index_select(0, own), own)
    row_of = row.index_select(0, place_of).flatten()
    if edge_index is None:
        return _Plan(buckets, source, padding, row_of, None)
    query, key = place_of[edge_index.long().flip(0)]
    home, plane = segment[query], width.square()
    first_score = (plane.cumsum(0) - plane)[home] * heads
    score = first_score + offset[query] * width[home] + offset[key]
    return _Plan(buckets, source, padding, row_of, score.unsqueeze(1) + plane[home].unsqueeze(1) * head)


class _Padded(NamedTuple):
    """The tensors of a bucket: (segments * heads, width, head_dim), and (segments * heads, width or 1, width)."""

    bucket: _Bucket
    query: Tensor
    key: Tensor
    value: Tensor
    addend: Tensor | None  # biases of edges, and minus infinity for padding among the keys
    scale: float

    def attend(self) -> Tensor:
        """All rows to all keys by torch's fused attention, which keeps no scores."""
        addend = None if self.addend is None else self.addend.expand(-1, self.bucket.width, -1).unsqueeze(0)
        inputs = (tensor.unsqueeze(0) for tensor in (self.query, self.key, self.value))
        return F.scaled_dot_product_attention(*inputs, attn_mask=addend, scale=self.scale).squeeze(0)

    def weights(self, rows: slice, keys: slice, causal: bool) -> Tensor:
        query, key = self.query[:, rows], self.key[:, keys].mT
        if self.addend is None:
            scores = torch.bmm(query, key).mul_(self.scale)
        else:
            addend = self.addend[:, rows, keys] if self.addend.shape[1] > 1 else self.addend[..., keys]
            scores = torch.baddbmm(addend, query, key, alpha=self.scale)
        if causal:
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(rows.start + 1)
            scores.masked_fill_(ahead, -torch.inf)
        return scores.softmax(-1)

    def blocks(self, causal: bool) -> Iterator[tuple[slice, slice]]:
        """The rows of segments too long to do at once in turns, with the keys that they see."""
        batch, width, _ = self.query.shape
        step = max(1, MAX_SCORES // (batch * width))
        step = min(step, CAUSAL_ROWS) if causal else step
        for first in range(0, width, step):
            stop = min(first + step, width)
            yield slice(first, stop), slice(0, stop if causal else width)


def _pad(
    plan: _Plan, query: Tensor, key: Tensor, value: Tensor, edge_bias: Tensor | None, causal: bool, scale: float
) -> Iterator[_Padded]:
    query, key, value = (_widen(plan.spread(tensor)) for tensor in (query, key, value))
    # Without future, tokens do not see the padding, which comes last.
    padding = None if causal else query.new_zeros(len(query), 1).index_fill_(0, plan.padding, -torch.inf)
    if edge_bias is not None:
        scores = _no_scores(plan, query).index_add_(0, plan.score.flatten(), edge_bias.flatten().to(query.dtype))
        scores = _of_buckets(plan, scores)
    for number, bucket in enumerate(plan.buckets):
        addend = None if padding is None else bucket.of(padding).mT
        if edge_bias is not None:
            addend = scores[number] if addend is None else scores[number].add_(addend)
        yield _Padded(bucket, *(bucket.of(tensor) for tensor in (query, key, value)), addend, scale)


def _no_scores(plan: _Plan, like: Tensor) -> Tensor:
    return like.new_zeros(sum(bucket.segments * bucket.heads * bucket.width**2 for bucket in plan.buckets))


def _of_buckets(plan: _Plan, scores: Tensor) -> list[Tensor]:
    """(segments * heads, width, width) of each bucket, views of the scores of all."""
    parts = scores.split([bucket.segments * bucket.heads * bucket.width**2 for bucket in plan.buckets])
    return [part.view(-1, bucket.width, bucket.width) for part, bucket in zip(parts, plan.buckets)]


def _dense_fake(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None, edge_bias: Tensor | None,
    causal: bool, scale: float,
) -> Tensor:  # fmt: skip
    return query.new_empty(query.shape)


@operator("segment_attention_dense", fake=_dense_fake)
def _dense(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None, edge_bias: Tensor | None,
    causal: bool, scale: float,
) -> Tensor:  # fmt: skip
    _check_values(len(query), cu_seqlens, edge_index)
    plan = _plan(*query.shape[:2], cu_seqlens, edge_index)
    y = _widen(query.new_empty(len(plan.source), query.shape[2]))
    for padded in _pad(plan, query, key, value, edge_bias, causal, scale):
        of_bucket = padded.bucket.of(y)
        if not causal and padded.bucket.width >= FUSED_WIDTH:
            of_bucket.copy_(padded.attend())
            continue
        for rows, keys in padded.blocks(causal):
            torch.bmm(padded.weights(rows, keys, causal), padded.value[:, keys], out=of_bucket[:, rows])
    return plan.gather(y, query)


def _dense_backward_fake(
    grad: Tensor, y: Tensor, query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None,
    edge_bias: Tensor | None, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_edge_bias = query.new_empty(0) if edge_bias is None else edge_bias.new_empty(edge_bias.shape)
    return *(tensor.new_empty(tensor.shape) for tensor in (query, key, value)), grad_edge_bias


@operator("segment_attention_dense_backward", fake=_dense_backward_fake)
def _dense_backward(
    grad: Tensor, y: Tensor, query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None,
    edge_bias: Tensor | None, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    heads = query.shape[1]
    plan = _plan(len(query), heads, cu_seqlens, edge_index)
    grad, y = _widen(plan.spread(grad)).index_fill_(0, plan.padding, 0), _widen(plan.spread(y))
    delta = (grad * y).sum(-1, keepdim=True)
    grads = [torch.empty_like(grad) for _ in range(3)]
    if edge_bias is not None:
        grad_scores_of = _of_buckets(plan, grad_addend := _no_scores(plan, grad))
    for number, padded in enumerate(_pad(plan, query, key, value, edge_bias, causal, scale)):
        bucket = padded.bucket
        grad_y, offset, of_query, of_key, of_value = (bucket.of(rows) for rows in (grad, delta, *grads))
        of_key.zero_(), of_value.zero_()
        for rows, keys in padded.blocks(causal):
            weights, part = padded.weights(rows, keys, causal), grad_y[:, rows]
            of_value[:, keys].baddbmm_(weights.mT, part)
            grad_scores = torch.bmm(part, padded.value[:, keys].mT).sub_(offset[:, rows]).mul_(weights)
            if edge_bias is not None:
                grad_scores_of[number][:, rows, keys] = grad_scores
            torch.bmm(grad_scores, padded.key[:, keys], out=of_query[:, rows])
            of_key[:, keys].baddbmm_(grad_scores.mT, padded.query[:, rows], alpha=scale)
    grads[0].mul_(scale)
    of_tokens = (plan.gather(tensor, like) for tensor, like in zip(grads, (query, key, value)))
    if edge_bias is None:
        return *of_tokens, query.new_empty(0)
    return *of_tokens, grad_addend[plan.score.flatten()].view(edge_bias.shape).to(edge_bias.dtype)


def _save_for_dense_backward(ctx, inputs, output):
    *tensors, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(output, *tensors)


def _dense_gradient(ctx, grad):
    saved = ctx.saved_tensors
    with torch.autocast(grad.device.type, enabled=False):
        *grads, grad_edge_bias = _dense_backward(grad, *saved, ctx.causal, ctx.scale)
    return *grads, None, None, None if saved[-1] is None else grad_edge_bias, None, None


_dense.register_autograd(_dense_gradient, setup_context=_save_for_dense_backward)


def segment_attention_torch(
    query: Float[Tensor, "tokens heads head_dim"],
    key: Float[Tensor, "tokens heads head_dim"],
    value: Float[Tensor, "tokens heads head_dim"],
    cu_seqlens: Int[Tensor, " boundaries"],
    edge_index: Int[Tensor, "2 edges"] | None,
    edge_bias: Float[Tensor, "edges heads"] | None,
    causal: bool,
    scale: float,
) -> Float[Tensor, "tokens heads head_dim"]:
    """Pad segments of like length to the same, and attend within all of them at once."""
    return _dense(query, key, value, cu_seqlens, edge_index, edge_bias, causal, scale)


# --- Triton -----------------------------------------------------------------------------------------------------------
# Every segment is cut into tiles. A program owns one, of one head, and walks over the tiles of its segment. What tile
# lies where is computed from cu_seqlens without waiting for its values: there is a bound on the number of tiles, and
# those too many are empty. Edges are sorted by their own tile, then by the visited one, so that a program meets them in
# the order of its walk; a product of two indicators adds them up where they belong.

LOG2E = tl.constexpr(1.4426950408889634)  # exponentials are powers of two


@jit
def _load(pointer, token, stop, column, dim, token_stride, DOT_DTYPE: tl.constexpr):
    """Tokens (a column) by dimensions (a row), or the other way round."""
    offset = tl.cast(token, tl.int64) * token_stride + column
    return tl.load(pointer + offset, mask=(token < stop) & (column < dim), other=0.0).to(tl.float32).to(DOT_DTYPE)


@jit
def _edges_here(place, stop, visited, visited_ptr, edge_ptr, own_ptr, other_ptr):
    """Of the sorted edges in these places: whether they meet the visited tile, their number, and their two tokens."""
    there = place < stop
    there &= tl.load(visited_ptr + place, mask=there, other=-1) == visited
    number = tl.cast(tl.load(edge_ptr + place, mask=there, other=0), tl.int64)
    own = tl.load(own_ptr + place, mask=there, other=-1)
    return there, number, own, tl.load(other_ptr + place, mask=there, other=-1)


@jit
def _edge_addend(
    cursor, stop, visited, begin, other_begin, head, heads, edge_bias_ptr, visited_ptr, edge_ptr, own_ptr, other_ptr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The sum of the edges between own and visited tile (own, visited), and the first edge after them."""
    place = tl.arange(0, BLOCK)
    addend = tl.zeros([BLOCK, BLOCK], tl.float32)
    found = tl.full([], BLOCK, tl.int32)
    while found == BLOCK:
        there, number, own, other = _edges_here(
            cursor + place, stop, visited, visited_ptr, edge_ptr, own_ptr, other_ptr
        )
        bias = tl.load(edge_bias_ptr + number * heads + head, mask=there, other=0.0).to(tl.float32)
        rows = tl.where(own[None, :] - begin == place[:, None], bias[None, :], 0.0)
        columns = tl.where(other[:, None] - other_begin == place[None, :], 1.0, 0.0)
        addend += tl.dot(rows, columns, input_precision="ieee")
        found = tl.sum(there.to(tl.int32))
        cursor += found
    return addend, cursor


@jit
def _store_edge_gradients(
    grad_scores, cursor, stop, visited, begin, other_begin, head, heads, grad_edge_bias_ptr,
    visited_ptr, edge_ptr, own_ptr, other_ptr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.arange(0, BLOCK)
    found = tl.full([], BLOCK, tl.int32)
    while found == BLOCK:
        there, number, own, other = _edges_here(
            cursor + place, stop, visited, visited_ptr, edge_ptr, own_ptr, other_ptr
        )
        rows = tl.where(own[:, None] - begin == place[None, :], 1.0, 0.0)
        picked = tl.dot(rows, grad_scores, input_precision="ieee")  # the row of each edge's target
        grad = tl.sum(tl.where(other[:, None] - other_begin == place[None, :], picked, 0.0), 1)
        grad = grad.to(grad_edge_bias_ptr.dtype.element_ty)
        tl.store(grad_edge_bias_ptr + number * heads + head, grad, mask=there)
        found = tl.sum(there.to(tl.int32))
        cursor += found


@jit
def _forward_kernel(
    begin_ptr, start_ptr, stop_ptr, first_tile_ptr, query_ptr, key_ptr, value_ptr, edge_bias_ptr,
    edge_start_ptr, visited_ptr, edge_ptr, target_ptr, source_ptr, y_ptr, logsumexp_ptr,
    tokens, token_stride, head_stride, heads, dim, scale,
    HAS_EDGES: tl.constexpr, CAUSAL: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile, head = tl.program_id(0), tl.cast(tl.program_id(1), tl.int64)
    begin, start, stop = tl.load(begin_ptr + tile), tl.load(start_ptr + tile), tl.load(stop_ptr + tile)
    place, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    row = begin + place
    base = head * head_stride
    query = _load(query_ptr + base, row[:, None], stop, column[None, :], dim, token_stride, DOT_DTYPE)

    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    y = tl.zeros([BLOCK, DIM], tl.float32)
    last = stop
    if CAUSAL:
        last = tl.minimum(stop, begin + BLOCK)
    if HAS_EDGES:
        visited = tl.load(first_tile_ptr + tile)
        cursor, edge_stop = tl.load(edge_start_ptr + tile), tl.load(edge_start_ptr + tile + 1)
    for other_begin in range(start, last, BLOCK):
        other = other_begin + place
        key = _load(key_ptr + base, other[None, :], stop, column[:, None], dim, token_stride, DOT_DTYPE)
        scores = tl.dot(query, key, input_precision=PRECISION) * scale
        if HAS_EDGES:
            addend, cursor = _edge_addend(
                cursor, edge_stop, visited, begin, other_begin, head, heads, edge_bias_ptr,
                visited_ptr, edge_ptr, target_ptr, source_ptr, BLOCK,
            )  # fmt: skip
            scores += addend
            visited += 1
        sees = (row < stop)[:, None] & (other < stop)[None, :]
        if CAUSAL:
            sees &= other[None, :] <= row[:, None]
        scores = tl.where(sees, scores * LOG2E, float("-inf"))

        previous = largest
        largest = tl.maximum(previous, tl.max(scores, 1))
        finite = tl.where(largest == float("-inf"), 0.0, largest)  # of a row beyond the segment
        weights = tl.exp2(scores - finite[:, None])
        rescale = tl.exp2(previous - finite)
        total = total * rescale + tl.sum(weights, 1)
        value = _load(value_ptr + base, other[:, None], stop, column[None, :], dim, token_stride, DOT_DTYPE)
        y = y * rescale[:, None] + tl.dot(weights.to(DOT_DTYPE), value, input_precision=PRECISION)

    total = tl.where(total > 0.0, total, 1.0)
    y = y / total[:, None]
    offset = ((row * heads + head) * dim)[:, None] + column[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=(row < stop)[:, None] & (column < dim)[None, :])
    tl.store(logsumexp_ptr + head * tokens + row, largest + tl.log2(total), mask=row < stop)


@jit
def _backward_query_kernel(
    begin_ptr, start_ptr, stop_ptr, first_tile_ptr, query_ptr, key_ptr, value_ptr, edge_bias_ptr,
    edge_start_ptr, visited_ptr, edge_ptr, target_ptr, source_ptr, grad_ptr, logsumexp_ptr, delta_ptr,
    grad_query_ptr, grad_edge_bias_ptr,
    tokens, token_stride, head_stride, heads, dim, scale,
    HAS_EDGES: tl.constexpr, CAUSAL: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile, head = tl.program_id(0), tl.cast(tl.program_id(1), tl.int64)
    begin, start, stop = tl.load(begin_ptr + tile), tl.load(start_ptr + tile), tl.load(stop_ptr + tile)
    place, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    row = begin + place
    base = head * head_stride
    query = _load(query_ptr + base, row[:, None], stop, column[None, :], dim, token_stride, DOT_DTYPE)
    grad = _load(grad_ptr + head * dim, row[:, None], stop, column[None, :], dim, heads * dim, DOT_DTYPE)
    logsumexp = tl.load(logsumexp_ptr + head * tokens + row, mask=row < stop, other=float("inf"))[:, None]
    delta = tl.load(delta_ptr + head * tokens + row, mask=row < stop, other=0.0)[:, None]

    grad_query = tl.zeros([BLOCK, DIM], tl.float32)
    last = stop
    if CAUSAL:
        last = tl.minimum(stop, begin + BLOCK)
    if HAS_EDGES:
        visited = tl.load(first_tile_ptr + tile)
        cursor, edge_stop = tl.load(edge_start_ptr + tile), tl.load(edge_start_ptr + tile + 1)
    for other_begin in range(start, last, BLOCK):
        other = other_begin + place
        key = _load(key_ptr + base, other[None, :], stop, column[:, None], dim, token_stride, DOT_DTYPE)
        value = _load(value_ptr + base, other[None, :], stop, column[:, None], dim, token_stride, DOT_DTYPE)
        scores = tl.dot(query, key, input_precision=PRECISION) * scale
        if HAS_EDGES:
            first_edge = cursor
            addend, cursor = _edge_addend(
                cursor, edge_stop, visited, begin, other_begin, head, heads, edge_bias_ptr,
                visited_ptr, edge_ptr, target_ptr, source_ptr, BLOCK,
            )  # fmt: skip
            scores += addend
        sees = (row < stop)[:, None] & (other < stop)[None, :]
        if CAUSAL:
            sees &= other[None, :] <= row[:, None]
        weights = tl.where(sees, tl.exp2(scores * LOG2E - logsumexp), 0.0)
        grad_scores = weights * (tl.dot(grad, value, input_precision=PRECISION) - delta)
        if HAS_EDGES:
            _store_edge_gradients(
                grad_scores, first_edge, edge_stop, visited, begin, other_begin, head, heads, grad_edge_bias_ptr,
                visited_ptr, edge_ptr, target_ptr, source_ptr, BLOCK,
            )  # fmt: skip
            visited += 1
        # The keys once more, the other way round.
        key = _load(key_ptr + base, other[:, None], stop, column[None, :], dim, token_stride, DOT_DTYPE)
        grad_query += tl.dot(grad_scores.to(DOT_DTYPE), key, input_precision=PRECISION)

    grad_query *= scale
    offset = ((row * heads + head) * dim)[:, None] + column[None, :]
    inside = (row < stop)[:, None] & (column < dim)[None, :]
    tl.store(grad_query_ptr + offset, grad_query.to(grad_query_ptr.dtype.element_ty), mask=inside)


@jit
def _backward_key_value_kernel(
    begin_ptr, start_ptr, stop_ptr, first_tile_ptr, query_ptr, key_ptr, value_ptr, edge_bias_ptr,
    edge_start_ptr, visited_ptr, edge_ptr, target_ptr, source_ptr, grad_ptr, logsumexp_ptr, delta_ptr,
    grad_key_ptr, grad_value_ptr,
    tokens, token_stride, head_stride, heads, dim, scale,
    HAS_EDGES: tl.constexpr, CAUSAL: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # The tile holds keys, and the program walks over queries. Scores are computed keys by queries, so that no product
    # has to be transposed for the next.
    tile, head = tl.program_id(0), tl.cast(tl.program_id(1), tl.int64)
    begin, start, stop = tl.load(begin_ptr + tile), tl.load(start_ptr + tile), tl.load(stop_ptr + tile)
    place, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    row = begin + place
    base = head * head_stride
    key = _load(key_ptr + base, row[:, None], stop, column[None, :], dim, token_stride, DOT_DTYPE)
    value = _load(value_ptr + base, row[:, None], stop, column[None, :], dim, token_stride, DOT_DTYPE)

    grad_key = tl.zeros([BLOCK, DIM], tl.float32)
    grad_value = tl.zeros([BLOCK, DIM], tl.float32)
    if CAUSAL:
        start = begin
    if HAS_EDGES:
        visited = tile if CAUSAL else tl.load(first_tile_ptr + tile)
        cursor, edge_stop = tl.load(edge_start_ptr + tile), tl.load(edge_start_ptr + tile + 1)
    for other_begin in range(start, stop, BLOCK):
        other = other_begin + place
        query = _load(query_ptr + base, other[None, :], stop, column[:, None], dim, token_stride, DOT_DTYPE)
        grad = _load(grad_ptr + head * dim, other[None, :], stop, column[:, None], dim, heads * dim, DOT_DTYPE)
        logsumexp = tl.load(logsumexp_ptr + head * tokens + other, mask=other < stop, other=float("inf"))[None, :]
        delta = tl.load(delta_ptr + head * tokens + other, mask=other < stop, other=0.0)[None, :]
        scores = tl.dot(key, query, input_precision=PRECISION) * scale
        if HAS_EDGES:
            addend, cursor = _edge_addend(
                cursor, edge_stop, visited, begin, other_begin, head, heads, edge_bias_ptr,
                visited_ptr, edge_ptr, source_ptr, target_ptr, BLOCK,
            )  # fmt: skip
            scores += addend
            visited += 1
        sees = (row < stop)[:, None] & (other < stop)[None, :]
        if CAUSAL:
            sees &= row[:, None] <= other[None, :]
        weights = tl.where(sees, tl.exp2(scores * LOG2E - logsumexp), 0.0)
        grad_scores = weights * (tl.dot(value, grad, input_precision=PRECISION) - delta)
        query = _load(query_ptr + base, other[:, None], stop, column[None, :], dim, token_stride, DOT_DTYPE)
        grad = _load(grad_ptr + head * dim, other[:, None], stop, column[None, :], dim, heads * dim, DOT_DTYPE)
        grad_value += tl.dot(weights.to(DOT_DTYPE), grad, input_precision=PRECISION)
        grad_key += tl.dot(grad_scores.to(DOT_DTYPE), query, input_precision=PRECISION)

    grad_key *= scale
    offset = ((row * heads + head) * dim)[:, None] + column[None, :]
    inside = (row < stop)[:, None] & (column < dim)[None, :]
    tl.store(grad_key_ptr + offset, grad_key.to(grad_key_ptr.dtype.element_ty), mask=inside)
    tl.store(grad_value_ptr + offset, grad_value.to(grad_value_ptr.dtype.element_ty), mask=inside)


class _Tiles(NamedTuple):
    """Of each tile: its first token, the first of its segment, the one after, and the first tile of the segment."""

    begin_ptr: Tensor
    start_ptr: Tensor
    stop_ptr: Tensor
    first_tile_ptr: Tensor


def _tiles(tokens: int, cu_seqlens: Tensor, block: int) -> _Tiles:
    count = tokens // block + len(cu_seqlens) - 1  # no fewer than the sum of each segment's tiles
    start, stop = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    tiles = (stop - start + block - 1) // block
    after = tiles.cumsum(0)
    tile = torch.arange(count, device=cu_seqlens.device)
    there = tile < after[-1]
    segment = torch.searchsorted(after, tile, right=True).clamp(max=len(tiles) - 1)
    first_tile = (after - tiles)[segment]
    begin = start[segment] + (tile - first_tile) * block
    return _Tiles(*(torch.where(there, table, 0) for table in (begin, start[segment], stop[segment], first_tile)))


def _sort_edges(
    edge_index: Tensor | None, cu_seqlens: Tensor, tiles: _Tiles, block: int, causal: bool, own_is_target: bool
) -> dict[str, Tensor | None]:
    """Edges sorted by own, then visited tile; without future, those from a later tile come last, where none looks."""
    if edge_index is None:
        return dict.fromkeys(("edge_start_ptr", "visited_ptr", "edge_ptr", "target_ptr", "source_ptr"))
    count = len(tiles.begin_ptr)
    edge_index = edge_index.long().contiguous()
    segment = torch.searchsorted(cu_seqlens[1:].long(), edge_index, right=True)
    start = cu_seqlens[:-1].long()
    first_tile = ((cu_seqlens.long().diff() + block - 1) // block).cumsum(0).roll(1)
    first_tile[0] = 0
    source, target = first_tile[segment] + (edge_index - start[segment]) // block
    own, visited = (target, source) if own_is_target else (source, target)
    if causal:
        visited = torch.where(source > target, count, visited)
    edge = torch.argsort(own * (count + 1) + visited, stable=True)
    starts = torch.searchsorted(own[edge], torch.arange(count + 1, device=own.device))
    source, target = edge_index[:, edge]
    return {
        "edge_start_ptr": starts,
        "visited_ptr": visited[edge],
        "edge_ptr": edge,
        "target_ptr": target.contiguous(),
        "source_ptr": source.contiguous(),
    }


class _Launch(NamedTuple):
    """What all kernels are given, by the names of their arguments, and the edges for walks over keys and queries."""

    grid: tuple[int, int]
    tensors: dict[str, Tensor | None]
    settings: dict
    over_keys: dict[str, Tensor | None]
    over_queries: dict[str, Tensor | None]


def _launch(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None, edge_bias: Tensor | None,
    causal: bool, scale: float,
) -> _Launch:  # fmt: skip
    if query.stride(2) != 1 or not query.stride() == key.stride() == value.stride():
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    # 64 tokens a tile, or 32 in float32, whose products take more registers; 16, the least of a dot, interpreting.
    block = 16 if INTERPRETING else 32 if query.dtype == torch.float32 else 64
    cu_seqlens = cu_seqlens.contiguous()
    tiles = _tiles(len(query), cu_seqlens, block)
    edges = (edge_index, cu_seqlens, tiles, block, causal)
    return _Launch(
        grid=(len(tiles.begin_ptr), query.shape[1]),
        tensors={
            **tiles._asdict(),
            "query_ptr": query,
            "key_ptr": key,
            "value_ptr": value,
            "edge_bias_ptr": None if edge_bias is None else edge_bias.contiguous(),
        },
        settings={
            "tokens": len(query),
            "token_stride": query.stride(0),
            "head_stride": query.stride(1),
            "heads": query.shape[1],
            "dim": query.shape[2],
            "scale": scale,
            "HAS_EDGES": edge_bias is not None,
            "CAUSAL": causal,
            "BLOCK": block,
            "DIM": max(16, next_power_of_2(query.shape[2])),
            "DOT_DTYPE": dot_dtype(query.dtype),
            "PRECISION": dot_precision(),
        },
        over_keys=_sort_edges(*edges, own_is_target=True),
        over_queries=_sort_edges(*edges, own_is_target=False),
    )


def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None, edge_bias: Tensor | None,
    causal: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return query.new_empty(query.shape), query.new_empty(query.shape[1::-1], dtype=torch.float32)


@operator("segment_attention", fake=_forward_fake)
def _forward(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None, edge_bias: Tensor | None,
    causal: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inputs = (query, key, value, cu_seqlens, edge_index, edge_bias, causal, scale)
    _check_values(len(query), cu_seqlens, edge_index)
    y, logsumexp = _forward_fake(*inputs)
    launch = _launch(*inputs)
    _forward_kernel[launch.grid](
        **launch.tensors, **launch.over_keys, y_ptr=y, logsumexp_ptr=logsumexp, **launch.settings
    )
    return y, logsumexp


def _backward_fake(
    grad: Tensor, y: Tensor, logsumexp: Tensor, query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor,
    edge_index: Tensor | None, edge_bias: Tensor | None, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _dense_backward_fake(grad, y, query, key, value, cu_seqlens, edge_index, edge_bias, causal, scale)


@operator("segment_attention_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, y: Tensor, logsumexp: Tensor, query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor,
    edge_index: Tensor | None, edge_bias: Tensor | None, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    inputs = (query, key, value, cu_seqlens, edge_index, edge_bias, causal, scale)
    grad_query, grad_key, grad_value, grad_edge_bias = _backward_fake(grad, y, logsumexp, *inputs)
    if causal:
        grad_edge_bias.zero_()  # edges from later tiles are met by no program
    launch = _launch(*inputs)
    delta = (grad.float() * y.float()).sum(-1).mT.contiguous()
    given = {**launch.tensors, "grad_ptr": grad.contiguous(), "logsumexp_ptr": logsumexp, "delta_ptr": delta}
    _backward_query_kernel[launch.grid](
        **given, **launch.over_keys, grad_query_ptr=grad_query, grad_edge_bias_ptr=grad_edge_bias, **launch.settings
    )
    _backward_key_value_kernel[launch.grid](
        **given, **launch.over_queries, grad_key_ptr=grad_key, grad_value_ptr=grad_value, **launch.settings
    )
    return grad_query, grad_key, grad_value, grad_edge_bias


def _save_for_backward(ctx, inputs, output):
    *tensors, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*output, *tensors)


def _gradient(ctx, grad, _):
    saved = ctx.saved_tensors
    *grads, grad_edge_bias = _backward(grad, *saved, ctx.causal, ctx.scale)
    return *grads, None, None, None if saved[-1] is None else grad_edge_bias, None, None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _segment_attention_triton(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None, edge_bias: Tensor | None,
    causal: bool, scale: float,
) -> Tensor:  # fmt: skip
    return _forward(query, key, value, cu_seqlens, edge_index, edge_bias, causal, scale)[0]


def _triton_refuses(query: Tensor, *_, **__) -> str | None:
    if query.shape[-1] > MAX_TRITON_HEAD_DIM:
        return f"head_dim {query.shape[-1]} is larger than {MAX_TRITON_HEAD_DIM}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends(
    "segment_attention", segment_attention_reference, segment_attention_torch, _segment_attention_triton,
    _triton_refuses,
)  # fmt: skip


def segment_attention(
    query: Float[Tensor, "tokens heads head_dim"],
    key: Float[Tensor, "tokens heads head_dim"],
    value: Float[Tensor, "tokens heads head_dim"],
    cu_seqlens: Int[Tensor, " boundaries"],
    edge_index: Int[Tensor, "ends edges"] | None = None,
    edge_bias: Float[Tensor, "biases bias_heads"] | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    backend: str | None = None,
) -> Float[Tensor, "tokens heads head_dim"]:
    """Attend within the segments of packed sequences or graphs: softmax(scale * query key^T + edge bias) value in each.

    query, key, value (tokens, heads, head_dim), the segments one after another; cu_seqlens (segments + 1,), integers,
    holds 0 and where each segment ends; segments may be empty. edge_bias (edges, heads) is added to the scores of the
    edges in edge_index (2, edges), whose first row is the source (key) and whose second the target (query), two tokens
    of one segment; edges that are there twice add up. scale is head_dim^-0.5 if None. Raises ValueError for shapes,
    boundaries and edges that do not fit (the values of integers are checked on the CPU only), and for a backend
    ("reference", "torch", "triton") that cannot serve the call.

    Graphormer, arXiv 2106.05234; FlashAttention-2, arXiv 2307.08691.
    """
    if not query.shape == key.shape == value.shape or not query.dtype == key.dtype == value.dtype:
        found = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in (query, key, value))
        raise ValueError(f"segment_attention: query, key and value must be alike, but are {found}")
    if cu_seqlens.ndim != 1 or (len(cu_seqlens) < 2 and len(query)):
        raise ValueError(
            f"segment_attention: cu_seqlens has shape {tuple(cu_seqlens.shape)}; it needs one number more than there "
            "are segments, from 0 to the number of tokens"
        )
    if (edge_index is None) != (edge_bias is None):
        raise ValueError("segment_attention: edge_index and edge_bias belong together; give both or neither")
    if edge_bias is not None:
        expected = (edge_index.shape[-1], query.shape[1])
        if len(edge_index) != 2 or edge_bias.shape != expected:
            raise ValueError(
                f"segment_attention: edge_index has shape {tuple(edge_index.shape)} and edge_bias "
                f"{tuple(edge_bias.shape)}; they must be (2, edges) and (edges, {query.shape[1]})"
            )
        if not len(edge_bias):
            edge_index = edge_bias = None
    query, key, value = autocast(query, key, value)
    if query.numel() == 0:
        return query.clone()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    inputs = (query, key, value, cu_seqlens, edge_index, edge_bias, causal, scale)
    with torch.autocast(query.device.type, enabled=False):
        return _BACKENDS.select(backend, *inputs)(*inputs)


def _floor(query: Tensor, cu_seqlens: Tensor, edge_bias: Tensor | None = None, **_) -> tuple[Cost, Cost]:
    # Where lengths cannot be read, they are taken to be equal.
    lengths = None if cu_seqlens.is_meta else cu_seqlens.diff()
    squares = len(query) ** 2 / (len(cu_seqlens) - 1) if lengths is None else int(lengths.square().sum())
    flops, moved = squares * query[0].numel(), 4 * size_in_bytes(query) + size_in_bytes(edge_bias)
    return Cost(moved, 4 * flops), Cost(2 * moved, 10 * flops)


def _inputs(random: Sampler, lengths: list[int], heads: int, dim: int, edges: int = 0, **settings) -> dict:
    """Segments of these lengths, with edges anywhere in them, some of them twice."""
    tokens = sum(lengths)
    made = {name: random.normal(tokens, heads, dim) for name in ("query", "key", "value")} | settings
    made["cu_seqlens"] = torch.tensor([0, *lengths]).cumsum(0)
    if edges:
        start, length = (table.repeat_interleave(torch.tensor(lengths)) for table in _starts(lengths))
        target = random.integers(edges, high=tokens)
        target[edges // 2] = target[0]
        source = start[target] + random.integers(edges, high=1 << 30) % length[target]
        source[edges // 2] = source[0]
        made |= {"edge_index": torch.stack([source, target]), "edge_bias": random.normal(edges, heads)}
    return made


def _starts(lengths: list[int]) -> tuple[Tensor, Tensor]:
    length = torch.tensor(lengths)
    return length.cumsum(0) - length, length


_GRAPHS = [20 + 7 * number % 51 for number in range(48)]

SPEC = OpSpec(
    function=segment_attention,
    backends=_BACKENDS,
    cases={
        "edges": lambda random: _inputs(random, [3, 0, 17], 1, 4, edges=13),
        "segments": lambda random: _inputs(random, [0, 3, 17, 1, 0], 1, 5, scale=0.3),
        "causal": lambda random: _inputs(random, [19, 2], 1, 4, causal=True),
        "causal edges": lambda random: _inputs(random, [2, 33], 1, 3, edges=41, causal=True),
        "int32 boundaries": lambda random: (
            _inputs(random, [7, 5], 2, 4, edges=5) | {"cu_seqlens": torch.tensor([0, 7, 12], dtype=torch.int32)}
        ),
        "one token": lambda random: _inputs(random, [1], 1, 1),
        "nothing but empty segments": lambda random: _inputs(random, [0, 0], 1, 4),
    },
    large_cases={
        "graphs": lambda random: _inputs(random, [43, 0, 7, 61, 64, 59, 1, 33], 3, 8, edges=701),
        "more than at once": lambda random: _inputs(random, [1031, 17, 1, 16], 2, 8, edges=97),
        "long causal": lambda random: _inputs(random, [1031, 1029, 3], 1, 8, edges=97, causal=True),
    },
    benchmarks={
        "48 graphs, edges": lambda random: _inputs(random, _GRAPHS, 4, 16, edges=4 * sum(_GRAPHS)),
        "48 graphs": lambda random: _inputs(random, _GRAPHS, 4, 16),
        "512 molecules": lambda random: _inputs(random, [9 + 5 * number % 31 for number in range(512)], 4, 16),
        "4 sequences, causal": lambda random: _inputs(random, [512, 311, 97, 640], 4, 32, causal=True),
    },
    differentiable=("query", "key", "value", "edge_bias"),
    floor=_floor,
    paper="Graphormer, arXiv 2106.05234; FlashAttention-2, arXiv 2307.08691",
)
