"""Addition of a branch to the residual stream and normalization of the sum, in one pass over memory.

    total = residual + x
    y = normalize(total) * (weight + offset) + bias

where normalize divides by the root mean square ("rms") or standardizes ("layer"), as `rms_norm` and `layer_norm` do.
Shapes: x, residual, total and y (*batch, dim), weight and bias (dim,) or None. Statistics and products are float32
(float64 for float64 inputs). total has the dtype of the residual, which may be wider than that of x, and is normalized
as rounded to it; y has the dtype of x; each gradient that of its input.

Floor, for R = numel(x) elements of e bytes: each way reads two tensors and writes two (the backward: the gradients of
total and y and total itself in, one gradient for both inputs out), 4Re bytes; 8R and 15R flops.

Papers: Root Mean Square Layer Normalization, arXiv 1910.07467; Layer Normalization, arXiv 1607.06450.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ._normalization import (
    NormKind,
    as_rows,
    backward_programs,
    check_normalization,
    contiguous,
    load_factor,
    load_normalized,
    load_rows,
    load_vector,
    new_gradient,
    new_partial,
    new_statistics,
    normalize_reference,
    normalize_rows,
    normalize_rows_backward,
    normalize_torch,
    refuse_long_rows,
    row_blocks,
    store_partial,
    store_rows,
    sum_partial,
    tile_of_rows,
    widen,
)
from ._runtime import Backends, cdiv, jit, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes


def add_norm_reference(
    x: Float[Tensor, "*batch dim"],
    residual: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    kind: NormKind = "rms",
    offset: float = 0.0,
) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch dim"]]:
    total = (widen(residual) + widen(x)).to(residual.dtype)
    return total, normalize_reference(total, weight, bias, eps, kind, offset).to(x.dtype)


def add_norm_torch(
    x: Float[Tensor, "*batch dim"],
    residual: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    kind: NormKind = "rms",
    offset: float = 0.0,
) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch dim"]]:
    total = (residual + x).to(residual.dtype)
    return total, normalize_torch(total, weight, bias, eps, kind, offset).to(x.dtype)


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _forward_kernel(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, total_ptr, y_ptr, mean_ptr, inverse_ptr,
    rows, dim, x_stride, residual_stride, eps, offset,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, CENTER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, column, inside = tile_of_rows(tl.program_id(0), rows, dim, ROWS, COLUMNS)
    x = load_rows(x_ptr, row, column, inside, x_stride)
    total = load_rows(residual_ptr, row, column, inside, residual_stride) + x
    store_rows(total_ptr, total, row, column, inside, dim)

    total = total.to(total_ptr.dtype.element_ty).to(tl.float32)  # what the backward will read
    normalized, mean, inverse = normalize_rows(total, inside, dim, eps, CENTER, ROWS)
    y = normalized * load_factor(weight_ptr, column, dim, offset, HAS_WEIGHT, COLUMNS)[None, :]
    y += load_vector(bias_ptr, column, dim, 0.0, HAS_BIAS, COLUMNS)[None, :]
    store_rows(y_ptr, y, row, column, inside, dim)
    tl.store(mean_ptr + row, mean, mask=row < rows)
    tl.store(inverse_ptr + row, inverse, mask=row < rows)


@jit
def _backward_kernel(
    grad_total_ptr, grad_y_ptr, total_ptr, weight_ptr, mean_ptr, inverse_ptr,
    grad_ptr, partial_weight_ptr, partial_bias_ptr, rows, dim, grad_total_stride, grad_y_stride, offset,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, CENTER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    factor = load_factor(weight_ptr, column, dim, offset, HAS_WEIGHT, COLUMNS)
    grad_weight = tl.zeros([COLUMNS], tl.float32)
    grad_bias = tl.zeros([COLUMNS], tl.float32)

    for block in range(program, tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row, _, inside = tile_of_rows(block, rows, dim, ROWS, COLUMNS)
        grad_y = load_rows(grad_y_ptr, row, column, inside, grad_y_stride)
        normalized, inverse = load_normalized(total_ptr, mean_ptr, inverse_ptr, row, column, inside, dim, rows)
        grad = normalize_rows_backward(grad_y * factor[None, :], normalized, inverse, dim, CENTER)
        grad += load_rows(grad_total_ptr, row, column, inside, grad_total_stride)
        store_rows(grad_ptr, grad, row, column, inside, dim)
        grad_weight += tl.sum(grad_y * normalized, axis=0)
        grad_bias += tl.sum(grad_y, axis=0)

    if HAS_WEIGHT:
        store_partial(partial_weight_ptr, grad_weight, program, column, dim)
    if HAS_BIAS:
        store_partial(partial_bias_ptr, grad_bias, program, column, dim)


def _forward_fake(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, center: bool, offset: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return residual.new_empty(x.shape), x.new_empty(x.shape), *new_statistics(x)


@operator("add_norm", fake=_forward_fake)
def _forward(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, center: bool, offset: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total, y, mean, inverse = _forward_fake(x, residual, weight, bias, eps, center, offset)
    x, residual, blocks = as_rows(x), as_rows(residual), row_blocks(x.shape[-1])
    if x.numel():
        _forward_kernel[(cdiv(len(x), blocks["ROWS"]),)](
            x, residual, contiguous(weight), contiguous(bias), total, y, mean, inverse,
            *x.shape, x.stride(0), residual.stride(0), eps, offset,
            HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, CENTER=center, **blocks,
        )  # fmt: skip
    return total, y, mean, inverse


def _backward_fake(
    grad_total: Tensor, grad_y: Tensor, total: Tensor, weight: Tensor | None, bias: Tensor | None,
    mean: Tensor, inverse: Tensor, center: bool, offset: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    wider = torch.promote_types(grad_total.dtype, grad_y.dtype)
    return total.new_empty(total.shape, dtype=wider), new_gradient(weight, total), new_gradient(bias, total)


@operator("add_norm_backward", fake=_backward_fake)
def _backward(
    grad_total: Tensor, grad_y: Tensor, total: Tensor, weight: Tensor | None, bias: Tensor | None,
    mean: Tensor, inverse: Tensor, center: bool, offset: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    grad = total.new_empty(total.shape, dtype=torch.promote_types(grad_total.dtype, grad_y.dtype))
    grad_total, grad_y, total = as_rows(grad_total), as_rows(grad_y), as_rows(total)
    blocks = row_blocks(total.shape[-1])
    programs = backward_programs(total, blocks)
    partial_weight, partial_bias = (new_partial(like, programs, total) for like in (weight, bias))
    if total.numel():
        _backward_kernel[(programs,)](
            grad_total, grad_y, total, contiguous(weight), mean, inverse, grad, partial_weight, partial_bias,
            *total.shape, grad_total.stride(0), grad_y.stride(0), offset,
            HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, CENTER=center, **blocks,
        )  # fmt: skip
    return grad, sum_partial(partial_weight, weight), sum_partial(partial_bias, bias)


def _save_for_backward(ctx, inputs, output):
    _, _, weight, bias, _, ctx.center, ctx.offset = inputs
    total, _, mean, inverse = output
    ctx.save_for_backward(total, weight, bias, mean, inverse)


def _gradient(ctx, grad_total, grad_y, *_):
    _, weight, bias, _, _ = saved = ctx.saved_tensors
    grad, grad_weight, grad_bias = _backward(grad_total, grad_y, *saved, ctx.center, ctx.offset)
    grad_weight, grad_bias = None if weight is None else grad_weight, None if bias is None else grad_bias
    return grad.to(grad_y.dtype), grad.to(grad_total.dtype), grad_weight, grad_bias, None, None, None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _add_norm_triton(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
    kind: NormKind = "rms",
    offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    return _forward(x, residual, weight, bias, eps, kind == "layer", offset)[:2]


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("add_norm", add_norm_reference, add_norm_torch, _add_norm_triton, refuse_long_rows)


def add_norm(
    x: Float[Tensor, "*batch dim"],
    residual: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    *,
    kind: NormKind = "rms",
    offset: float = 0.0,
    backend: str | None = None,
) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch dim"]]:
    """Add a branch to the residual stream and normalize: total = residual + x, y = norm(total); returns (total, y).

    x and residual (*batch, dim), weight and bias (dim,) or None; `kind` is "rms" or "layer", `offset` is added to the
    weight. Computed in float32; total is returned in the dtype of the residual, y in that of x. Raises ValueError if a
    shape does not fit, for another kind, an offset without a weight, or for a backend ("reference", "torch", "triton")
    that cannot serve the call.

    Root Mean Square Layer Normalization, arXiv 1910.07467; Layer Normalization, arXiv 1607.06450.
    """
    if x.shape != residual.shape:
        raise ValueError(
            f"add_norm: x has shape {tuple(x.shape)}, residual {tuple(residual.shape)}; they must be equal"
        )
    check_normalization("add_norm", x, weight, bias, kind, offset)
    return _BACKENDS.select(backend, x, residual, weight, bias)(x, residual, weight, bias, eps, kind, offset)


def _floor(x: Tensor, residual: Tensor, **_) -> tuple[Cost, Cost]:
    traffic = 2 * size_in_bytes(x, residual)
    return Cost(traffic, 8 * x.numel()), Cost(traffic, 15 * x.numel())


def _inputs(random: Sampler, *shape: int, kind: NormKind, weight: bool = True, bias: bool = False) -> dict:
    return {
        "x": random.normal(*shape) + 1,
        "residual": random.normal(*shape),
        "weight": random.normal(shape[-1]) if weight else None,
        "bias": random.normal(shape[-1]) if bias else None,
        "kind": kind,
    }


SPEC = OpSpec(
    function=add_norm,
    backends=_BACKENDS,
    cases={
        "one row": lambda random: _inputs(random, 63, kind="layer", bias=True),
        "short rows": lambda random: _inputs(random, 3, 67, 5, kind="rms"),
        "offset": lambda random: {**_inputs(random, 2, 5, 131, kind="layer"), "offset": 1.0},
        "rms, bias alone": lambda random: _inputs(random, 7, 63, kind="rms", weight=False, bias=True),
        "layer, neither": lambda random: _inputs(random, 7, 13, kind="layer", weight=False),
        "no rows": lambda random: _inputs(random, 0, 8, kind="layer", bias=True),
    },
    large_cases={"wide": lambda random: _inputs(random, 33, 1021, kind="rms")},
    benchmarks={
        "56x56 dim 96 layer": lambda random: _inputs(random, 4, 56, 56, 96, kind="layer", bias=True),
        "8192 tokens dim 768 rms": lambda random: _inputs(random, 8192, 768, kind="rms"),
    },
    differentiable=("x", "residual", "weight", "bias"),
    # torch sums the gradients of weight and bias over the rows one after the other.
    tolerances={"torch": {torch.float32: 4e-6}},
    floor=_floor,
    paper="Root Mean Square Layer Normalization, arXiv 1910.07467",
)
