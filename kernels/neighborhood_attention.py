"""Neighborhood attention: each query attends to the window of keys around it, on grids of 1 to 3 axes.

    y_i = sum_j softmax_j(scale * q_i . k_j + bias[j - i]) v_j        over the window of i

Shapes: query, key, value, y (batch, *grid, heads, head_dim); bias (heads, 2K-1, ...) over key minus query in units of
dilation, plus K-1; mask (batch, *grid), True where a token is real.

Window, per axis: positions that are equal modulo the dilation form a class, and a query sees the K members of its class
from `place - K // 2` on, the window shifting inwards at the borders so that it stays whole; a class with fewer than K
members is seen whole. On a causal axis it sees its own and the K-1 members before, fewer at the border. Masked keys take
no part, and a query that sees no key gives 0.

Softmax and sums are float32 (float64 for float64 inputs); y and the gradients have the dtypes of their inputs. Under
autocast query, key and value are cast to its dtype.

Floor, for N tokens, W = prod(K) and E bytes of query: forward 4E bytes and 4NWd flops, backward 8E bytes and 10NWd flops.

Papers: Neighborhood Attention Transformer, arXiv 2204.07143; dilation: arXiv 2209.15001; causal and 3-D windows, fused
kernels: Faster Neighborhood Attention, arXiv 2403.04690.
"""

import functools
import math
from collections.abc import Callable, Sequence
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


def neighborhood_attention_reference(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid heads head_dim"],
    value: Float[Tensor, "batch *grid heads head_dim"],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    causal: tuple[bool, ...],
    bias: Float[Tensor, "heads *offsets"] | None,
    mask: Bool[Tensor, "batch *grid"] | None,
    scale: float,
) -> Float[Tensor, "batch *grid heads head_dim"]:
    """Gather the window of every query."""
    grid = query.shape[1:-2]
    keys, inside, offsets = [], [], []
    for length, size, step, only_past in zip(grid, kernel_size, dilation, causal):
        position = torch.arange(length, device=query.device)
        place, members = position // step, (length - position % step + step - 1) // step
        first = _window_start(place, members, size, only_past)
        member = first[:, None] + torch.arange(min(size, cdiv(length, step)), device=query.device)
        keys.append((position[:, None] % step + step * member).clamp(max=length - 1))
        inside.append(_is_inside(place[:, None], member, members[:, None], size, only_past))
        offsets.append((member - place[:, None] + size - 1).clamp(0, 2 * size - 2))

    tokens = math.prod(grid)
    index = _flat_index(keys, grid).reshape(tokens, -1)
    inside = _outer(inside, torch.logical_and).reshape(tokens, 1, -1)
    q, k, v = (_widen(tensor).flatten(1, len(grid)) for tensor in (query, key, value))
    scores = torch.einsum("bnhd,bnwhd->bnhw", q * scale, k[:, index])
    if bias is not None:
        offset = _flat_index(offsets, bias.shape[1:]).reshape(tokens, -1)
        scores = scores + _widen(bias).flatten(1)[:, offset].transpose(0, 1)
    if mask is not None:
        inside = inside & mask.flatten(1)[:, index].unsqueeze(2)
    seen = inside.any(-1, keepdim=True)  # a row of -inf alone would have NaN for its gradient
    weights = scores.masked_fill(~inside & seen, -torch.inf).softmax(-1).masked_fill(~seen, 0)
    return torch.einsum("bnhw,bnwhd->bnhd", weights, v[:, index]).reshape(query.shape).to(query.dtype)


