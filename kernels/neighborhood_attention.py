"""Neighborhood attention: each query attends to the window of keys around it, on grids of 1 to 3 axes.

    y_i = sum_j softmax_j(scale * q_i . k_j + bias[j - i]) v_j        over the window of i

Shapes: query, key, value, y (batch, *grid, heads, head_dim); bias (heads, 2K-1, ...) over key minus query in units of
dilation, plus K-1; mask (batch, *grid), True where a token is real.

Window, per axis: positions that are equal modulo the dilation form a class. A query sees K members of its class, from
`place - K // 2` on; at the borders the window shifts inwards so that it stays whole, and a class with fewer than K
members is seen whole. On a causal axis it sees itself and the K-1 members before, fewer at the border. With a stride,
every that many members are a group, who share the window of their middle one, the later of two; on a causal axis each
member sees of the window of the last one what is not after itself. Masked keys take no part, and a query that sees no
key gives 0.

Softmax and sums are float32 (float64 for float64 inputs); y and the gradients have the dtypes of their inputs. Under
autocast query, key and value are cast to its dtype.

Floor, for a query of R elements and E bytes and windows of W keys: the forward reads three tensors and writes one, 4E
bytes and 4RW flops; the backward reads five and writes three, 8E bytes and 10RW flops.

Papers: Neighborhood Attention Transformer, arXiv 2204.07143; dilation: arXiv 2209.15001; causal and 3-D windows, fused
kernels: Faster Neighborhood Attention, arXiv 2403.04690; stride: Generalized Neighborhood Attention, arXiv 2504.16922.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
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
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    causal: tuple[bool, ...],
    bias: Float[Tensor, "heads *offsets"] | None,
    mask: Bool[Tensor, "batch *grid"] | None,
    scale: float,
) -> Float[Tensor, "batch *grid heads head_dim"]:
    """Gather the window of every query."""
    settings = (kernel_size, stride, dilation, causal, bias, mask, scale)
    weights, index, _ = neighborhood_weights(query, key, *settings)
    v = _widen(value).flatten(1, len(kernel_size))
    return torch.einsum("bnhw,bnwhd->bnhd", weights, v[:, index]).reshape(query.shape).to(query.dtype)


def neighborhood_weights(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid heads head_dim"],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    causal: tuple[bool, ...],
    bias: Float[Tensor, "heads *offsets"] | None,
    mask: Bool[Tensor, "batch *grid"] | None,
    scale: float,
) -> tuple[Float[Tensor, "batch tokens heads window"], Int[Tensor, "tokens window"], Bool[Tensor, "tokens window"]]:
    """Weights of each query, which key each is of (in raster order), and whether that is in its window at all."""
    grid = query.shape[1:-2]
    keys, inside, offsets = [], [], []
    for length, size, shared, step, only_past in zip(grid, kernel_size, stride, dilation, causal):
        position = torch.arange(length, device=query.device)
        place, members = position // step, (length - position % step + step - 1) // step
        first, stop = (edge[:, None] for edge in _window(place, members, size, shared, only_past))
        member = first + torch.arange(min(size, cdiv(length, step)), device=query.device)
        keys.append((position[:, None] % step + step * member).clamp(max=length - 1))
        inside.append(member < stop)
        offsets.append((member - place[:, None] + size - 1).clamp(0, 2 * size - 2))

    tokens = math.prod(grid)
    index = _flat_index(keys, grid).reshape(tokens, -1)
    window = _outer(inside, torch.logical_and).reshape(tokens, -1)
    q, k = (_widen(tensor).flatten(1, len(grid)) for tensor in (query, key))
    scores = torch.einsum("bnhd,bnwhd->bnhw", q * scale, k[:, index])
    if bias is not None:
        offset = _flat_index(offsets, bias.shape[1:]).reshape(tokens, -1)
        scores = scores + _widen(bias).flatten(1)[:, offset].transpose(0, 1)
    visible = window.unsqueeze(1)
    if mask is not None:
        visible = visible & mask.flatten(1)[:, index].unsqueeze(2)
    seen = visible.any(-1, keepdim=True)  # a row of -inf alone would have NaN for its gradient
    weights = scores.masked_fill(~visible & seen, -torch.inf).softmax(-1).masked_fill(~seen, 0)
    return weights, index, window


def neighborhood_attention_torch(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid heads head_dim"],
    value: Float[Tensor, "batch *grid heads head_dim"],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    causal: tuple[bool, ...],
    bias: Float[Tensor, "heads *offsets"] | None,
    mask: Bool[Tensor, "batch *grid"] | None,
    scale: float,
) -> Float[Tensor, "batch *grid heads head_dim"]:
    """Cut the grid into tiles, whose queries attend to the tile and a halo around it: a batch of small dense problems.

    Neighbouring queries share most of their windows: a tile of 8x8 queries with windows of 7x7 needs 14x14 keys, where
    a gather writes 64 times 7x7. Keys of the halo outside a query's own window get a large negative score.
    """
    grid, rank = query.shape[1:-2], len(kernel_size)
    axes = [_cut_axis(*settings, rank, query.device) for settings in zip(grid, kernel_size, stride, dilation, causal)]
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


def _cut_axis(
    length: int, size: int, shared: int, step: int, only_past: bool, rank: int, device: torch.device
) -> _Axis:
    longest = cdiv(length, step)  # members of the longest class
    # Tiles of about 32, 8x8 or 4x4x4 are the fastest on CPU. They must reach over half a window, or a window that
    # shifts inwards at the border would leave the halo. Where the halo would cover the axis, the axis is one tile.
    least = size // 2 + 1
    tile = max((32, 8, 4)[rank - 1], least)
    reach = size + (0 if only_past else shared - 1)  # of the windows of a group together
    whole = longest < tile + reach
    tile = longest if whole else max(cdiv(longest, cdiv(longest, tile)), least)
    halo = longest if whole else tile + reach - 1
    before = 0 if whole else size - 1 if only_past else size // 2 + (shared - 1) // 2

    arange = functools.partial(torch.arange, device=device)
    members = ((length - arange(step) + step - 1) // step)[:, None]  # class tile
    last_start = (members - tile).clamp(min=0)  # the last tile overlaps the one before rather than leave the axis
    start = torch.minimum(arange(cdiv(longest, tile)) * tile, last_start)
    place = start[..., None] + arange(tile)  # class tile query
    member = (start - before)[..., None] + arange(halo)  # class tile key
    queries, keys = (arange(step)[:, None, None] + step * index for index in (place, member))
    first, stop = (edge[..., None] for edge in _window(place, members[..., None], size, shared, only_past))
    key = member[..., None, :]

    position = arange(length)
    own_place, own_class = position // step, position % step
    own_start = torch.minimum(own_place // tile * tile, last_start[own_class, 0])
    return _Axis(
        queries=queries.clamp(max=length - 1).flatten(0, 1),
        keys=keys.clamp(0, length - 1).flatten(0, 1),
        slots=(own_class * start.shape[1] + own_place // tile) * tile + own_place - own_start,
        inside=((first <= key) & (key < stop)).flatten(0, 1),
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


def _window(place: Tensor, members: Tensor, size: int, shared: int, only_past: bool) -> tuple[Tensor, Tensor]:
    """The first member of the window of each place, and the one after its last; `shared` is the stride."""
    leader = place // shared * shared + (shared - 1 if only_past else shared // 2)
    leader = torch.minimum(leader, members - 1)
    if only_past:
        return (leader - size + 1).clamp(min=0), place + 1
    first = torch.minimum(leader - size // 2, members - size).clamp(min=0)
    return first, torch.minimum(first + size, members)


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
# The kernels know nothing of grids. Which tokens make a tile, which tokens the tile has to visit, and where the window
# of each token lies, they read from tables made once for a grid (`_Tables`). A program owns one tile, of one head of
# one batch entry, and walks over the tokens it has to visit, as many at a time as a tile has. Values go through float32
# on their way from memory for the interpreter's sake; on a GPU that is folded away.

LOG2E = tl.constexpr(1.4426950408889634)  # exponentials are powers of two


@jit
def _forward_kernel(
    tile_ptr, visit_ptr, windows_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, y_ptr, logsumexp_ptr,
    tiles, visits, tokens, batch_stride, token_stride, head_stride, heads, dim, bias_size, scale,
    RANK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0) % tiles
    pair = tl.cast(tl.program_id(0) // tiles, tl.int64)
    batch, head = pair // heads, pair % heads
    base = batch * batch_stride + head * head_stride
    row, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    token = tl.cast(tl.load(tile_ptr + tile * BLOCK + row), tl.int64)
    real = token >= 0
    own = real[:, None] & (column < dim)[None, :]
    own_offset = base + (token * token_stride)[:, None] + column[None, :]
    own_output = (((batch * tokens + token) * heads + head) * dim)[:, None] + column[None, :]
    query = tl.load(query_ptr + own_offset, mask=own, other=0.0).to(tl.float32).to(DOT_DTYPE)

    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    y = tl.zeros([BLOCK, DIM], tl.float32)
    for begin in range(0, visits, BLOCK):
        visited = tl.load(visit_ptr + tile * visits + begin + row, mask=begin + row < visits, other=-1)
        visited = tl.cast(visited, tl.int64)
        there = visited >= 0
        if HAS_MASK:
            there &= tl.load(mask_ptr + batch * tokens + visited, mask=there, other=0) != 0
        sees = real[:, None] & there[None, :]
        for axis in tl.static_range(RANK):
            place = tl.load(windows_ptr + axis * tokens + visited, mask=there, other=0)[None, :]
            first = tl.load(windows_ptr + (3 + axis) * tokens + token, mask=real, other=0)[:, None]
            stop = tl.load(windows_ptr + (6 + axis) * tokens + token, mask=real, other=0)[:, None]
            sees &= (first <= place) & (place < stop)

        inside = there[None, :] & (column < dim)[:, None]
        offset = base + (visited * token_stride)[None, :] + column[:, None]
        key = tl.load(key_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        scores = tl.dot(query, key, input_precision=PRECISION) * (scale * LOG2E)
        if HAS_BIAS:
            place = tl.load(windows_ptr + 9 * tokens + token, mask=real, other=0)[:, None]
            visited_place = tl.load(windows_ptr + 9 * tokens + visited, mask=there, other=0)[None, :]
            middle = bias_ptr + head * bias_size + bias_size // 2
            scores += tl.load(middle + (visited_place - place), mask=sees, other=0.0).to(tl.float32) * LOG2E
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
    tl.store(y_ptr + own_output, y.to(y_ptr.dtype.element_ty), mask=own)
    # Plus infinity makes every weight of a query without keys zero in the backward.
    logsumexp = tl.where(seen, largest + tl.log2(total), float("inf"))
    tl.store(logsumexp_ptr + pair * tokens + token, logsumexp, mask=real)


@jit
def _backward_query_kernel(
    tile_ptr, visit_ptr, windows_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, grad_ptr, logsumexp_ptr,
    delta_ptr, grad_query_ptr,
    tiles, visits, tokens, batch_stride, token_stride, head_stride, heads, dim, bias_size, scale,
    RANK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0) % tiles
    pair = tl.cast(tl.program_id(0) // tiles, tl.int64)
    batch, head = pair // heads, pair % heads
    base = batch * batch_stride + head * head_stride
    row, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    token = tl.cast(tl.load(tile_ptr + tile * BLOCK + row), tl.int64)
    real = token >= 0
    own = real[:, None] & (column < dim)[None, :]
    own_offset = base + (token * token_stride)[:, None] + column[None, :]
    own_output = (((batch * tokens + token) * heads + head) * dim)[:, None] + column[None, :]
    query = tl.load(query_ptr + own_offset, mask=own, other=0.0).to(tl.float32).to(DOT_DTYPE)
    grad = tl.load(grad_ptr + own_output, mask=own, other=0.0).to(tl.float32).to(DOT_DTYPE)
    logsumexp = tl.load(logsumexp_ptr + pair * tokens + token, mask=real, other=float("inf"))[:, None]
    delta = tl.load(delta_ptr + pair * tokens + token, mask=real, other=0.0)[:, None]

    grad_query = tl.zeros([BLOCK, DIM], tl.float32)
    for begin in range(0, visits, BLOCK):
        visited = tl.load(visit_ptr + tile * visits + begin + row, mask=begin + row < visits, other=-1)
        visited = tl.cast(visited, tl.int64)
        there = visited >= 0
        if HAS_MASK:
            there &= tl.load(mask_ptr + batch * tokens + visited, mask=there, other=0) != 0
        sees = real[:, None] & there[None, :]
        for axis in tl.static_range(RANK):
            place = tl.load(windows_ptr + axis * tokens + visited, mask=there, other=0)[None, :]
            first = tl.load(windows_ptr + (3 + axis) * tokens + token, mask=real, other=0)[:, None]
            stop = tl.load(windows_ptr + (6 + axis) * tokens + token, mask=real, other=0)[:, None]
            sees &= (first <= place) & (place < stop)

        inside = there[None, :] & (column < dim)[:, None]
        offset = base + (visited * token_stride)[None, :] + column[:, None]
        key = tl.load(key_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        value = tl.load(value_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        scores = tl.dot(query, key, input_precision=PRECISION) * (scale * LOG2E)
        if HAS_BIAS:
            place = tl.load(windows_ptr + 9 * tokens + token, mask=real, other=0)[:, None]
            visited_place = tl.load(windows_ptr + 9 * tokens + visited, mask=there, other=0)[None, :]
            middle = bias_ptr + head * bias_size + bias_size // 2
            scores += tl.load(middle + (visited_place - place), mask=sees, other=0.0).to(tl.float32) * LOG2E
        weights = tl.where(sees, tl.exp2(scores - logsumexp), 0.0)
        grad_scores = weights * (tl.dot(grad, value, input_precision=PRECISION) - delta)
        # The keys once more, the other way round.
        inside = there[:, None] & (column < dim)[None, :]
        offset = base + (visited * token_stride)[:, None] + column[None, :]
        key = tl.load(key_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        grad_query += tl.dot(grad_scores.to(DOT_DTYPE), key, input_precision=PRECISION)

    grad_query *= scale
    tl.store(grad_query_ptr + own_output, grad_query.to(grad_query_ptr.dtype.element_ty), mask=own)


@jit
def _backward_key_value_kernel(
    tile_ptr, visit_ptr, windows_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, grad_ptr, logsumexp_ptr,
    delta_ptr, grad_key_ptr, grad_value_ptr,
    tiles, visits, tokens, batch_stride, token_stride, head_stride, heads, dim, bias_size, scale,
    RANK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # The tile holds keys, the visited tokens are queries. Scores are computed keys by queries, so that no product has
    # to be transposed for the next.
    tile = tl.program_id(0) % tiles
    pair = tl.cast(tl.program_id(0) // tiles, tl.int64)
    batch, head = pair // heads, pair % heads
    base = batch * batch_stride + head * head_stride
    row, column = tl.arange(0, BLOCK), tl.arange(0, DIM)
    token = tl.cast(tl.load(tile_ptr + tile * BLOCK + row), tl.int64)
    real = token >= 0
    own = real[:, None] & (column < dim)[None, :]
    own_offset = base + (token * token_stride)[:, None] + column[None, :]
    own_output = (((batch * tokens + token) * heads + head) * dim)[:, None] + column[None, :]
    key = tl.load(key_ptr + own_offset, mask=own, other=0.0).to(tl.float32).to(DOT_DTYPE)
    value = tl.load(value_ptr + own_offset, mask=own, other=0.0).to(tl.float32).to(DOT_DTYPE)
    visible = real
    if HAS_MASK:
        visible &= tl.load(mask_ptr + batch * tokens + token, mask=real, other=0) != 0

    grad_key = tl.zeros([BLOCK, DIM], tl.float32)
    grad_value = tl.zeros([BLOCK, DIM], tl.float32)
    for begin in range(0, visits, BLOCK):
        visited = tl.load(visit_ptr + tile * visits + begin + row, mask=begin + row < visits, other=-1)
        visited = tl.cast(visited, tl.int64)
        there = visited >= 0
        sees = visible[:, None] & there[None, :]
        for axis in tl.static_range(RANK):
            place = tl.load(windows_ptr + axis * tokens + token, mask=real, other=0)[:, None]
            first = tl.load(windows_ptr + (3 + axis) * tokens + visited, mask=there, other=0)[None, :]
            stop = tl.load(windows_ptr + (6 + axis) * tokens + visited, mask=there, other=0)[None, :]
            sees &= (first <= place) & (place < stop)
        logsumexp = tl.load(logsumexp_ptr + pair * tokens + visited, mask=there, other=float("inf"))[None, :]
        delta = tl.load(delta_ptr + pair * tokens + visited, mask=there, other=0.0)[None, :]

        inside = there[None, :] & (column < dim)[:, None]
        offset = base + (visited * token_stride)[None, :] + column[:, None]
        query = tl.load(query_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        offset = (((batch * tokens + visited) * heads + head) * dim)[None, :] + column[:, None]
        grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        scores = tl.dot(key, query, input_precision=PRECISION) * (scale * LOG2E)
        if HAS_BIAS:
            place = tl.load(windows_ptr + 9 * tokens + token, mask=real, other=0)[:, None]
            visited_place = tl.load(windows_ptr + 9 * tokens + visited, mask=there, other=0)[None, :]
            middle = bias_ptr + head * bias_size + bias_size // 2
            scores += tl.load(middle + (place - visited_place), mask=sees, other=0.0).to(tl.float32) * LOG2E
        weights = tl.where(sees, tl.exp2(scores - logsumexp), 0.0)
        grad_scores = weights * (tl.dot(value, grad, input_precision=PRECISION) - delta)

        inside = there[:, None] & (column < dim)[None, :]
        offset = base + (visited * token_stride)[:, None] + column[None, :]
        query = tl.load(query_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        offset = (((batch * tokens + visited) * heads + head) * dim)[:, None] + column[None, :]
        grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32).to(DOT_DTYPE)
        grad_value += tl.dot(weights.to(DOT_DTYPE), grad, input_precision=PRECISION)
        grad_key += tl.dot(grad_scores.to(DOT_DTYPE), query, input_precision=PRECISION)

    grad_key *= scale
    tl.store(grad_key_ptr + own_output, grad_key.to(grad_key_ptr.dtype.element_ty), mask=own)
    tl.store(grad_value_ptr + own_output, grad_value.to(grad_value_ptr.dtype.element_ty), mask=own)


@jit
def _backward_bias_kernel(
    shift_ptr, windows_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, mask_ptr, grad_ptr, logsumexp_ptr, delta_ptr,
    partial_ptr, batches, tokens, batch_stride, token_stride, head_stride, heads, dim, bias_size, scale,
    RANK: tl.constexpr, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    # A program owns one entry of the bias and a share of all queries, each of which has at most one key there.
    entry, head, share = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    shift = tl.cast(tl.load(shift_ptr + 3 * bias_size + entry), tl.int64)
    bias = tl.load(bias_ptr + head * bias_size + entry).to(tl.float32) * LOG2E
    column = tl.arange(0, DIM)

    total = tl.zeros([BLOCK], tl.float32)
    for block in range(share, tl.cdiv(batches * tokens, BLOCK), tl.num_programs(2)):
        index = tl.cast(block, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        real = index < batches * tokens
        batch, token = index // tokens, index % tokens
        sees = real
        for axis in tl.static_range(RANK):
            place = tl.load(windows_ptr + axis * tokens + token) + tl.load(shift_ptr + axis * bias_size + entry)
            first = tl.load(windows_ptr + (3 + axis) * tokens + token)
            stop = tl.load(windows_ptr + (6 + axis) * tokens + token)
            sees &= (first <= place) & (place < stop)
        if HAS_MASK:
            sees &= tl.load(mask_ptr + index + shift, mask=sees, other=0) != 0

        inside = sees[:, None] & (column < dim)[None, :]
        offset = (batch * batch_stride + token * token_stride + head * head_stride)[:, None] + column[None, :]
        output = ((index * heads + head) * dim)[:, None] + column[None, :]
        query = tl.load(query_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        key = tl.load(key_ptr + offset + shift * token_stride, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(value_ptr + offset + shift * token_stride, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + output, mask=inside, other=0.0).to(tl.float32)
        row = (batch * heads + head) * tokens + token
        logsumexp = tl.load(logsumexp_ptr + row, mask=sees, other=float("inf"))
        delta = tl.load(delta_ptr + row, mask=sees, other=0.0)
        scores = tl.sum(query * key, 1) * (scale * LOG2E) + bias
        weights = tl.where(sees, tl.exp2(scores - logsumexp), 0.0)
        total += weights * (tl.sum(grad * value, 1) - delta)

    tl.store(partial_ptr + (share * heads + head) * bias_size + entry, tl.sum(total))


class _Tables(NamedTuple):
    """What the kernels know of a grid; axes are counted from the last, and -1 stands for no token."""

    tiles: Tensor  # the tokens of each tile (tiles, block)
    keys: Tensor  # the tokens that a tile's queries see (tiles, visits)
    queries: Tensor  # the tokens that see a tile's keys (tiles, visits)
    # Of each token (10, tokens): its place in its dilation class on three axes, the first place of its window on each
    # and the place after the last, and its place in the bias, whose entry for two tokens is their difference from the
    # center.
    windows: Tensor
    shifts: Tensor  # of each entry of the bias (4, entries): key minus query on three axes in places, and in tokens


@functools.lru_cache(maxsize=16)
def _tables(
    grid: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    causal: tuple[bool, ...],
    tile: tuple[int, ...],
    device: torch.device,
) -> _Tables:
    axes = zip(*(_axis_tables(*settings) for settings in zip(grid, kernel_size, stride, dilation, causal, tile)))
    *lists, places, firsts, stops = axes
    tokens = []
    for positions in lists:  # (tiles, positions) on each axis
        there = _outer([position >= 0 for position in positions], torch.logical_and)
        flat = torch.where(there, _flat_index(positions, grid), -1)
        tokens.append(flat.reshape(math.prod(flat.shape[: len(grid)]), -1))

    entries = [2 * size - 1 for size in kernel_size]
    shifts = [torch.arange(1 - size, size) for size in kernel_size]
    token_shift = _flat_index([shift * step for shift, step in zip(shifts, dilation)], grid)
    windows = torch.stack([*_rows(places), *_rows(firsts), *_rows(stops), _flat_index(places, entries).flatten()])
    shifts = torch.stack([*_rows(shifts), token_shift.flatten()])
    return _Tables(*(table.to(device, torch.int32) for table in (*tokens, windows, shifts)))


def _rows(tables: Sequence[Tensor]) -> list[Tensor]:
    """One number an axis over the flattened grid, last axis first, up to three axes."""
    rows = [row.flatten() for row in reversed(torch.meshgrid(*tables, indexing="ij"))]
    return rows + [torch.zeros_like(rows[0])] * (3 - len(rows))


def _axis_tables(length: int, size: int, shared: int, step: int, only_past: bool, tile: int) -> tuple[Tensor, ...]:
    """The positions in tiles, of the keys they see, of the queries that see them; place, first, stop of a position."""
    longest = cdiv(length, step)
    own_class = torch.arange(step)[:, None]
    members = (length - own_class + step - 1) // step
    place = torch.arange(longest)
    beyond = place >= members
    first, stop = (edge.masked_fill(beyond, longest) for edge in _window(place, members, size, shared, only_past))

    begin = torch.arange(0, longest, tile).repeat(step, 1)
    end = torch.minimum(begin + tile, members)
    keys = first.gather(1, begin), stop.gather(1, (end - 1).clamp(min=0))
    # Both edges of a window grow with the query, so the queries that see any of these keys are a span too.
    queries = torch.searchsorted(stop, begin, right=True), torch.searchsorted(first, end - 1, right=True)
    lists = []
    for start, after in ((begin, end), keys, queries):
        width = tile if start is begin else max(1, int((after - start).max()))
        member = start[..., None] + torch.arange(width)
        lists.append(torch.where(member < after[..., None], own_class[..., None] + step * member, -1).flatten(0, 1))
    position = torch.arange(length)
    own = (position % step, position // step)
    return *lists, own[1], first[own], stop[own]


def _tile_shape(rank: int, dtype: torch.dtype) -> tuple[int, ...]:
    """64 tokens, or 32 in float32, whose products take more registers; 16, the least of a dot, while interpreting."""
    powers = 4 if INTERPRETING else 5 if dtype == torch.float32 else 6
    return tuple(1 << (powers + axis) // rank for axis in range(rank))


class _Launch(NamedTuple):
    """What the kernels are given, by the names of their arguments."""

    tables: _Tables
    tensors: dict[str, Tensor | None]
    numbers: dict[str, int | float]
    constants: dict


def _launch(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None,
    kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int], causal: Sequence[bool], scale: float,
) -> _Launch:  # fmt: skip
    grid, rank = tuple(query.shape[1:-2]), len(kernel_size)
    tile = _tile_shape(rank, query.dtype)
    entries = [2 * size - 1 for size in kernel_size]
    query, key, value = (tensor.flatten(1, rank) for tensor in (query, key, value))
    if query.stride(3) != 1 or not query.stride() == key.stride() == value.stride():
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    return _Launch(
        tables=_tables(grid, *map(tuple, (kernel_size, stride, dilation, causal)), tile, query.device),
        tensors={
            "query_ptr": query,
            "key_ptr": key,
            "value_ptr": value,
            "bias_ptr": None if bias is None else bias.contiguous(),
            "mask_ptr": None if mask is None else mask.contiguous().view(torch.int8),
        },
        numbers={
            "tokens": math.prod(grid),
            "batch_stride": query.stride(0),
            "token_stride": query.stride(1),
            "head_stride": query.stride(2),
            "heads": query.shape[2],
            "dim": query.shape[3],
            "bias_size": math.prod(entries),
            "scale": scale,
        },
        constants={
            "RANK": rank,
            "HAS_MASK": mask is not None,
            "BLOCK": math.prod(tile),
            "DIM": max(16, next_power_of_2(query.shape[3])),
        },
    )


def _walk(kernel, launch: _Launch, visit: Tensor, **tensors: Tensor) -> None:
    """Launch a kernel whose programs own tiles."""
    query, tables = launch.tensors["query_ptr"], launch.tables
    tiles, visits = visit.shape
    kernel[(tiles * query.shape[0] * query.shape[2],)](
        tile_ptr=tables.tiles, visit_ptr=visit, windows_ptr=tables.windows, **launch.tensors, **tensors,
        tiles=tiles, visits=visits, **launch.numbers, **launch.constants,
        HAS_BIAS=launch.tensors["bias_ptr"] is not None, DOT_DTYPE=dot_dtype(query.dtype), PRECISION=dot_precision(),
    )  # fmt: skip


def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None,
    kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int], causal: Sequence[bool], scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch, *grid, heads, _ = query.shape
    return query.new_empty(query.shape), query.new_empty((batch, heads, *grid), dtype=torch.float32)


@operator("neighborhood_attention", fake=_forward_fake)
def _forward(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None,
    kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int], causal: Sequence[bool], scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inputs = (query, key, value, bias, mask, kernel_size, stride, dilation, causal, scale)
    y, logsumexp = _forward_fake(*inputs)
    launch = _launch(*inputs)
    _walk(_forward_kernel, launch, launch.tables.keys, y_ptr=y, logsumexp_ptr=logsumexp)
    return y, logsumexp


def _backward_fake(
    grad: Tensor, y: Tensor, logsumexp: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None,
    mask: Tensor | None, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    causal: Sequence[bool], scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_bias = query.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape), grad_bias


@operator("neighborhood_attention_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, y: Tensor, logsumexp: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None,
    mask: Tensor | None, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    causal: Sequence[bool], scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    inputs = (query, key, value, bias, mask, kernel_size, stride, dilation, causal, scale)
    grad_query, grad_key, grad_value, grad_bias = _backward_fake(grad, y, logsumexp, *inputs)
    launch = _launch(*inputs)
    delta = (grad.float() * y.float()).sum(-1).movedim(-1, 1).contiguous()
    given = {"grad_ptr": grad.contiguous(), "logsumexp_ptr": logsumexp, "delta_ptr": delta}
    tables = launch.tables
    _walk(_backward_query_kernel, launch, tables.keys, **given, grad_query_ptr=grad_query)
    _walk(
        _backward_key_value_kernel, launch, tables.queries, **given,
        grad_key_ptr=grad_key, grad_value_ptr=grad_value,
    )  # fmt: skip
    if bias is not None:
        # Every program writes one partial sum; their sum has a fixed order, which atomic additions would not.
        heads, entries = len(bias), math.prod(bias.shape[1:])
        shares = cdiv(4 * processor_count(query.device), entries * heads)
        partial = query.new_empty((shares, *bias.shape), dtype=torch.float32)
        _backward_bias_kernel[(entries, heads, shares)](
            shift_ptr=tables.shifts, windows_ptr=tables.windows, **launch.tensors, **given, partial_ptr=partial,
            batches=len(query), **launch.numbers, **launch.constants,
        )  # fmt: skip
        grad_bias = partial.sum(0).to(bias.dtype)
    return grad_query, grad_key, grad_value, grad_bias


def _save_for_backward(ctx, inputs, output):
    query, key, value, bias, mask, *ctx.settings = inputs
    y, logsumexp = output
    ctx.save_for_backward(y, logsumexp, query, key, value, bias, mask)


def _gradient(ctx, grad, _):
    saved = ctx.saved_tensors
    *grads, grad_bias = _backward(grad, *saved, *ctx.settings)
    has_bias = saved[5] is not None
    return *grads, grad_bias if has_bias else None, None, *(None for _ in ctx.settings)


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _neighborhood_attention_triton(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: tuple[int, ...], stride: tuple[int, ...],
    dilation: tuple[int, ...], causal: tuple[bool, ...], bias: Tensor | None, mask: Tensor | None, scale: float,
) -> Tensor:  # fmt: skip
    return _forward(query, key, value, bias, mask, kernel_size, stride, dilation, causal, scale)[0]


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
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    causal: bool | Sequence[bool] = False,
    bias: Float[Tensor, "heads *offsets"] | None = None,
    mask: Bool[Tensor, "batch *grid"] | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Float[Tensor, "batch *grid heads head_dim"]:
    """Attend from each token to the kernel_size tokens around it on every axis of the grid.

    softmax(scale * query key^T + bias) value over the window. query, key, value (batch, *grid, heads, head_dim) with
    one to three axes; kernel_size, stride, dilation and causal are one for all axes or one for each; bias (heads, 2 *
    kernel_size - 1 for each axis) is indexed by key minus query in units of dilation, plus kernel_size - 1; mask
    (batch, *grid) is True where a token is real; scale is head_dim^-0.5 if None. Windows shift inwards at the borders;
    one that is larger than the grid is the grid; `stride` neighbors, no more than kernel_size, share one. Raises
    ValueError for shapes and sizes that do not fit, and for a backend ("reference", "torch", "triton") that cannot
    serve the call.

    Neighborhood Attention Transformer, arXiv 2204.07143; Generalized Neighborhood Attention, arXiv 2504.16922.
    """
    rank = query.ndim - 3
    if not 1 <= rank <= 3:
        raise ValueError(
            f"neighborhood_attention: query has shape {tuple(query.shape)}, not (batch, *grid, heads, head_dim)"
        )
    if not query.shape == key.shape == value.shape or not query.dtype == key.dtype == value.dtype:
        found = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in (query, key, value))
        raise ValueError(f"neighborhood_attention: query, key and value must be alike, but are {found}")
    sizes = _per_axis("kernel_size", kernel_size, rank)
    shared = _per_axis("stride", stride, rank)
    steps = _per_axis("dilation", dilation, rank)
    only_past = _per_axis("causal", causal, rank)
    if any(group > size for group, size in zip(shared, sizes)):
        raise ValueError(f"neighborhood_attention: stride {shared} is larger than kernel_size {sizes}")
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
    inputs = (query, key, value, sizes, shared, steps, only_past, bias, mask, scale)
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
        "stride": lambda random: _inputs(
            random, 1, 9, 5, 1, 4, kernel_size=(4, 3), stride=(3, 2), causal=(False, True), bias=True
        ),
        "causal rows, dilation": lambda random: _inputs(
            random, 1, 5, 6, 1, 4, kernel_size=3, dilation=(1, 2), causal=(True, False)
        ),
        "mask": lambda random: _inputs(random, 2, 5, 5, 1, 4, kernel_size=3, mask=True, scale=0.3),
        "mask and bias": lambda random: _inputs(random, 2, 19, 2, 4, kernel_size=3, dilation=2, mask=True, bias=True),
        "no batch": lambda random: _inputs(random, 0, 5, 5, 1, 4, kernel_size=3),
    },
    large_cases={
        "large image": lambda random: _inputs(random, 2, 23, 17, 3, 8, kernel_size=7, bias=True, mask=True),
        "wide window": lambda random: _inputs(random, 1, 41, 37, 2, 8, kernel_size=13),
        "dilated image": lambda random: _inputs(random, 1, 41, 37, 2, 8, kernel_size=5, dilation=(2, 3), bias=True),
        "causal sequence": lambda random: _inputs(random, 2, 509, 2, 8, kernel_size=63, causal=True),
        "strided image": lambda random: _inputs(
            random, 1, 41, 37, 2, 8, kernel_size=(7, 5), stride=(4, 5), dilation=(1, 2), bias=True
        ),
        "large volume": lambda random: _inputs(random, 1, 11, 13, 17, 2, 8, kernel_size=(3, 5, 4), mask=True),
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
