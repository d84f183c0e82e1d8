"""Layer normalization of the last dimension.

    y = (x - mean(x)) / sqrt(var(x) + eps) * (weight + offset) + bias

Shapes: x (*batch, dim), weight and bias (dim,) or None, y like x. The variance is the biased one. Statistics and
products are float32 (float64 for float64 inputs) whatever the dtype of x; y has the dtype of x, each gradient that of
its input.

Floor, for R = numel(x) elements of e bytes: the forward reads x and writes y, 2Re bytes and 7R flops; the backward
reads x and the gradient of y and writes that of x, 3Re bytes and 14R flops.

Paper: Layer Normalization, arXiv 1607.06450.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._normalization import (
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
)
from ._runtime import Backends, cdiv, jit, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes


def layer_norm_reference(
    x: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> Float[Tensor, "*batch dim"]:
    return normalize_reference(x, weight, bias, eps, "layer", offset).to(x.dtype)


def layer_norm_torch(
    x: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> Float[Tensor, "*batch dim"]:
    if offset or _mixes_dtypes(x, weight, bias) or (x.dtype.itemsize < 4 and _learns(weight, bias)):
        return normalize_torch(x, weight, bias, eps, "layer", offset).to(x.dtype)
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps).to(x.dtype)  # autocast makes it float32 on CUDA


def _mixes_dtypes(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    return (weight is not None and weight.dtype != x.dtype) or (bias is not None and bias.dtype != x.dtype)


def _learns(weight: Tensor | None, bias: Tensor | None) -> bool:
    """Then half precision is widened: torch sums these gradients over the rows in half precision on the CPU, which for
    8192 bfloat16 rows leaves them a tenth off."""
    learned = (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    return learned and torch.is_grad_enabled()


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _forward_kernel(
    x_ptr, weight_ptr, bias_ptr, y_ptr, mean_ptr, inverse_ptr, rows, dim, x_stride, eps, offset,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, column, inside = tile_of_rows(tl.program_id(0), rows, dim, ROWS, COLUMNS)
    x = load_rows(x_ptr, row, column, inside, x_stride)
    normalized, mean, inverse = normalize_rows(x, inside, dim, eps, True, ROWS)
    y = normalized * load_factor(weight_ptr, column, dim, offset, HAS_WEIGHT, COLUMNS)[None, :]
    y += load_vector(bias_ptr, column, dim, 0.0, HAS_BIAS, COLUMNS)[None, :]

    store_rows(y_ptr, y, row, column, inside, dim)
    tl.store(mean_ptr + row, mean, mask=row < rows)
    tl.store(inverse_ptr + row, inverse, mask=row < rows)


@jit
def _backward_kernel(
    grad_ptr, x_ptr, weight_ptr, mean_ptr, inverse_ptr, grad_x_ptr, partial_weight_ptr, partial_bias_ptr,
    rows, dim, grad_stride, x_stride, offset,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    factor = load_factor(weight_ptr, column, dim, offset, HAS_WEIGHT, COLUMNS)
    grad_weight = tl.zeros([COLUMNS], tl.float32)
    grad_bias = tl.zeros([COLUMNS], tl.float32)

    for block in range(program, tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row, _, inside = tile_of_rows(block, rows, dim, ROWS, COLUMNS)
        grad = load_rows(grad_ptr, row, column, inside, grad_stride)
        normalized, inverse = load_normalized(x_ptr, mean_ptr, inverse_ptr, row, column, inside, x_stride, rows)
        grad_x = normalize_rows_backward(grad * factor[None, :], normalized, inverse, dim, True)
        store_rows(grad_x_ptr, grad_x, row, column, inside, dim)
        grad_weight += tl.sum(grad * normalized, axis=0)
        grad_bias += tl.sum(grad, axis=0)

    if HAS_WEIGHT:
        store_partial(partial_weight_ptr, grad_weight, program, column, dim)
    if HAS_BIAS:
        store_partial(partial_bias_ptr, grad_bias, program, column, dim)


def _forward_fake(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, offset: float
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), *new_statistics(x)


@operator("layer_norm", fake=_forward_fake)
def _forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, offset: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows, blocks = as_rows(x), row_blocks(x.shape[-1])
    y, mean, inverse = _forward_fake(x, weight, bias, eps, offset)
    if x.numel():
        _forward_kernel[(cdiv(len(rows), blocks["ROWS"]),)](
            rows, contiguous(weight), contiguous(bias), y, mean, inverse, *rows.shape, rows.stride(0), eps, offset,
            HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, **blocks,
        )  # fmt: skip
    return y, mean, inverse


def _backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, inverse: Tensor, offset: float
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), new_gradient(weight, x), new_gradient(bias, x)


@operator("layer_norm_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, inverse: Tensor, offset: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows, grad_rows, grad_x = as_rows(x), as_rows(grad), x.new_empty(x.shape)
    blocks = row_blocks(x.shape[-1])
    programs = backward_programs(rows, blocks)
    partial_weight, partial_bias = (new_partial(like, programs, rows) for like in (weight, bias))
    if x.numel():
        _backward_kernel[(programs,)](
            grad_rows, rows, contiguous(weight), mean, inverse, grad_x, partial_weight, partial_bias,
            *rows.shape, grad_rows.stride(0), rows.stride(0), offset,
            HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, **blocks,
        )  # fmt: skip
    return grad_x, sum_partial(partial_weight, weight), sum_partial(partial_bias, bias)


def _save_for_backward(ctx, inputs, output):
    x, weight, bias, _, ctx.offset = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])


def _gradient(ctx, grad, *_):
    _, weight, bias, _, _ = saved = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = _backward(grad, *saved, ctx.offset)
    return grad_x, None if weight is None else grad_weight, None if bias is None else grad_bias, None, None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _layer_norm_triton(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6, offset: float = 0.0
) -> Tensor:
    return _forward(x, weight, bias, eps, offset)[0]


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("layer_norm", layer_norm_reference, layer_norm_torch, _layer_norm_triton, refuse_long_rows)


def layer_norm(
    x: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    *,
    offset: float = 0.0,
    backend: str | None = None,
) -> Float[Tensor, "*batch dim"]:
    """Standardize each vector: (x - mean(x)) / sqrt(var(x) + eps) * (weight + offset) + bias.

    x (*batch, dim), weight and bias (dim,) or None; computed in float32, returned in the dtype of x. `offset=1` takes
    the weight as a deviation from one. Raises ValueError if weight or bias does not fit x, for an offset without a
    weight, or for a backend ("reference", "torch", "triton") that cannot serve the call.

    Layer Normalization, arXiv 1607.06450.
    """
    check_normalization("layer_norm", x, weight, bias, "layer", offset)
    return _BACKENDS.select(backend, x, weight, bias)(x, weight, bias, eps, offset)


def _floor(x: Tensor, **_) -> tuple[Cost, Cost]:
    return Cost(2 * size_in_bytes(x), 7 * x.numel()), Cost(3 * size_in_bytes(x), 14 * x.numel())


def _inputs(random: Sampler, *shape: int, weight: bool = True, bias: bool = True) -> dict:
    return {
        "x": random.normal(*shape) + 1,
        "weight": random.normal(shape[-1]) if weight else None,
        "bias": random.normal(shape[-1]) if bias else None,
    }


SPEC = OpSpec(
    function=layer_norm,
    backends=_BACKENDS,
    cases={
        "one element": lambda random: {**_inputs(random, 1, 1), "eps": 0.5},
        "short rows": lambda random: _inputs(random, 3, 67, 5),
        "offset": lambda random: {**_inputs(random, 2, 5, 131, bias=False), "offset": 1.0},
        "bias alone": lambda random: _inputs(random, 63, weight=False),
        "neither": lambda random: _inputs(random, 7, 63, weight=False, bias=False),
        "no rows": lambda random: _inputs(random, 0, 8),
    },
    large_cases={"wide": lambda random: _inputs(random, 33, 1021)},
    benchmarks={
        "56x56 dim 96": lambda random: _inputs(random, 4, 56, 56, 96),
        "8192 tokens dim 768": lambda random: _inputs(random, 8192, 768),
    },
    differentiable=("x", "weight", "bias"),
    # torch sums the gradients of weight and bias over the rows one after the other.
    tolerances={"torch": {torch.float32: 4e-6}},
    floor=_floor,
    paper="Layer Normalization, arXiv 1607.06450",
)