def neighborhood_attention_torch(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid heads head_dim"],
    value: Float[Tensor, "batch *grid heads head_dim"],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    causal: tuple[bool, ...],
    bias: Float[Tensor, "heads *offsets"] | None,
    mask: Bool[Tensor, "batch *grid"] | None,
    scale: float,
) -> Float[Tensor, "batch *grid heads head_dim"]:
    """Cut the grid into tiles, whose queries attend to the tile and a halo around it: a batch of small dense problems.

    Neighbouring queries share most of their windows: a tile of 8x8 queries with windows of 7x7 needs 14x14 keys, where a
    gather writes 64 times 7x7. Keys of the halo outside a query's own window get a large negative score.
    """
    grid, rank = query.shape[1:-2], len(kernel_size)
    axes = [_cut_axis(*settings, rank, query.device) for settings in zip(grid, kernel_size, dilation, causal)]
    addend, seen = _scores_addend(axes, bias, mask, query.dtype)

    # Whichever of heads and batch the addend lacks comes first and folds into the batch of the dense attention.
    heads_first = bias is None
    q = _take_tiles(query, axes, "queries", heads_first)
    k, v = (_take_tiles(tensor, axes, "keys", heads_first) for tensor in (key, value))
    shared = math.prod(q.shape[:3]) if addend is None else math.prod(addend.shape[:-2])
    folded = (math.prod(q.shape[:3]) // shared, shared)
    y = F.scaled_dot_product_attention(
        *(tensor.reshape(*folded, *tensor.shape[3:]) for tensor in (q, k, v)),
        attn_mask=None if addend is None else addend.reshape(1, shared, *addend.shape[-2:]),
        scale=scale,
    ).reshape(q.shape)

    if seen is not None:
        y = y.masked_fill(~(seen if heads_first else seen.unsqueeze(1)).unsqueeze(-1), 0)
    return _put_tiles(y, axes, heads_first)


class _Axis(NamedTuple):
    """One axis cut into tiles; the groups are the tiles of every dilation class."""

    queries: Tensor  # position of each query (groups, tile)
    keys: Tensor  # position of each key (groups, halo)
    slots: Tensor  # where each position lies in the flattened queries (length,)
    inside: Tensor  # whether a key is in a query's window (groups, tile, halo)
    offsets: Tensor  # key minus query plus size - 1, brought into bounds (tile, halo)
    in_order: bool  # the flattened queries are the axis itself
    always_inside: bool  # every key is in every window


def _cut_axis(length: int, size: int, step: int, only_past: bool, rank: int, device: torch.device) -> _Axis:
    longest = cdiv(length, step)  # members of the longest class
    # Tiles of about 32, 8x8 or 4x4x4 are the fastest on CPU. They must reach over half a window, or a window that shifts
    # inwards at the border would leave the halo. Where the halo would cover the axis, the axis is one tile.
    least = size // 2 + 1
    tile = max((32, 8, 4)[rank - 1], least)
    whole = longest < tile + size
    tile = longest if whole else max(cdiv(longest, cdiv(longest, tile)), least)
    halo = longest if whole else tile + size - 1
    before = 0 if whole else size - 1 if only_past else size // 2

    arange = functools.partial(torch.arange, device=device)
    members = ((length - arange(step) + step - 1) // step)[:, None]  # class tile
    last_start = (members - tile).clamp(min=0)  # the last tile overlaps the one before rather than leave the axis
    start = torch.minimum(arange(cdiv(longest, tile)) * tile, last_start)
    place = start[..., None] + arange(tile)  # class tile query
    member = (start - before)[..., None] + arange(halo)  # class tile key
    queries, keys = (arange(step)[:, None, None] + step * index for index in (place, member))

    position = arange(length)
    own_place, own_class = position // step, position % step
    own_start = torch.minimum(own_place // tile * tile, last_start[own_class, 0])
    return _Axis(
        queries=queries.clamp(max=length - 1).flatten(0, 1),
        keys=keys.clamp(0, length - 1).flatten(0, 1),
        slots=(own_class * start.shape[1] + own_place // tile) * tile + own_place - own_start,
        inside=_is_inside(place[..., None], member[..., None, :], members[..., None, None], size, only_past).flatten(
            0, 1
        ),
        offsets=(arange(halo) - arange(tile)[:, None] - before + size - 1).clamp(0, 2 * size - 2),
        in_order=step == 1 and length % tile == 0,
        always_inside=size >= longest and length % step == 0 and not only_past,
    )


def _scores_addend(
    axes: Sequence[_Axis], bias: Tensor | None, mask: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the scores, ([batch], [heads], tiles, queries, keys), and, with a mask, who sees any key.

    A large negative number stands for minus infinity, so that no row is without a finite score; four of them and a bias
    stay finite.
    """
    if bias is None and mask is None and all(axis.always_inside for axis in axes):
        return None, None
    outside = torch.finfo(dtype).min / 8
    windows = [torch.zeros_like(axis.inside, dtype=dtype).masked_fill(~axis.inside, outside) for axis in axes]
    sizes = [math.prod(entry) for entry in zip(*(axis.inside.shape for axis in axes))]
    addend, seen = _outer(windows, torch.add).reshape(sizes), None
    if mask is not None:
        real = _take_tiles(mask[..., None, None], axes, "keys", heads_first=False)[:, 0]  # batch tiles keys 1
        addend = addend.masked_fill(~real.transpose(-1, -2), outside)
        seen = (addend > outside / 2).any(-1)
    if bias is not None:
        relative = bias.flatten(1)[:, _flat_index([axis.offsets for axis in axes], bias.shape[1:])]
        addend = addend.unsqueeze(-4) + relative.reshape(-1, 1, *sizes[1:]).to(dtype)
    return addend, seen


def _take_tiles(x: Tensor, axes: Sequence[_Axis], side: str, heads_first: bool) -> Tensor:
    """From (batch, *grid, heads, dim) to (batch, heads, tiles, positions, dim), or with heads first."""
    rank, tables = len(axes), [getattr(axis, side) for axis in axes]
    for dimension, (axis, table) in enumerate(zip(axes, tables), 1):
        if side == "keys" or not axis.in_order:
            x = x.index_select(dimension, table.flatten())
    sizes = [size for table in tables for size in table.shape]
    x = x.reshape(x.shape[0], *sizes, *x.shape[-2:])
    heads, dim = 2 * rank + 1, 2 * rank + 2
    outer = (heads, 0) if heads_first else (0, heads)
    x = x.permute(*outer, *range(1, heads, 2), *range(2, heads, 2), dim)
    return x.reshape(*x.shape[:2], math.prod(sizes[::2]), math.prod(sizes[1::2]), x.shape[-1])


def _put_tiles(y: Tensor, axes: Sequence[_Axis], heads_first: bool) -> Tensor:
    """From (batch, heads, tiles, positions, dim), or with heads first, to (batch, *grid, heads, dim)."""
    rank = len(axes)
    groups, tile = zip(*(axis.queries.shape for axis in axes))
    y = y.reshape(*y.shape[:2], *groups, *tile, y.shape[-1])
    batch, heads = (1, 0) if heads_first else (0, 1)
    pairs = [dimension for axis in range(2, 2 + rank) for dimension in (axis, axis + rank)]
    y = y.permute(batch, *pairs, heads, 2 + 2 * rank)
    y = y.reshape(y.shape[0], *(axis.queries.numel() for axis in axes), *y.shape[-2:])
    for dimension, axis in enumerate(axes, 1):
        if not axis.in_order:
            y = y.index_select(dimension, axis.slots)
    return y


def _window_start(place: Tensor, members: Tensor, size: int, only_past: bool) -> Tensor:
    if only_past:
        return (place - size + 1).clamp(min=0)
    return torch.minimum(place - size // 2, members - size).clamp(min=0)


def _is_inside(query: Tensor, key: Tensor, members: Tensor, size: int, only_past: bool) -> Tensor:
    start = _window_start(query, members, size, only_past)
    stop = torch.minimum(start + size, query + 1 if only_past else members)
    return (start <= key) & (key < stop)


def _outer(tables: Sequence[Tensor], combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine one table an axis, (a, b, ...) each, into (a of every axis, b of every axis, ...)."""
    rank = len(tables)
    spread = (
        table.reshape([size for length in table.shape for size in (*(1,) * axis, length, *(1,) * (rank - axis - 1))])
        for axis, table in enumerate(tables)
    )
    return functools.reduce(combine, spread)


def _flat_index(indices: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return _outer([index * stride for index, stride in zip(indices, strides)], torch.add)


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


# --- Triton -----------------------------------------------------------------------------------------------------------
# The kernels know nothing of grids: which tokens make a tile, which tokens it has to visit, and where the window of each
# token lies is in tables (`_tables`) that are made once for a grid. A program owns one tile, for one head of one batch
# entry, and walks over the tokens it has to visit in blocks of the tile's size. Per token there are ten rows of numbers:
# the place on each of three axes, the first place of its window on each, the place after its last, and its place in the
# bias; the bias of a key and a query is found at the difference of their places, plus that of a token with itself.

LOG2E = tl.constexpr(1.4426950408889634)  # exponentials are powers of two


@jit
def _forward_kernel(
    tile_ptr, visit_ptr, windows_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, y_ptr, logsumexp_ptr,
    tiles, visits, tokens, batch_stride, token_stride, head_stride, heads, dim, bias_size, bias_center, scale,
    RANK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0) % tiles
    pair = tl.cast(tl.program_id(0) // tiles, tl.int64)
    batch = pair // heads
    head = pair % heads
    base = batch * batch_stride + head * head_stride
    row = tl.arange(0, BLOCK)
    column = tl.arange(0, DIM)

    token = tl.cast(tl.load(tile_ptr + tile * BLOCK + row), tl.int64)
    real = token >= 0
    first2 = tl.load(windows_ptr + 5 * tokens + token, mask=real, other=0)[:, None]
    stop2 = tl.load(windows_ptr + 8 * tokens + token, mask=real, other=0)[:, None]
    if RANK >= 2:
        first1 = tl.load(windows_ptr + 4 * tokens + token, mask=real, other=0)[:, None]
        stop1 = tl.load(windows_ptr + 7 * tokens + token, mask=real, other=0)[:, None]
    if RANK == 3:
        first0 = tl.load(windows_ptr + 3 * tokens + token, mask=real, other=0)[:, None]
        stop0 = tl.load(windows_ptr + 6 * tokens + token, mask=real, other=0)[:, None]
    if HAS_BIAS:
        bias_query = tl.load(windows_ptr + 9 * tokens + token, mask=real, other=0)[:, None] - bias_center
    own = real[:, None] & (column < dim)[None, :]
    query = tl.load(query_ptr + base + (token * token_stride)[:, None] + column[None, :], mask=own, other=0.0)
    query = query.to(tl.float32).to(DOT_DTYPE)  # through float32 for the interpreter's sake

    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    y = tl.zeros([BLOCK, DIM], tl.float32)
    for begin in range(0, visits, BLOCK):
        visited = tl.load(visit_ptr + tile * visits + begin + row, mask=begin + row < visits, other=-1)
        visited = tl.cast(visited, tl.int64)
        there = visited >= 0
        if HAS_MASK:
            there &= tl.load(mask_ptr + batch * tokens + visited, mask=there, other=0) != 0
        place = tl.load(windows_ptr + 2 * tokens + visited, mask=there, other=-1)[None, :]
        sees = (first2 <= place) & (place < stop2)
        if RANK >= 2:
            place = tl.load(windows_ptr + 1 * tokens + visited, mask=there, other=-1)[None, :]
            sees &= (first1 <= place) & (place < stop1)
        if RANK == 3:
            place = tl.load(windows_ptr + visited, mask=there, other=-1)[None, :]
            sees &= (first0 <= place) & (place < stop0)

        inside = there[None, :] & (column < dim)[:, None]
        offset = base + (visited * token_stride)[None, :] + column[:, None]
        key = tl.load(key_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        scores = tl.dot(query, key, input_precision=PRECISION) * (scale * LOG2E)
        if HAS_BIAS:
            difference = tl.load(windows_ptr + 9 * tokens + visited, mask=there, other=0)[None, :] - bias_query
            bias = tl.load(bias_ptr + head * bias_size + difference, mask=sees, other=0.0).to(tl.float32)
            scores += bias * LOG2E
        scores = tl.where(sees, scores, float("-inf"))

        previous = largest
        largest = tl.maximum(previous, tl.max(scores, 1))
        finite = tl.where(largest == float("-inf"), 0.0, largest)  # of a query that has seen no key so far
        weights = tl.exp2(scores - finite[:, None])
        rescale = tl.exp2(previous - finite)
        total = total * rescale + tl.sum(weights, 1)
        inside = there[:, None] & (column < dim)[None, :]
        offset = base + (visited * token_stride)[:, None] + column[None, :]
        value = tl.load(value_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        y = y * rescale[:, None] + tl.dot(weights.to(DOT_DTYPE), value, input_precision=PRECISION)

    seen = total > 0.0
    total = tl.where(seen, total, 1.0)
    y = y / total[:, None]
    # Plus infinity makes every weight of a query without keys zero in the backward.
    logsumexp = tl.where(seen, largest + tl.log2(total), float("inf"))
    offset = (((batch * tokens + token) * heads + head) * dim)[:, None] + column[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=own)
    tl.store(logsumexp_ptr + pair * tokens + token, logsumexp, mask=real)


@jit
def _backward_query_kernel(
    tile_ptr, visit_ptr, windows_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, grad_ptr, logsumexp_ptr,
    delta_ptr, grad_query_ptr,
    tiles, visits, tokens, batch_stride, token_stride, head_stride, heads, dim, bias_size, bias_center, scale,
    RANK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0) % tiles
    pair = tl.cast(tl.program_id(0) // tiles, tl.int64)
    batch = pair // heads
    head = pair % heads
    base = batch * batch_stride + head * head_stride
    row = tl.arange(0, BLOCK)
    column = tl.arange(0, DIM)

    token = tl.cast(tl.load(tile_ptr + tile * BLOCK + row), tl.int64)
    real = token >= 0
    first2 = tl.load(windows_ptr + 5 * tokens + token, mask=real, other=0)[:, None]
    stop2 = tl.load(windows_ptr + 8 * tokens + token, mask=real, other=0)[:, None]
    if RANK >= 2:
        first1 = tl.load(windows_ptr + 4 * tokens + token, mask=real, other=0)[:, None]
        stop1 = tl.load(windows_ptr + 7 * tokens + token, mask=real, other=0)[:, None]
    if RANK == 3:
        first0 = tl.load(windows_ptr + 3 * tokens + token, mask=real, other=0)[:, None]
        stop0 = tl.load(windows_ptr + 6 * tokens + token, mask=real, other=0)[:, None]
    if HAS_BIAS:
        bias_query = tl.load(windows_ptr + 9 * tokens + token, mask=real, other=0)[:, None] - bias_center
    own = real[:, None] & (column < dim)[None, :]
    query = tl.load(query_ptr + base + (token * token_stride)[:, None] + column[None, :], mask=own, other=0.0)
    query = query.to(tl.float32).to(DOT_DTYPE)
    own_offset = (((batch * tokens + token) * heads + head) * dim)[:, None] + column[None, :]
    grad = tl.load(grad_ptr + own_offset, mask=own, other=0.0).to(tl.float32).to(DOT_DTYPE)
    logsumexp = tl.load(logsumexp_ptr + pair * tokens + token, mask=real, other=float("inf"))[:, None]
    delta = tl.load(delta_ptr + pair * tokens + token, mask=real, other=0.0)[:, None]

    grad_query = tl.zeros([BLOCK, DIM], tl.float32)
    for begin in range(0, visits, BLOCK):
        visited = tl.load(visit_ptr + tile * visits + begin + row, mask=begin + row < visits, other=-1)
        visited = tl.cast(visited, tl.int64)
        there = visited >= 0
        if HAS_MASK:
            there &= tl.load(mask_ptr + batch * tokens + visited, mask=there, other=0) != 0
        place = tl.load(windows_ptr + 2 * tokens + visited, mask=there, other=-1)[None, :]
        sees = (first2 <= place) & (place < stop2)
        if RANK >= 2:
            place = tl.load(windows_ptr + 1 * tokens + visited, mask=there, other=-1)[None, :]
            sees &= (first1 <= place) & (place < stop1)
        if RANK == 3:
            place = tl.load(windows_ptr + visited, mask=there, other=-1)[None, :]
            sees &= (first0 <= place) & (place < stop0)

        inside = there[None, :] & (column < dim)[:, None]
        offset = base + (visited * token_stride)[None, :] + column[:, None]
        key = tl.load(key_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        value = tl.load(value_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        scores = tl.dot(query, key, input_precision=PRECISION) * (scale * LOG2E)
        if HAS_BIAS:
            difference = tl.load(windows_ptr + 9 * tokens + visited, mask=there, other=0)[None, :] - bias_query
            bias = tl.load(bias_ptr + head * bias_size + difference, mask=sees, other=0.0).to(tl.float32)
            scores += bias * LOG2E
        weights = tl.where(sees, tl.exp2(scores - logsumexp), 0.0)
        grad_scores = weights * (tl.dot(grad, value, input_precision=PRECISION) - delta)
        # The keys once more, the other way round.
        inside = there[:, None] & (column < dim)[None, :]
        offset = base + (visited * token_stride)[:, None] + column[None, :]
        key = tl.load(key_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        grad_query += tl.dot(grad_scores.to(DOT_DTYPE), key, input_precision=PRECISION)

    grad_query *= scale
    tl.store(grad_query_ptr + own_offset, grad_query.to(grad_query_ptr.dtype.element_ty), mask=own)


@jit
def _backward_key_value_kernel(
    tile_ptr, visit_ptr, windows_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, grad_ptr, logsumexp_ptr,
    delta_ptr, grad_key_ptr, grad_value_ptr,
    tiles, visits, tokens, batch_stride, token_stride, head_stride, heads, dim, bias_size, bias_center, scale,
    RANK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # The tile holds keys and the visited tokens are queries. Scores are computed keys by queries, so that no product has
    # to be transposed for the next.
    tile = tl.program_id(0) % tiles
    pair = tl.cast(tl.program_id(0) // tiles, tl.int64)
    batch = pair // heads
    head = pair % heads
    base = batch * batch_stride + head * head_stride
    row = tl.arange(0, BLOCK)
    column = tl.arange(0, DIM)

    token = tl.cast(tl.load(tile_ptr + tile * BLOCK + row), tl.int64)
    real = token >= 0
    visible = real
    if HAS_MASK:
        visible &= tl.load(mask_ptr + batch * tokens + token, mask=real, other=0) != 0
    place2 = tl.load(windows_ptr + 2 * tokens + token, mask=visible, other=-1)[:, None]
    if RANK >= 2:
        place1 = tl.load(windows_ptr + 1 * tokens + token, mask=visible, other=-1)[:, None]
    if RANK == 3:
        place0 = tl.load(windows_ptr + token, mask=visible, other=-1)[:, None]
    if HAS_BIAS:
        bias_key = tl.load(windows_ptr + 9 * tokens + token, mask=real, other=0)[:, None] + bias_center
    own = real[:, None] & (column < dim)[None, :]
    offset = base + (token * token_stride)[:, None] + column[None, :]
    key = tl.load(key_ptr + offset, mask=own, other=0.0).to(tl.float32).to(DOT_DTYPE)
    value = tl.load(value_ptr + offset, mask=own, other=0.0).to(tl.float32).to(DOT_DTYPE)

    grad_key = tl.zeros([BLOCK, DIM], tl.float32)
    grad_value = tl.zeros([BLOCK, DIM], tl.float32)
    for begin in range(0, visits, BLOCK):
        visited = tl.load(visit_ptr + tile * visits + begin + row, mask=begin + row < visits, other=-1)
        visited = tl.cast(visited, tl.int64)
        there = visited >= 0
        first = tl.load(windows_ptr + 5 * tokens + visited, mask=there, other=0)[None, :]
        stop = tl.load(windows_ptr + 8 * tokens + visited, mask=there, other=0)[None, :]
        sees = (first <= place2) & (place2 < stop)
        if RANK >= 2:
            first = tl.load(windows_ptr + 4 * tokens + visited, mask=there, other=0)[None, :]
            stop = tl.load(windows_ptr + 7 * tokens + visited, mask=there, other=0)[None, :]
            sees &= (first <= place1) & (place1 < stop)
        if RANK == 3:
            first = tl.load(windows_ptr + 3 * tokens + visited, mask=there, other=0)[None, :]
            stop = tl.load(windows_ptr + 6 * tokens + visited, mask=there, other=0)[None, :]
            sees &= (first <= place0) & (place0 < stop)
        logsumexp = tl.load(logsumexp_ptr + pair * tokens + visited, mask=there, other=float("inf"))[None, :]
        delta = tl.load(delta_ptr + pair * tokens + visited, mask=there, other=0.0)[None, :]

        inside = there[None, :] & (column < dim)[:, None]
        offset = base + (visited * token_stride)[None, :] + column[:, None]
        query = tl.load(query_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        offset = (((batch * tokens + visited) * heads + head) * dim)[None, :] + column[:, None]
        grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        scores = tl.dot(key, query, input_precision=PRECISION) * (scale * LOG2E)
        if HAS_BIAS:
            difference = bias_key - tl.load(windows_ptr + 9 * tokens + visited, mask=there, other=0)[None, :]
            bias = tl.load(bias_ptr + head * bias_size + difference, mask=sees, other=0.0).to(tl.float32)
            scores += bias * LOG2E
        weights = tl.where(sees, tl.exp2(scores - logsumexp), 0.0)
        grad_scores = weights * (tl.dot(value, grad, input_precision=PRECISION) - delta)

        inside = there[:, None] & (column < dim)[None, :]
        offset = base + (visited * token_stride)[:, None] + column[None, :]
        query = tl.load(query_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        offset = (((batch * tokens + visited) * heads + head) * dim)[:, None] + column[None, :]
        grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        grad_value += tl.dot(weights.to(DOT_DTYPE), grad, input_precision=PRECISION)
        grad_key += tl.dot(grad_scores.to(DOT_DTYPE), query, input_precision=PRECISION)

    offset = (((batch * tokens + token) * heads + head) * dim)[:, None] + column[None, :]
    grad_key *= scale
    tl.store(grad_key_ptr + offset, grad_key.to(grad_key_ptr.dtype.element_ty), mask=own)
    tl.store(grad_value_ptr + offset, grad_value.to(grad_value_ptr.dtype.element_ty), mask=own)


@jit
def _backward_bias_kernel(
    offset_ptr, windows_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, grad_ptr, logsumexp_ptr, delta_ptr,
    partial_ptr,
    batches, tokens, batch_stride, token_stride, head_stride, heads, dim, bias_size, scale,
    HAS_MASK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    # A program owns one entry of the bias and a share of all queries, each of which has at most one key there.
    entry = tl.program_id(0)
    head = tl.program_id(1)
    share = tl.program_id(2)
    shift0 = tl.load(offset_ptr + entry * 4)
    shift1 = tl.load(offset_ptr + entry * 4 + 1)
    shift2 = tl.load(offset_ptr + entry * 4 + 2)
    shift = tl.load(offset_ptr + entry * 4 + 3)
    bias = tl.load(bias_ptr + head * bias_size + entry).to(tl.float32) * LOG2E
    column = tl.arange(0, DIM)

    total = tl.zeros([BLOCK], tl.float32)
    for block in range(share, tl.cdiv(batches * tokens, BLOCK), tl.num_programs(2)):
        index = tl.cast(block, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        real = index < batches * tokens
        batch = index // tokens
        token = index % tokens
        window = windows_ptr + token
        place0 = tl.load(window, mask=real, other=0) + shift0
        place1 = tl.load(window + tokens, mask=real, other=0) + shift1
        place2 = tl.load(window + 2 * tokens, mask=real, other=0) + shift2
        sees = real & (tl.load(window + 3 * tokens, mask=real, other=0) <= place0)
        sees &= tl.load(window + 4 * tokens, mask=real, other=0) <= place1
        sees &= tl.load(window + 5 * tokens, mask=real, other=0) <= place2
        sees &= tl.load(window + 6 * tokens, mask=real, other=0) > place0
        sees &= tl.load(window + 7 * tokens, mask=real, other=0) > place1
        sees &= tl.load(window + 8 * tokens, mask=real, other=0) > place2
        if HAS_MASK:
            sees &= tl.load(mask_ptr + index + shift, mask=sees, other=0) != 0

        inside = sees[:, None] & (column < dim)[None, :]
        here = (batch * batch_stride + token * token_stride + head * head_stride)[:, None] + column[None, :]
        query = tl.load(query_ptr + here, mask=inside, other=0.0).to(tl.float32)
        key = tl.load(key_ptr + here + shift * token_stride, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(value_ptr + here + shift * token_stride, mask=inside, other=0.0).to(tl.float32)
        here = ((index * heads + head) * dim)[:, None] + column[None, :]
        grad = tl.load(grad_ptr + here, mask=inside, other=0.0).to(tl.float32)
        here = (batch * heads + head) * tokens + token
        logsumexp = tl.load(logsumexp_ptr + here, mask=sees, other=float("inf"))
        delta = tl.load(delta_ptr + here, mask=sees, other=0.0)
        scores = tl.sum(query * key, 1) * (scale * LOG2E) + bias
        weights = tl.where(sees, tl.exp2(scores - logsumexp), 0.0)
        total += weights * (tl.sum(grad * value, 1) - delta)

    tl.store(partial_ptr + (share * heads + head) * bias_size + entry, tl.sum(total))


class _Tables(NamedTuple):
    """What the kernels know of a grid and its windows; -1 stands for no token."""

    tiles: Tensor  # the tokens of each tile (tiles, block)
    keys: Tensor  # the tokens that a tile's queries see (tiles, visits)
    queries: Tensor  # the tokens that see a tile's keys (tiles, visits)
    windows: Tensor  # the ten rows of numbers (10, tokens)
    offsets: Tensor  # per entry of the bias, key minus query on each axis and in tokens (entries, 4)


@functools.lru_cache(maxsize=16)
def _tables(
    grid: tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    causal: tuple[bool, ...],
    tile: tuple[int, ...],
    device: torch.device,
) -> _Tables:
    """Grid, windows and tile have three axes."""
    axes = list(zip(*(_axis_tables(*settings) for settings in zip(grid, kernel_size, dilation, causal, tile))))
    lists = []
    for positions in axes[:3]:
        there = _outer([position >= 0 for position in positions], torch.logical_and)
        tokens = torch.where(there, _flat_index(positions, grid), -1)
        lists.append(tokens.flatten(3).flatten(0, 2))
    sizes = [2 * size - 1 for size in kernel_size]
    rows = [axis.expand(*grid).reshape(-1) for table in axes[3:] for axis in _spread(table)]
    rows.append(_flat_index(axes[3], sizes).reshape(-1))
    offsets = [torch.arange(1 - size, size) for size in kernel_size]
    entries = [axis.expand(*sizes).reshape(-1) for axis in _spread(offsets)]
    entries.append(_flat_index([offset * step for offset, step in zip(offsets, dilation)], grid).reshape(-1))
    tables = (*lists, torch.stack(rows), torch.stack(entries, 1))
    return _Tables(*(table.to(device, torch.int32).contiguous() for table in tables))


def _axis_tables(length: int, size: int, step: int, only_past: bool, tile: int) -> tuple[Tensor, ...]:
    """Positions of tiles and of the keys and queries they visit, (tiles, positions); place, first, stop (length,)."""
    longest = cdiv(length, step)
    own_class = torch.arange(step)[:, None]
    members = (length - own_class + step - 1) // step
    place = torch.arange(longest)
    first, stop = _window(place, members, size, only_past)
    beyond = place >= members
    first, stop = first.masked_fill(beyond, longest), stop.masked_fill(beyond, longest)

    begin = torch.arange(0, longest, tile).expand(step, -1).contiguous()
    end = torch.minimum(begin + tile, members)
    last = (end - 1).clamp(min=0)
    spans = (
        (begin, end),
        (first.gather(1, begin), stop.gather(1, last)),
        # First and stop grow with the query: who sees any of these keys is a span too.
        (torch.searchsorted(stop, begin, right=True), torch.searchsorted(first, end - 1, right=True)),
    )
    lists = []
    for start, after in spans:
        member = start[..., None] + torch.arange(max(1, int((after - start).max())))
        lists.append(torch.where(member < after[..., None], own_class[..., None] + step * member, -1).flatten(0, 1))
    position = torch.arange(length)
    own = (position % step, position // step)
    return *lists, own[1], first[own], stop[own]


def _tile_shape(rank: int, head_dim: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """64 tokens, 32 where heads are wide; 16, the least that a dot takes, while interpreting."""
    powers = 4 if INTERPRETING else 6 if next_power_of_2(head_dim) * dtype.itemsize <= 256 else 5
    first = powers // 3 if rank == 3 else 0
    second = (powers - first) // 2 if rank >= 2 else 0
    return 1 << first, 1 << second, 1 << (powers - first - second)


class _Launch(NamedTuple):
    """What every kernel is given."""

    tables: _Tables
    tensors: tuple[Tensor | None, ...]  # query, key and value of one set of strides, bias, mask
    numbers: dict[str, int | float]
    constants: dict


def _launch(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None,
    kernel_size: Sequence[int], dilation: Sequence[int], causal: Sequence[bool], scale: float,
) -> _Launch:  # fmt: skip
    rank = len(kernel_size)
    grid, sizes, steps = ((1,) * (3 - rank) + tuple(given) for given in (query.shape[1:-2], kernel_size, dilation))
    only_past = (False,) * (3 - rank) + tuple(causal)
    tile = _tile_shape(rank, query.shape[-1], query.dtype)
    q, k, v = (tensor.flatten(1, rank) for tensor in (query, key, value))
    if q.stride(3) != 1 or not q.stride() == k.stride() == v.stride():
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    batch_stride, token_stride, head_stride, _ = q.stride()
    entries = [2 * size - 1 for size in sizes]
    return _Launch(
        tables=_tables(grid, sizes, steps, only_past, tile, query.device),
        tensors=(
            q, k, v, None if bias is None else bias.contiguous(), None if mask is None else mask.contiguous().view(torch.int8)
        ),
        numbers={
            "tokens": math.prod(grid), "batch_stride": batch_stride, "token_stride": token_stride, "head_stride": head_stride,
            "heads": q.shape[2], "dim": q.shape[3], "bias_size": math.prod(entries), "scale": scale,
        },
        constants={"HAS_MASK": mask is not None, "DIM": max(16, next_power_of_2(q.shape[3])), "BLOCK": math.prod(tile)},
    )  # fmt: skip


def _walk(kernel, launch: _Launch, visits: Tensor, bias_center: int, tensors: Sequence[Tensor]) -> None: ...


def _save_for_backward(ctx, inputs, output):
    query, key, value, bias, mask, *ctx.settings = inputs
    ctx.save_for_backward(query, key, value, bias, mask, *output)


def _gradient(ctx, grad, _):
    *grads, grad_bias = _backward(grad, *ctx.saved_tensors, *ctx.settings)
    return *grads, None if ctx.saved_tensors[3] is None else grad_bias, None, *(None for _ in ctx.settings)


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _neighborhood_attention_triton(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: tuple[int, ...], dilation: tuple[int, ...],
    causal: tuple[bool, ...], bias: Tensor | None, mask: Tensor | None, scale: float,
) -> Tensor:  # fmt: skip
    return _forward(query, key, value, bias, mask, kernel_size, dilation, causal, scale)[0]


def _triton_refuses(query: Tensor, *_, **__) -> str | None:
    if query.shape[-1] > MAX_TRITON_HEAD_DIM:
        return f"head_dim {query.shape[-1]} is larger than {MAX_TRITON_HEAD_DIM}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends(
    "neighborhood_attention",
    neighborhood_attention_reference,
    neighborhood_attention_torch,
    _neighborhood_attention_triton,
    _triton_refuses,
)


def neighborhood_attention(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid heads head_dim"],
    value: Float[Tensor, "batch *grid heads head_dim"],
    kernel_size: int | Sequence[int],
    *,
    dilation: int | Sequence[int] = 1,
    causal: bool | Sequence[bool] = False,
    bias: Float[Tensor, "heads *offsets"] | None = None,
    mask: Bool[Tensor, "batch *grid"] | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Float[Tensor, "batch *grid heads head_dim"]:
    """Attend from each token to the kernel_size tokens around it on every axis of the grid.

    softmax(scale * query key^T + bias) value over the window. query, key, value (batch, *grid, heads, head_dim) with one
    to three axes; kernel_size, dilation and causal one for all axes or one for each; bias (heads, 2 * kernel_size - 1 for
    each axis), indexed by key minus query in units of dilation, plus kernel_size - 1; mask (batch, *grid), True where a
    token is real; scale is head_dim^-0.5 if None. Windows shift inwards at the borders; one that is larger than the grid
    is the grid. Raises ValueError for shapes and sizes that do not fit, and for a backend that cannot serve the call.

    Neighborhood Attention Transformer, arXiv 2204.07143; Faster Neighborhood Attention, arXiv 2403.04690.
    """
    rank = query.ndim - 3
    if not 1 <= rank <= 3:
        raise ValueError(
            f"neighborhood_attention: query has shape {tuple(query.shape)}, not (batch, *grid, heads, dim)"
        )
    if not query.shape == key.shape == value.shape or not query.dtype == key.dtype == value.dtype:
        found = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in (query, key, value))
        raise ValueError(f"neighborhood_attention: query, key and value must be alike, but are {found}")
    sizes = _per_axis("kernel_size", kernel_size, rank)
    steps = _per_axis("dilation", dilation, rank)
    only_past = _per_axis("causal", causal, rank)
    if bias is not None and bias.shape != (expected := (query.shape[-2], *(2 * size - 1 for size in sizes))):
        raise ValueError(f"neighborhood_attention: bias has shape {tuple(bias.shape)}, windows need {expected}")
    if mask is not None and mask.shape != query.shape[:-2]:
        raise ValueError(
            f"neighborhood_attention: mask has shape {tuple(mask.shape)}, tokens need {tuple(query.shape[:-2])}"
        )
    if query.numel() == 0:
        return query.clone()
    query, key, value = autocast(query, key, value)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    inputs = (query, key, value, sizes, steps, only_past, bias, mask, scale)
    return _BACKENDS.select(backend, *inputs)(*inputs)


def _per_axis(name: str, given: int | bool | Sequence, rank: int) -> tuple:
    values = (given,) * rank if isinstance(given, int) else tuple(given)
    if len(values) != rank or (name != "causal" and min(values) < 1):
        kind = "True or False" if name == "causal" else "a positive number"
        raise ValueError(f"neighborhood_attention: {name} is {given!r}; give {kind}, or {rank} of them, one an axis")
    return values


def _floor(query: Tensor, kernel_size: int | Sequence[int], **_) -> tuple[Cost, Cost]:
    window = math.prod(_per_axis("kernel_size", kernel_size, query.ndim - 3))
    return (
        Cost(4 * size_in_bytes(query), 4 * query.numel() * window),
        Cost(8 * size_in_bytes(query), 10 * query.numel() * window),
    )


def _inputs(random: Sampler, *shape: int, bias: bool = False, mask: bool = False, **settings) -> dict:
    """Inputs of shape (batch, *grid, heads, head_dim)."""
    made = {name: random.normal(*shape) for name in ("query", "key", "value")} | settings
    if bias:
        sizes = _per_axis("kernel_size", settings["kernel_size"], len(shape) - 3)
        made["bias"] = random.normal(shape[-2], *(2 * size - 1 for size in sizes))
    if mask:
        made["mask"] = random.boolean(*shape[:-2], probability=0.6)
    return made


SPEC = OpSpec(
    function=neighborhood_attention,
    backends=_BACKENDS,
    cases={
        "image": lambda random: _inputs(random, 1, 5, 6, 2, 5, kernel_size=3, bias=True),
        "sequence": lambda random: _inputs(random, 2, 63, 1, 3, kernel_size=5),
        "volume": lambda random: _inputs(random, 1, 2, 3, 5, 1, 4, kernel_size=(1, 2, 3), bias=True),
        "one token": lambda random: _inputs(random, 1, 1, 1, 1, kernel_size=3, bias=True),
        "even window": lambda random: _inputs(random, 1, 7, 5, 1, 8, kernel_size=(4, 2)),
        "window over the grid": lambda random: _inputs(random, 1, 3, 4, 2, 4, kernel_size=5, bias=True),
        "dilation": lambda random: _inputs(random, 1, 7, 8, 1, 4, kernel_size=(3, 2), dilation=(3, 2), bias=True),
        "causal": lambda random: _inputs(random, 1, 17, 1, 4, kernel_size=4, causal=True, bias=True),
        "causal rows, dilation": lambda random: _inputs(
            random, 1, 5, 6, 1, 4, kernel_size=3, dilation=(1, 2), causal=(True, False)
        ),
        "mask": lambda random: _inputs(random, 2, 5, 5, 1, 4, kernel_size=3, mask=True, scale=0.3),
        "mask and bias": lambda random: _inputs(random, 2, 19, 2, 4, kernel_size=3, dilation=2, mask=True, bias=True),
        "no batch": lambda random: _inputs(random, 0, 5, 5, 1, 4, kernel_size=3),
    },
    large_cases={
        "image": lambda random: _inputs(random, 2, 23, 17, 3, 8, kernel_size=7, bias=True, mask=True),
        "wide window": lambda random: _inputs(random, 1, 41, 37, 2, 8, kernel_size=13),
        "dilated image": lambda random: _inputs(random, 1, 41, 37, 2, 8, kernel_size=5, dilation=(2, 3), bias=True),
        "causal sequence": lambda random: _inputs(random, 2, 509, 2, 8, kernel_size=63, causal=True),
        "volume": lambda random: _inputs(random, 1, 11, 13, 17, 2, 8, kernel_size=(3, 5, 4), mask=True),
    },
    benchmarks={
        "56x56, window 7": lambda random: _inputs(random, 1, 56, 56, 2, 32, kernel_size=7),
        "56x56, window 7, bias": lambda random: _inputs(random, 1, 56, 56, 2, 32, kernel_size=7, bias=True),
        "28x28, window 7, dilation 4": lambda random: _inputs(random, 1, 28, 28, 4, 32, kernel_size=7, dilation=4),
        "14x14, window 7": lambda random: _inputs(random, 1, 14, 14, 8, 32, kernel_size=7),
        "7x7, window 7": lambda random: _inputs(random, 1, 7, 7, 16, 32, kernel_size=7),
        "112x112, window 7": lambda random: _inputs(random, 1, 112, 112, 2, 32, kernel_size=7),
        "4096, window 63, causal": lambda random: _inputs(random, 1, 4096, 4, 32, kernel_size=63, causal=True),
        "16x16x16, window 5": lambda random: _inputs(random, 1, 16, 16, 16, 2, 32, kernel_size=5),
    },
    differentiable=("query", "key", "value", "bias"),
    floor=_floor,
    paper="Neighborhood Attention Transformer, arXiv 2204.07143; Faster Neighborhood Attention, arXiv 2403.04690",
)
