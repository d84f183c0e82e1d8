"""What the operations that normalize rows have in common: the formula, its torch form, and pieces of Triton kernels.

    normalized = centered / sqrt(mean(centered^2) + eps)        centered = x - mean(x) for "layer", x for "rms"
    y = normalized * (weight + offset) + bias

over the last dimension. An offset of 1 makes the weight a deviation from one, so that weight decay pulls towards the
plain normalization. Statistics and products are float32 (float64 for float64 inputs).

Papers: Layer Normalization, arXiv 1607.06450; Root Mean Square Layer Normalization, arXiv 1910.07467.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ._runtime import cdiv, jit, next_power_of_2, processor_count, tl
from .rms_norm import rms_norm_torch

NormKind = Literal["rms", "layer"]

MAX_TRITON_DIM = 65536  # a program keeps whole rows in registers


def widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def normalize_reference(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, kind: NormKind, offset: float
) -> Tensor:
    """y by its formula, not yet rounded to the dtype of x."""
    y = widen(x)
    if kind == "layer":
        y = y - y.mean(-1, keepdim=True)
    y = y / torch.sqrt(y.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        y = y * (widen(weight) + offset)
    return y if bias is None else y + widen(bias)


def normalize_torch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, kind: NormKind, offset: float
) -> Tensor:
    """y by torch's fused layer normalization or the torch form of `rms_norm`, not yet rounded to the dtype of x."""
    x = widen(x)
    if weight is not None:
        weight = weight.to(x.dtype) + offset if offset else weight.to(x.dtype)
    if bias is not None:
        bias = bias.to(x.dtype)
    if kind == "layer":
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    y = rms_norm_torch(x, weight, eps)
    return y if bias is None else y + bias


def check_normalization(
    operation: str, x: Tensor, weight: Tensor | None, bias: Tensor | None, kind: NormKind, offset: float
) -> None:
    """Raises ValueError for a weight or bias that does not fit x, an unknown kind, and an offset without a weight."""
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != x.shape[-1:]:
            raise ValueError(
                f"{operation}: {name} has shape {tuple(vector.shape)}, x {tuple(x.shape)}; it must be ({x.shape[-1]},)"
            )
    if kind not in ("rms", "layer"):
        raise ValueError(f"{operation}: kind {kind!r} is unknown; choose 'rms' or 'layer'")
    if offset and weight is None:
        raise ValueError(f"{operation}: offset={offset} is added to the weight, and there is none; pass a weight")


def refuse_long_rows(x: Tensor, *_, **__) -> str | None:
    if x.shape[-1] > MAX_TRITON_DIM:
        return f"dim {x.shape[-1]} is larger than {MAX_TRITON_DIM}"
    return None


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def tile_of_rows(block, rows, dim, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The row numbers (64 bits) and column numbers of a block of whole rows, and which of its elements exist."""
    row = tl.cast(block, tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    return row, column, (row < rows)[:, None] & (column < dim)[None, :]


@jit
def load_rows(pointer, row, column, inside, stride):
    """A tile in float32, zero where nothing exists."""
    return tl.load(pointer + row[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32)


@jit
def store_rows(pointer, tile, row, column, inside, stride):
    tl.store(pointer + row[:, None] * stride + column[None, :], tile.to(pointer.dtype.element_ty), mask=inside)


@jit
def load_vector(pointer, column, dim, default, PRESENT: tl.constexpr, COLUMNS: tl.constexpr):
    """A vector over the columns in float32; `default` everywhere if there is none."""
    vector = tl.full([COLUMNS], default, tl.float32)
    if PRESENT:
        vector = tl.load(pointer + column, mask=column < dim, other=0.0).to(tl.float32)
    return vector


@jit
def load_factor(pointer, column, dim, offset, PRESENT: tl.constexpr, COLUMNS: tl.constexpr):
    """weight + offset, or one if there is no weight."""
    factor = load_vector(pointer, column, dim, 1.0, PRESENT, COLUMNS)
    if PRESENT:
        factor += offset
    return factor


@jit
def normalize_rows(x, inside, dim, eps, CENTER: tl.constexpr, ROWS: tl.constexpr):
    """The rows normalized, with the mean that was subtracted (zero for "rms") and the factor that was multiplied."""
    mean = tl.zeros([ROWS], tl.float32)
    if CENTER:
        mean = tl.sum(x, axis=1) / dim
        x = tl.where(inside, x - mean[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(x * x, axis=1) / dim + eps)
    return x * inverse[:, None], mean, inverse


@jit
def load_normalized(pointer, mean_ptr, inverse_ptr, row, column, inside, stride, rows):
    """The normalized rows again from the saved statistics, and the factor they were multiplied with."""
    mean = tl.load(mean_ptr + row, mask=row < rows, other=0.0)
    inverse = tl.load(inverse_ptr + row, mask=row < rows, other=0.0)
    x = load_rows(pointer, row, column, inside, stride)
    return (x - mean[:, None]) * inverse[:, None], inverse


@jit
def normalize_rows_backward(grad, normalized, inverse, dim, CENTER: tl.constexpr):
    """The gradient of the rows from that of the normalized rows, which must be zero where nothing exists."""
    projection = tl.sum(grad * normalized, axis=1) / dim
    tangential = grad - normalized * projection[:, None]
    if CENTER:
        tangential -= (tl.sum(grad, axis=1) / dim)[:, None]
    return tangential * inverse[:, None]


@jit
def store_partial(pointer, vector, program, column, dim):
    """A program's sum over its rows, in its row of a table (programs, dim)."""
    tl.store(pointer + tl.cast(program, tl.int64) * dim + column, vector, mask=column < dim)


def row_blocks(dim: int) -> dict[str, int]:
    """Whole rows per program, about a thousand elements of them when rows are short."""
    columns = next_power_of_2(dim)
    return {"ROWS": max(1, 1024 // columns), "COLUMNS": columns, "num_warps": min(32, max(4, columns // 512))}


def as_rows(x: Tensor) -> Tensor:
    """x as (rows, dim), without a copy where its last dimension is unit stride and the others are regular."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def contiguous(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.contiguous()


def new_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Where the mean and the reciprocal root mean square of each row go."""
    return x.new_empty(x.shape[:-1], dtype=torch.float32), x.new_empty(x.shape[:-1], dtype=torch.float32)


def backward_programs(rows: Tensor, blocks: dict[str, int]) -> int:
    """As many programs as run at once. Each sums the gradients of the vectors over its rows, and the sum over programs
    then has a fixed order, which atomic additions would not."""
    return min(cdiv(len(rows), blocks["ROWS"]), 2 * processor_count(rows.device))


def new_partial(like: Tensor | None, programs: int, rows: Tensor) -> Tensor:
    """A table of `backward_programs` partial sums of the gradient of a vector, empty if there is no vector."""
    return rows.new_empty((programs if like is not None else 0, rows.shape[-1]), dtype=torch.float32)


def sum_partial(partial: Tensor, like: Tensor | None) -> Tensor:
    """The gradient of the vector `like`; for None, which has none, an empty tensor, since ops return tensors."""
    return partial.new_empty(0) if like is None else partial.sum(0).to(like.dtype)


def new_gradient(like: Tensor | None, x: Tensor) -> Tensor:
    """What `sum_partial` returns, for fake tensors."""
    return x.new_empty(0, dtype=torch.float32) if like is None else like.new_empty(like.shape)
