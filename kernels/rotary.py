"""Rotary positions: channel pairs of queries and keys are turned by angles that grow with the position.

    (a, b) -> (a cos(angle) - b sin(angle), a sin(angle) + b cos(angle))

Shapes: query (batch, *grid, heads, head_dim), key (batch, *grid, key_heads, head_dim); angles (*grid, pairs), or
(batch, *grid, pairs) where samples have positions of their own. The first 2 pairs channels of a head are turned, the
others stay. Pair j is channels (j, j + pairs) in the layout "half", (2j, 2j + 1) in the layout "interleaved".
`rotary_angles` makes the angles of positions on one or several axes.

Angles, sines and products are float32 (float64 for float64 inputs) whatever the dtype of query and key, which the
results have. The gradient of a rotation is the rotation by the opposite angle.

Floor, for R = numel(query) + numel(key) elements of e bytes: each way reads and writes them, 2Re bytes and 3R flops.

Papers: RoFormer, arXiv 2104.09864; axes: Rotary Position Embedding for Vision Transformer, arXiv 2403.13298.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._normalization import widen
from ._runtime import Backends, cdiv, jit, next_power_of_2, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes

RotaryLayout = Literal["half", "interleaved"]


def rotary_angles(
    positions: Float[Tensor, "*tokens axes"] | Int[Tensor, "*tokens axes"], pairs_per_axis: int, base: float = 10000.0
) -> Float[Tensor, "*tokens pairs"]:
    """angle[a m + j] = position[a] * base^(-j / m), m = `pairs_per_axis`: the first axis has the first m pairs.

    Computed in float32, in float64 for positions in float64.
    """
    positions = widen(positions)
    exponents = torch.arange(pairs_per_axis, device=positions.device, dtype=positions.dtype) / max(pairs_per_axis, 1)
    return (positions.unsqueeze(-1) * base**-exponents).flatten(-2)


def rotary_reference(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid key_heads head_dim"],
    angles: Float[Tensor, "*positions pairs"],
    layout: RotaryLayout = "half",
) -> tuple[Float[Tensor, "batch *grid heads head_dim"], Float[Tensor, "batch *grid key_heads head_dim"]]:
    cos, sin = _tables(angles, query)
    return _rotate_reference(query, cos, sin, layout), _rotate_reference(key, cos, sin, layout)


def rotary_torch(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid key_heads head_dim"],
    angles: Float[Tensor, "*positions pairs"],
    layout: RotaryLayout = "half",
) -> tuple[Float[Tensor, "batch *grid heads head_dim"], Float[Tensor, "batch *grid key_heads head_dim"]]:
    cos, sin = _tables(angles, query)
    # Inductor fuses the products of the reference into one pass, but neither rolls nor complex numbers.
    rotate = _rotate_reference if torch.compiler.is_compiling() else _rotate_torch
    return rotate(query, cos, sin, layout), rotate(key, cos, sin, layout)


def _rotate_reference(x: Tensor, cos: Tensor, sin: Tensor, layout: RotaryLayout) -> Tensor:
    pairs = cos.shape[-1]
    a, b = _split_pairs(widen(x), pairs, layout)
    turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -2 if layout == "half" else -1).flatten(-2)
    return _beside_the_rest(turned, x)


def _rotate_torch(x: Tensor, cos: Tensor, sin: Tensor, layout: RotaryLayout) -> Tensor:
    pairs = cos.shape[-1]
    turned = widen(x[..., : 2 * pairs])
    if layout == "half":  # two products over all channels, (a, b) [cos cos] + (b, a) [-sin sin]
        turned = torch.addcmul(turned * torch.cat((cos, cos), -1), turned.roll(pairs, -1), torch.cat((-sin, sin), -1))
    else:
        turned = torch.view_as_real(_as_complex(turned) * torch.complex(cos, sin)).flatten(-2)
    return _beside_the_rest(turned, x)


def _beside_the_rest(turned: Tensor, x: Tensor) -> Tensor:
    """The turned channels and those of x that stay."""
    turned, rest = turned.to(x.dtype), x[..., turned.shape[-1] :]
    return torch.cat((turned, rest), -1) if rest.shape[-1] else turned


def _as_complex(x: Tensor) -> Tensor:
    """Channels (2j, 2j + 1) as one complex number, without a copy where memory allows it."""
    x = x.unflatten(-1, (x.shape[-1] // 2, 2))
    if x.stride(-1) != 1 or x.storage_offset() % 2 or any(stride % 2 for stride in x.stride()[:-1]):
        x = x.contiguous()
    return torch.view_as_complex(x)


def _split_pairs(x: Tensor, pairs: int, layout: RotaryLayout) -> tuple[Tensor, Tensor]:
    x = x[..., : 2 * pairs]
    return x.chunk(2, -1) if layout == "half" else x.unflatten(-1, (pairs, 2)).unbind(-1)


def _tables(angles: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, with an axis of size one for the heads."""
    angles, dtype = widen(angles).unsqueeze(-2), widen(query).dtype
    return angles.cos().to(dtype), angles.sin().to(dtype)


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _rotate_heads(
    block, x_ptr, y_ptr, cos_ptr, sin_ptr, batch, tokens, heads, head_dim, pairs,
    batch_stride, token_stride, head_stride, table_stride,
    INTERLEAVED: tl.constexpr, ROWS: tl.constexpr, PAIRS: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    row = tl.cast(block, tl.int64) * ROWS + tl.arange(0, ROWS)  # a head of a token of a sample; heads run fastest
    rows = tl.cast(batch, tl.int64) * tokens * heads
    sample, token = row // heads // tokens, row // heads % tokens
    source = x_ptr + (sample * batch_stride + token * token_stride + row % heads * head_stride)[:, None]
    target = y_ptr + (row * head_dim)[:, None]
    exists = (row < rows)[:, None]

    pair = tl.arange(0, PAIRS)[None, :]
    table = (sample * table_stride + token * pairs)[:, None] + pair
    cos = tl.load(cos_ptr + table, mask=exists & (pair < pairs), other=0.0)
    sin = tl.load(sin_ptr + table, mask=exists & (pair < pairs), other=0.0)
    if INTERLEAVED:  # whole lines are loaded and stored, and the pairs taken apart in registers
        channel = tl.arange(0, 2 * PAIRS)[None, :]
        inside = exists & (channel < 2 * pairs)
        x = tl.load(source + channel, mask=inside, other=0.0).to(tl.float32)
        a, b = tl.split(tl.reshape(x, [ROWS, PAIRS, 2]))
        y = tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), [ROWS, 2 * PAIRS])
        tl.store(target + channel, y.to(y_ptr.dtype.element_ty), mask=inside)
    else:
        inside = exists & (pair < pairs)
        a = tl.load(source + pair, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(source + pair + pairs, mask=inside, other=0.0).to(tl.float32)
        tl.store(target + pair, (a * cos - b * sin).to(y_ptr.dtype.element_ty), mask=inside)
        tl.store(target + pair + pairs, (a * sin + b * cos).to(y_ptr.dtype.element_ty), mask=inside)
    if REST:
        channel = 2 * pairs + tl.arange(0, REST)[None, :]
        inside = exists & (channel < head_dim)
        tl.store(target + channel, tl.load(source + channel, mask=inside, other=0.0), mask=inside)


@jit
def _kernel(
    query_ptr, key_ptr, rotated_query_ptr, rotated_key_ptr, cos_ptr, sin_ptr,
    batch, tokens, query_heads, key_heads, head_dim, pairs, query_blocks,
    query_batch_stride, query_token_stride, query_head_stride,
    key_batch_stride, key_token_stride, key_head_stride, table_stride,
    INTERLEAVED: tl.constexpr, ROWS: tl.constexpr, PAIRS: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    if block < query_blocks:
        _rotate_heads(
            block, query_ptr, rotated_query_ptr, cos_ptr, sin_ptr, batch, tokens, query_heads, head_dim, pairs,
            query_batch_stride, query_token_stride, query_head_stride, table_stride,
            INTERLEAVED, ROWS, PAIRS, REST,
        )  # fmt: skip
    else:
        _rotate_heads(
            block - query_blocks, key_ptr, rotated_key_ptr, cos_ptr, sin_ptr, batch, tokens, key_heads, head_dim, pairs,
            key_batch_stride, key_token_stride, key_head_stride, table_stride,
            INTERLEAVED, ROWS, PAIRS, REST,
        )  # fmt: skip


def _rotate_fake(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


@operator("rotary", fake=_rotate_fake)
def _rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    """query and key (batch, tokens, heads, head_dim), tables (batch or 1, tokens, pairs)."""
    rotated = _rotate_fake(query, key, cos, sin, layout)
    query, key = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key))
    batch, tokens, heads, head_dim = query.shape
    key_heads, pairs = key.shape[2], cos.shape[-1]
    block = next_power_of_2(pairs)
    rows, rest = max(1, 1024 // block), head_dim - 2 * pairs
    query_blocks, key_blocks = cdiv(batch * tokens * heads, rows), cdiv(batch * tokens * key_heads, rows)
    if query_blocks + key_blocks and head_dim:
        _kernel[(query_blocks + key_blocks,)](
            query, key, *rotated, cos.contiguous(), sin.contiguous(),
            batch, tokens, heads, key_heads, head_dim, pairs, query_blocks,
            *query.stride()[:3], *key.stride()[:3], tokens * pairs if len(cos) > 1 else 0,
            INTERLEAVED=layout == "interleaved", ROWS=rows, PAIRS=block, REST=next_power_of_2(rest) if rest else 0,
            num_warps=4,
        )  # fmt: skip
    return rotated


def _save_for_backward(ctx, inputs, output):
    query, key, cos, sin, ctx.layout = inputs
    learned = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]  # only then are query and key kept
    ctx.save_for_backward(cos, sin, *((query, key) if learned else ()))


def _gradient(ctx, grad_query, grad_key):
    cos, sin, *inputs = ctx.saved_tensors
    grad_cos = grad_sin = None
    if inputs:
        grad_cos, grad_sin = torch.zeros_like(cos), torch.zeros_like(sin)
        for x, grad in zip(inputs, (grad_query, grad_key)):
            (a, b), (grad_a, grad_b) = (_split_pairs(part.float(), cos.shape[-1], ctx.layout) for part in (x, grad))
            grad_cos = grad_cos + (grad_a * a + grad_b * b).sum(2).sum_to_size(cos.shape)
            grad_sin = grad_sin + (grad_b * a - grad_a * b).sum(2).sum_to_size(sin.shape)
    return *_rotate(grad_query, grad_key, cos, -sin, ctx.layout), grad_cos, grad_sin, None


_rotate.register_autograd(_gradient, setup_context=_save_for_backward)


def _rotary_triton(query: Tensor, key: Tensor, angles: Tensor, layout: RotaryLayout = "half") -> tuple[Tensor, Tensor]:
    batch, tokens = len(query), math.prod(query.shape[1:-2])
    samples = batch if angles.dim() == query.dim() - 1 else 1
    tables = (table.reshape(samples, tokens, angles.shape[-1]) for table in _tables(angles, query))
    flat = (x.reshape(batch, tokens, *x.shape[-2:]) for x in (query, key))
    rotated_query, rotated_key = _rotate(*flat, *tables, layout)
    return rotated_query.view(query.shape), rotated_key.view(key.shape)


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("rotary", rotary_reference, rotary_torch, _rotary_triton)


def rotary(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid key_heads head_dim"],
    angles: Float[Tensor, "*positions pairs"],
    *,
    layout: RotaryLayout = "half",
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch *grid heads head_dim"], Float[Tensor, "batch *grid key_heads head_dim"]]:
    """Turn channel pairs of queries and keys by angles: (a, b) -> (a cos - b sin, a sin + b cos).

    query (batch, *grid, heads, head_dim), key with heads of its own number; angles (*grid, pairs) or (batch, *grid,
    pairs), given or from `rotary_angles`. The first 2 pairs channels are turned: (j, j + pairs) together in the layout
    "half", (2j, 2j + 1) in "interleaved". Computed in float32, returned in the dtypes of query and key. Raises
    ValueError if a shape does not fit, for another layout, or for a backend ("reference", "torch", "triton") that
    cannot serve the call.

    RoFormer, arXiv 2104.09864; axes: Rotary Position Embedding for Vision Transformer, arXiv 2403.13298.
    """
    tokens, head_dim = query.shape[:-2], query.shape[-1]
    if key.shape[:-2] != tokens or key.shape[-1] != head_dim:
        raise ValueError(
            f"rotary: query has shape {tuple(query.shape)}, key {tuple(key.shape)}; only their heads may differ"
        )
    if angles.shape[:-1] not in (tokens, tokens[1:]) or 2 * angles.shape[-1] > head_dim:
        raise ValueError(
            f"rotary: angles have shape {tuple(angles.shape)}, query {tuple(query.shape)}; angles must be "
            f"{(*tokens[1:], 'pairs')} or {(*tokens, 'pairs')} with at most {head_dim // 2} pairs"
        )
    if layout not in ("half", "interleaved"):
        raise ValueError(f"rotary: layout {layout!r} is unknown; choose 'half' or 'interleaved'")
    return _BACKENDS.select(backend, query, key, angles)(query, key, angles, layout)


def _floor(query: Tensor, key: Tensor, **_) -> tuple[Cost, Cost]:
    cost = Cost(2 * size_in_bytes(query, key), 3 * (query.numel() + key.numel()))
    return cost, cost


def _inputs(
    random: Sampler,
    batch: int,
    *grid: int,
    heads: int,
    key_heads: int,
    head_dim: int,
    pairs_per_axis: int,
    own: bool = False,
    layout: RotaryLayout = "half",
) -> dict:
    """Random positions, of the grid or of each sample."""
    positions = random.uniform(*((batch,) if own else ()), *grid, len(grid), high=50.0)
    return {
        "query": random.normal(batch, *grid, heads, head_dim),
        "key": random.normal(batch, *grid, key_heads, head_dim),
        "angles": rotary_angles(positions, pairs_per_axis),
        "layout": layout,
    }


SPEC = OpSpec(
    function=rotary,
    backends=_BACKENDS,
    cases={
        "one pair": lambda random: _inputs(random, 1, 1, heads=1, key_heads=1, head_dim=2, pairs_per_axis=1),
        "sequence": lambda random: _inputs(random, 2, 63, heads=3, key_heads=1, head_dim=10, pairs_per_axis=5),
        "interleaved image": lambda random: _inputs(
            random, 2, 5, 7, heads=2, key_heads=2, head_dim=12, pairs_per_axis=3, layout="interleaved"
        ),
        "partial volume": lambda random: _inputs(
            random, 2, 2, 3, 5, heads=1, key_heads=3, head_dim=17, pairs_per_axis=2, own=True
        ),
        "partial interleaved": lambda random: _inputs(
            random, 3, 7, heads=2, key_heads=1, head_dim=16, pairs_per_axis=5, layout="interleaved", own=True
        ),
        "no samples": lambda random: _inputs(random, 0, 5, heads=2, key_heads=1, head_dim=8, pairs_per_axis=4),
    },
    large_cases={
        "sequence of 257": lambda random: _inputs(random, 2, 257, heads=4, key_heads=2, head_dim=64, pairs_per_axis=32),
    },
    benchmarks={
        "1024 tokens, 8 heads of 64": lambda random: _inputs(
            random, 2, 1024, heads=8, key_heads=8, head_dim=64, pairs_per_axis=32
        ),
        "56x56 interleaved, 3 heads of 32": lambda random: _inputs(
            random, 2, 56, 56, heads=3, key_heads=3, head_dim=32, pairs_per_axis=8, layout="interleaved"
        ),
    },
    differentiable=("query", "key", "angles"),
    floor=_floor,
    float32=("angles",),
    paper="RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv 2104.09864",
)
