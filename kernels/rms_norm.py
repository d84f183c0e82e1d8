"""Root mean square normalization of the last dimension.

    y = x / sqrt(mean(x^2) + eps) * weight

Shapes: x (*batch, dim), weight (dim,) or None, y like x. Statistics and products are float32 (float64 for float64
inputs) whatever the dtype of x; y has the dtype of x, each gradient that of its input.

Floor, for R = numel(x) elements of e bytes: the forward reads x and writes y, 2Re bytes and 4R flops; the backward
reads x and the gradient of y and writes that of x, 3Re bytes and 10R flops.

Paper: Root Mean Square Layer Normalization, arXiv 1910.07467.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ._runtime import Backends, cdiv, jit, next_power_of_2, operator, processor_count, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes

MAX_TRITON_DIM = 65536  # a program keeps whole rows in registers


def rms_norm_reference(
    x: Float[Tensor, "*batch dim"], weight: Float[Tensor, " dim"] | None = None, eps: float = 1e-6
) -> Float[Tensor, "*batch dim"]:
    wide = _widen(x)
    y = wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (y if weight is None else y * weight).to(x.dtype)


def rms_norm_torch(
    x: Float[Tensor, "*batch dim"], weight: Float[Tensor, " dim"] | None = None, eps: float = 1e-6
) -> Float[Tensor, "*batch dim"]:
    # vector_norm reduces without writing the squares to memory, in the forward and in the backward.
    wide = _widen(x)
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    y = wide * torch.rsqrt(norm.square() / x.shape[-1] + eps)
    return (y if weight is None else y * weight).to(x.dtype)


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _forward_kernel(
    x_ptr, weight_ptr, y_ptr, inverse_rms_ptr, rows, dim, x_stride, eps,
    HAS_WEIGHT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.cast(tl.program_id(0), tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < dim)[None, :]

    x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    inverse_rms = tl.rsqrt(tl.sum(x * x, axis=1) / dim + eps)
    y = x * inverse_rms[:, None]
    if HAS_WEIGHT:
        y *= tl.load(weight_ptr + column, mask=column < dim, other=0.0).to(tl.float32)[None, :]

    tl.store(y_ptr + row[:, None] * dim + column[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(inverse_rms_ptr + row, inverse_rms, mask=row < rows)


@jit
def _backward_kernel(
    grad_ptr, x_ptr, weight_ptr, inverse_rms_ptr, grad_x_ptr, partial_ptr, rows, dim, grad_stride, x_stride,
    HAS_WEIGHT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    weight = tl.full([COLUMNS], 1.0, tl.float32)
    if HAS_WEIGHT:
        weight = tl.load(weight_ptr + column, mask=column < dim, other=0.0).to(tl.float32)
    grad_weight = tl.zeros([COLUMNS], tl.float32)

    for block in range(program, tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = tl.cast(block, tl.int64) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < dim)[None, :]
        x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row[:, None] * grad_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        inverse_rms = tl.load(inverse_rms_ptr + row, mask=row < rows, other=0.0)[:, None]

        normalized = x * inverse_rms
        weighted = grad * weight[None, :]
        projection = tl.sum(weighted * normalized, axis=1)[:, None] / dim
        grad_x = (weighted - normalized * projection) * inverse_rms
        tl.store(grad_x_ptr + row[:, None] * dim + column[None, :], grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)
        grad_weight += tl.sum(grad * normalized, axis=0)

    if HAS_WEIGHT:
        offset = tl.cast(program, tl.int64) * dim + column
        tl.store(partial_ptr + offset, grad_weight, mask=column < dim)


def _blocks(dim: int) -> dict[str, int]:
    """Whole rows per program, about a thousand elements of them when rows are short."""
    columns = next_power_of_2(dim)
    warps = min(32, max(4, columns // 512))
    return {"ROWS": max(1, 1024 // columns), "COLUMNS": columns, "num_warps": warps}


def _as_rows(x: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _forward_fake(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:-1], dtype=torch.float32)


@operator("rms_norm", fake=_forward_fake)
def _forward(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    rows = _as_rows(x)
    y, inverse_rms = _forward_fake(x, weight, eps)
    if x.numel():
        blocks = _blocks(x.shape[-1])
        _forward_kernel[(cdiv(len(rows), blocks["ROWS"]),)](
            rows, None if weight is None else weight.contiguous(), y, inverse_rms, *rows.shape, rows.stride(0), eps,
            HAS_WEIGHT=weight is not None, **blocks,
        )  # fmt: skip
    return y, inverse_rms


def _backward_fake(grad: Tensor, x: Tensor, weight: Tensor | None, inverse_rms: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0) if weight is None else weight.new_empty(weight.shape)


@operator("rms_norm_backward", fake=_backward_fake)
def _backward(grad: Tensor, x: Tensor, weight: Tensor | None, inverse_rms: Tensor) -> tuple[Tensor, Tensor]:
    rows, grad_rows = _as_rows(x), _as_rows(grad)
    grad_x, grad_weight = _backward_fake(grad, x, weight, inverse_rms)
    blocks = _blocks(x.shape[-1])
    programs = min(cdiv(len(rows), blocks["ROWS"]), 2 * processor_count(x.device))
    # Each program sums the weight's gradient over its rows; the sum over programs then has a fixed order, which atomic
    # additions would not.
    partial = x.new_empty((programs if weight is not None else 0, x.shape[-1]), dtype=torch.float32)
    if x.numel():
        _backward_kernel[(programs,)](
            grad_rows, rows, None if weight is None else weight.contiguous(), inverse_rms, grad_x, partial,
            *rows.shape, grad_rows.stride(0), rows.stride(0), HAS_WEIGHT=weight is not None, **blocks,
        )  # fmt: skip
    return grad_x, grad_weight if weight is None else partial.sum(0).to(weight.dtype)


def _save_for_backward(ctx, inputs, output):
    x, weight, _ = inputs
    _, inverse_rms = output
    ctx.save_for_backward(x, weight, inverse_rms)


def _gradient(ctx, grad, _):
    x, weight, inverse_rms = ctx.saved_tensors
    grad_x, grad_weight = _backward(grad, x, weight, inverse_rms)
    return grad_x, None if weight is None else grad_weight, None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _rms_norm_triton(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    return _forward(x, weight, eps)[0]


def _triton_refuses(x: Tensor, *_, **__) -> str | None:
    if x.shape[-1] > MAX_TRITON_DIM:
        return f"dim {x.shape[-1]} is larger than {MAX_TRITON_DIM}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("rms_norm", rms_norm_reference, rms_norm_torch, _rms_norm_triton, _triton_refuses)


def rms_norm(
    x: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    *,
    backend: str | None = None,
) -> Float[Tensor, "*batch dim"]:
    """Divide each vector by its root mean square: x / sqrt(mean(x^2) + eps) * weight.

    x (*batch, dim), weight (dim,) or None; computed in float32, returned in the dtype of x. Raises ValueError if the
    weight does not fit x, or for a backend ("reference", "torch", "triton") that cannot serve the call.

    Root Mean Square Layer Normalization, arXiv 1910.07467.
    """
    if weight is not None and weight.shape != x.shape[-1:]:
        raise ValueError(
            f"rms_norm: weight has shape {tuple(weight.shape)}, x {tuple(x.shape)}; weight must be ({x.shape[-1]},)"
        )
    return _BACKENDS.select(backend, x, weight)(x, weight, eps)


def _floor(x: Tensor, **_) -> tuple[Cost, Cost]:
    return Cost(2 * size_in_bytes(x), 4 * x.numel()), Cost(3 * size_in_bytes(x), 10 * x.numel())


def _inputs(random: Sampler, *shape: int, weight: bool = True) -> dict:
    return {"x": random.normal(*shape), "weight": random.normal(shape[-1]) if weight else None}


SPEC = OpSpec(
    function=rms_norm,
    backends=_BACKENDS,
    cases={
        "prime": lambda random: _inputs(random, 2, 5, 131),
        "one row": lambda random: _inputs(random, 63),
        "short rows": lambda random: _inputs(random, 3, 67, 5),
        "one element": lambda random: {**_inputs(random, 1, 1), "eps": 0.5},
        "no weight": lambda random: _inputs(random, 7, 63, weight=False),
        "no rows": lambda random: _inputs(random, 0, 8),
    },
    large_cases={"wide": lambda random: _inputs(random, 33, 1021)},
    benchmarks={
        "56x56 dim 96": lambda random: _inputs(random, 4, 56, 56, 96),
        "8192 tokens dim 768": lambda random: _inputs(random, 8192, 768),
    },
    differentiable=("x", "weight"),
    floor=_floor,
    paper="Root Mean Square Layer Normalization, arXiv 1910.07467",
)
