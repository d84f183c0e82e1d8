"""Adaptive normalization: a normalization whose scale and shift each sample brings along.

    y = normalize(x) * (1 + scale) + shift

where normalize standardizes ("layer") or divides by the root mean square ("rms"), without weights of its own. Shapes: x
and y (batch, *grid, dim); scale and shift (batch, dim), the same for all tokens of a sample, shift or None. They may be
slices of one wider tensor. Statistics and products are float32 (float64 for float64 inputs) whatever the dtypes; y has
the dtype of x, each gradient that of its input.

Floor, for R = numel(x) elements of e bytes: the forward reads x and writes y, 2Re bytes and 7R flops; the backward
reads x and the gradient of y and writes that of x, 3Re bytes and 14R flops.

Paper: Scalable Diffusion Models with Transformers, arXiv 2212.09748.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ._normalization import (
    NormKind,
    as_rows,
    check_normalization,
    load_normalized,
    load_rows,
    load_vector,
    new_gradient,
    new_statistics,
    normalize_reference,
    normalize_rows,
    normalize_rows_backward,
    normalize_torch,
    refuse_long_rows,
    row_blocks,
    store_rows,
    tile_of_rows,
    widen,
)
from ._runtime import Backends, cdiv, jit, operator, processor_count, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes


def modulate_reference(
    x: Float[Tensor, "batch *grid dim"],
    scale: Float[Tensor, "batch dim"],
    shift: Float[Tensor, "batch dim"] | None = None,
    eps: float = 1e-6,
    kind: NormKind = "layer",
) -> Float[Tensor, "batch *grid dim"]:
    normalized = normalize_reference(x, None, None, eps, kind, 0.0)
    y = normalized * (1 + _over_tokens(scale, x))
    return (y if shift is None else y + _over_tokens(shift, x)).to(x.dtype)


def modulate_torch(
    x: Float[Tensor, "batch *grid dim"],
    scale: Float[Tensor, "batch dim"],
    shift: Float[Tensor, "batch dim"] | None = None,
    eps: float = 1e-6,
    kind: NormKind = "layer",
) -> Float[Tensor, "batch *grid dim"]:
    normalized, factor = normalize_torch(x, None, None, eps, kind, 0.0), 1 + _over_tokens(scale, x)
    if shift is None:
        return (normalized * factor).to(x.dtype)
    return torch.addcmul(_over_tokens(shift, x), normalized, factor).to(x.dtype)  # one pass instead of two


def _over_tokens(vectors: Tensor, x: Tensor) -> Tensor:
    """(batch, dim), widened as x is, in a shape that broadcasts over the tokens of x."""
    return vectors.to(widen(x).dtype).reshape(len(x), *[1] * (x.dim() - 2), x.shape[-1])


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _forward_kernel(
    x_ptr, scale_ptr, shift_ptr, y_ptr, mean_ptr, inverse_ptr,
    rows, tokens, dim, x_stride, scale_stride, shift_stride, eps,
    HAS_SHIFT: tl.constexpr, CENTER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, column, inside = tile_of_rows(tl.program_id(0), rows, dim, ROWS, COLUMNS)
    sample = row // tokens
    x = load_rows(x_ptr, row, column, inside, x_stride)
    normalized, mean, inverse = normalize_rows(x, inside, dim, eps, CENTER, ROWS)
    y = normalized * (1.0 + load_rows(scale_ptr, sample, column, inside, scale_stride))
    if HAS_SHIFT:
        y += load_rows(shift_ptr, sample, column, inside, shift_stride)

    store_rows(y_ptr, y, row, column, inside, dim)
    tl.store(mean_ptr + row, mean, mask=row < rows)
    tl.store(inverse_ptr + row, inverse, mask=row < rows)


@jit
def _backward_kernel(
    grad_ptr, x_ptr, scale_ptr, mean_ptr, inverse_ptr, grad_x_ptr, partial_scale_ptr, partial_shift_ptr,
    tokens, dim, grad_stride, x_stride, scale_stride,
    HAS_SHIFT: tl.constexpr, CENTER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    # A program sees tokens of one sample, and sums the gradients of its scale and shift over them.
    sample = tl.cast(tl.program_id(0), tl.int64)
    first, last = sample * tokens, (sample + 1) * tokens
    column = tl.arange(0, COLUMNS)
    factor = 1.0 + load_vector(scale_ptr + sample * scale_stride, column, dim, 0.0, True, COLUMNS)
    grad_scale = tl.zeros([COLUMNS], tl.float32)
    grad_shift = tl.zeros([COLUMNS], tl.float32)

    for block in range(tl.program_id(1), tl.cdiv(tokens, ROWS), tl.num_programs(1)):
        row = first + tl.cast(block, tl.int64) * ROWS + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & (column < dim)[None, :]
        grad = load_rows(grad_ptr, row, column, inside, grad_stride)
        normalized, inverse = load_normalized(x_ptr, mean_ptr, inverse_ptr, row, column, inside, x_stride, last)
        grad_x = normalize_rows_backward(grad * factor[None, :], normalized, inverse, dim, CENTER)
        store_rows(grad_x_ptr, grad_x, row, column, inside, dim)
        grad_scale += tl.sum(grad * normalized, axis=0)
        grad_shift += tl.sum(grad, axis=0)

    offset = (sample * tl.num_programs(1) + tl.program_id(1)) * dim + column
    tl.store(partial_scale_ptr + offset, grad_scale, mask=column < dim)
    if HAS_SHIFT:
        tl.store(partial_shift_ptr + offset, grad_shift, mask=column < dim)


def _forward_fake(
    x: Tensor, scale: Tensor, shift: Tensor | None, eps: float, center: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), *new_statistics(x)


@operator("modulate", fake=_forward_fake)
def _forward(x: Tensor, scale: Tensor, shift: Tensor | None, eps: float, center: bool) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, inverse = _forward_fake(x, scale, shift, eps, center)
    if x.numel():
        rows, scale, shift = as_rows(x), as_rows(scale), None if shift is None else as_rows(shift)
        blocks = row_blocks(x.shape[-1])
        _forward_kernel[(cdiv(len(rows), blocks["ROWS"]),)](
            rows, scale, shift, y, mean, inverse, len(rows), len(rows) // len(x), x.shape[-1],
            rows.stride(0), scale.stride(0), 0 if shift is None else shift.stride(0), eps,
            HAS_SHIFT=shift is not None, CENTER=center, **blocks,
        )  # fmt: skip
    return y, mean, inverse


def _backward_fake(
    grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor | None, mean: Tensor, inverse: Tensor, center: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), scale.new_empty(scale.shape), new_gradient(shift, x)


@operator("modulate_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor | None, mean: Tensor, inverse: Tensor, center: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, dim = len(x), x[..., 0].numel() // max(1, len(x)), x.shape[-1]
    blocks = row_blocks(dim)
    # As many programs as run at once, shared among the samples.
    splits = min(cdiv(tokens, blocks["ROWS"]), cdiv(2 * processor_count(x.device), max(1, batch)))
    grad_x = x.new_empty(x.shape)
    partial_scale = x.new_empty((batch, splits, dim), dtype=torch.float32)
    partial_shift = x.new_empty((batch if shift is not None else 0, splits, dim), dtype=torch.float32)
    if x.numel():
        grad, x, rows = as_rows(grad), as_rows(x), as_rows(scale)
        _backward_kernel[(batch, splits)](
            grad, x, rows, mean, inverse, grad_x, partial_scale, partial_shift,
            tokens, dim, grad.stride(0), x.stride(0), rows.stride(0),
            HAS_SHIFT=shift is not None, CENTER=center, **blocks,
        )  # fmt: skip
    grad_shift = x.new_empty(0, dtype=torch.float32) if shift is None else partial_shift.sum(1).to(shift.dtype)
    return grad_x, partial_scale.sum(1).to(scale.dtype), grad_shift


def _save_for_backward(ctx, inputs, output):
    x, scale, shift, _, ctx.center = inputs
    ctx.save_for_backward(x, scale, shift, *output[1:])


def _gradient(ctx, grad, *_):
    _, _, shift, _, _ = saved = ctx.saved_tensors
    grad_x, grad_scale, grad_shift = _backward(grad, *saved, ctx.center)
    return grad_x, grad_scale, None if shift is None else grad_shift, None, None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _modulate_triton(
    x: Tensor, scale: Tensor, shift: Tensor | None = None, eps: float = 1e-6, kind: NormKind = "layer"
) -> Tensor:
    return _forward(x, scale, shift, eps, kind == "layer")[0]


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("modulate", modulate_reference, modulate_torch, _modulate_triton, refuse_long_rows)


def modulate(
    x: Float[Tensor, "batch *grid dim"],
    scale: Float[Tensor, "batch dim"],
    shift: Float[Tensor, "batch dim"] | None = None,
    eps: float = 1e-6,
    *,
    kind: NormKind = "layer",
    backend: str | None = None,
) -> Float[Tensor, "batch *grid dim"]:
    """Normalize, then scale and shift each sample by its own vectors: normalize(x) * (1 + scale) + shift.

    x (batch, *grid, dim), scale and shift (batch, dim), shift or None; `kind` is "layer" or "rms". Computed in float32,
    returned in the dtype of x. Raises ValueError if a shape does not fit, for another kind, or for a backend
    ("reference", "torch", "triton") that cannot serve the call.

    Scalable Diffusion Models with Transformers, arXiv 2212.09748.
    """
    for name, vectors in (("scale", scale), ("shift", shift)):
        if vectors is not None and vectors.shape != (len(x), x.shape[-1]):
            raise ValueError(
                f"modulate: {name} has shape {tuple(vectors.shape)}, x {tuple(x.shape)}; "
                f"it must be {(len(x), x.shape[-1])}"
            )
    check_normalization("modulate", x, None, None, kind, 0.0)
    return _BACKENDS.select(backend, x, scale, shift)(x, scale, shift, eps, kind)


def _floor(x: Tensor, **_) -> tuple[Cost, Cost]:
    return Cost(2 * size_in_bytes(x), 7 * x.numel()), Cost(3 * size_in_bytes(x), 14 * x.numel())


def _inputs(random: Sampler, *shape: int, kind: NormKind = "layer", shift: bool = True) -> dict:
    return {
        "x": random.normal(*shape) + 1,
        "scale": random.normal(shape[0], shape[-1]),
        "shift": random.normal(shape[0], shape[-1]) if shift else None,
        "kind": kind,
    }


SPEC = OpSpec(
    function=modulate,
    backends=_BACKENDS,
    cases={
        "one token": lambda random: _inputs(random, 1, 63),
        "short rows": lambda random: _inputs(random, 3, 67, 5),
        "volume": lambda random: _inputs(random, 2, 3, 2, 5, 131, kind="rms"),
        "no shift": lambda random: _inputs(random, 5, 7, 13, shift=False),
        "no tokens": lambda random: _inputs(random, 2, 0, 8),
    },
    large_cases={"wide": lambda random: _inputs(random, 3, 11, 1021)},
    benchmarks={
        "8x256 tokens dim 1152": lambda random: _inputs(random, 8, 256, 1152),
        "56x56 dim 96 rms": lambda random: _inputs(random, 4, 56, 56, 96, kind="rms"),
    },
    differentiable=("x", "scale", "shift"),
    floor=_floor,
    paper="Scalable Diffusion Models with Transformers, arXiv 2212.09748",
)
