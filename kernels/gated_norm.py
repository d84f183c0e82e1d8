"""Normalization of a vector, multiplied by the activation of a gate.

    y = (normalize(x) * (weight + offset) + bias) * activation(gate)

where normalize divides by the root mean square ("rms") or standardizes ("layer"), as `rms_norm` and `layer_norm` do.
Shapes: x, gate and y (*batch, dim), weight and bias (dim,) or None. Statistics and products are float32 (float64 for
float64 inputs) whatever the dtypes; y has the dtype of x, each gradient that of its input.

Floor, for R = numel(x) elements of e bytes: the forward reads x and the gate and writes y, 3Re bytes and 10R flops; the
backward reads both and the gradient of y and writes two gradients, 5Re bytes and 25R flops.

Papers: gated linear attention, arXiv 2312.06635, section 4.4; Retentive Network, arXiv 2307.08621, section 2.2.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ._activation import REFERENCE, TORCH, Activation, activate, check_activation
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


def gated_norm_reference(
    x: Float[Tensor, "*batch dim"],
    gate: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    kind: NormKind = "rms",
    activation: Activation = "silu",
    offset: float = 0.0,
) -> Float[Tensor, "*batch dim"]:
    y = normalize_reference(x, weight, bias, eps, kind, offset)
    return (y * REFERENCE[activation](widen(gate))).to(x.dtype)


def gated_norm_torch(
    x: Float[Tensor, "*batch dim"],
    gate: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    kind: NormKind = "rms",
    activation: Activation = "silu",
    offset: float = 0.0,
) -> Float[Tensor, "*batch dim"]:
    y = normalize_torch(x, weight, bias, eps, kind, offset)
    return (y * TORCH[activation](widen(gate))).to(x.dtype)


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _forward_kernel(
    x_ptr, gate_ptr, weight_ptr, bias_ptr, y_ptr, mean_ptr, inverse_ptr, rows, dim, x_stride, gate_stride, eps, offset,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, CENTER: tl.constexpr, ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, column, inside = tile_of_rows(tl.program_id(0), rows, dim, ROWS, COLUMNS)
    x = load_rows(x_ptr, row, column, inside, x_stride)
    normalized, mean, inverse = normalize_rows(x, inside, dim, eps, CENTER, ROWS)
    y = normalized * load_factor(weight_ptr, column, dim, offset, HAS_WEIGHT, COLUMNS)[None, :]
    y += load_vector(bias_ptr, column, dim, 0.0, HAS_BIAS, COLUMNS)[None, :]
    activated, _ = activate(load_rows(gate_ptr, row, column, inside, gate_stride), ACTIVATION)

    store_rows(y_ptr, y * activated, row, column, inside, dim)
    tl.store(mean_ptr + row, mean, mask=row < rows)
    tl.store(inverse_ptr + row, inverse, mask=row < rows)


@jit
def _backward_kernel(
    grad_ptr, x_ptr, gate_ptr, weight_ptr, bias_ptr, mean_ptr, inverse_ptr,
    grad_x_ptr, grad_gate_ptr, partial_weight_ptr, partial_bias_ptr,
    rows, dim, grad_stride, x_stride, gate_stride, offset,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, CENTER: tl.constexpr, ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    factor = load_factor(weight_ptr, column, dim, offset, HAS_WEIGHT, COLUMNS)
    bias = load_vector(bias_ptr, column, dim, 0.0, HAS_BIAS, COLUMNS)
    grad_weight = tl.zeros([COLUMNS], tl.float32)
    grad_bias = tl.zeros([COLUMNS], tl.float32)

    for block in range(program, tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row, _, inside = tile_of_rows(block, rows, dim, ROWS, COLUMNS)
        grad = load_rows(grad_ptr, row, column, inside, grad_stride)
        activated, slope = activate(load_rows(gate_ptr, row, column, inside, gate_stride), ACTIVATION)
        normalized, inverse = load_normalized(x_ptr, mean_ptr, inverse_ptr, row, column, inside, x_stride, rows)

        grad_gate = grad * (normalized * factor[None, :] + bias[None, :]) * slope
        store_rows(grad_gate_ptr, grad_gate, row, column, inside, dim)
        grad *= activated
        grad_x = normalize_rows_backward(grad * factor[None, :], normalized, inverse, dim, CENTER)
        store_rows(grad_x_ptr, grad_x, row, column, inside, dim)
        grad_weight += tl.sum(grad * normalized, axis=0)
        grad_bias += tl.sum(grad, axis=0)

    if HAS_WEIGHT:
        store_partial(partial_weight_ptr, grad_weight, program, column, dim)
    if HAS_BIAS:
        store_partial(partial_bias_ptr, grad_bias, program, column, dim)


def _forward_fake(
    x: Tensor, gate: Tensor, weight: Tensor | None, bias: Tensor | None,
    eps: float, center: bool, activation: str, offset: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape), *new_statistics(x)


@operator("gated_norm", fake=_forward_fake)
def _forward(
    x: Tensor, gate: Tensor, weight: Tensor | None, bias: Tensor | None,
    eps: float, center: bool, activation: str, offset: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    y, mean, inverse = _forward_fake(x, gate, weight, bias, eps, center, activation, offset)
    x, gate, blocks = as_rows(x), as_rows(gate), row_blocks(x.shape[-1])
    if x.numel():
        _forward_kernel[(cdiv(len(x), blocks["ROWS"]),)](
            x, gate, contiguous(weight), contiguous(bias), y, mean, inverse,
            *x.shape, x.stride(0), gate.stride(0), eps, offset,
            HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, CENTER=center, ACTIVATION=activation, **blocks,
        )  # fmt: skip
    return y, mean, inverse


def _backward_fake(
    grad: Tensor, x: Tensor, gate: Tensor, weight: Tensor | None, bias: Tensor | None,
    mean: Tensor, inverse: Tensor, center: bool, activation: str, offset: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape), gate.new_empty(gate.shape), new_gradient(weight, x), new_gradient(bias, x)


@operator("gated_norm_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, x: Tensor, gate: Tensor, weight: Tensor | None, bias: Tensor | None,
    mean: Tensor, inverse: Tensor, center: bool, activation: str, offset: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_x, grad_gate = x.new_empty(x.shape), gate.new_empty(gate.shape)
    grad, x, gate, blocks = as_rows(grad), as_rows(x), as_rows(gate), row_blocks(x.shape[-1])
    programs = backward_programs(x, blocks)
    partial_weight, partial_bias = (new_partial(like, programs, x) for like in (weight, bias))
    if x.numel():
        _backward_kernel[(programs,)](
            grad, x, gate, contiguous(weight), contiguous(bias), mean, inverse,
            grad_x, grad_gate, partial_weight, partial_bias,
            *x.shape, grad.stride(0), x.stride(0), gate.stride(0), offset,
            HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, CENTER=center, ACTIVATION=activation, **blocks,
        )  # fmt: skip
    return grad_x, grad_gate, sum_partial(partial_weight, weight), sum_partial(partial_bias, bias)


def _save_for_backward(ctx, inputs, output):
    x, gate, weight, bias, _, *ctx.settings = inputs
    ctx.save_for_backward(x, gate, weight, bias, *output[1:])


def _gradient(ctx, grad, *_):
    _, _, weight, bias, _, _ = saved = ctx.saved_tensors
    grad_x, grad_gate, grad_weight, grad_bias = _backward(grad, *saved, *ctx.settings)
    grad_weight, grad_bias = None if weight is None else grad_weight, None if bias is None else grad_bias
    return grad_x, grad_gate, grad_weight, grad_bias, None, None, None, None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _gated_norm_triton(
    x: Tensor,
    gate: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
    kind: NormKind = "rms",
    activation: Activation = "silu",
    offset: float = 0.0,
) -> Tensor:
    return _forward(x, gate, weight, bias, eps, kind == "layer", activation, offset)[0]


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("gated_norm", gated_norm_reference, gated_norm_torch, _gated_norm_triton, refuse_long_rows)


def gated_norm(
    x: Float[Tensor, "*batch dim"],
    gate: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, " dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
    eps: float = 1e-6,
    *,
    kind: NormKind = "rms",
    activation: Activation = "silu",
    offset: float = 0.0,
    backend: str | None = None,
) -> Float[Tensor, "*batch dim"]:
    """Normalize and gate: (normalize(x) * (weight + offset) + bias) * activation(gate).

    x and gate (*batch, dim), weight and bias (dim,) or None; `kind` is "rms" or "layer"; `activation` is "silu",
    "sigmoid", "gelu", "gelu_tanh", "relu" or "identity"; `offset` is added to the weight. Computed in float32, returned
    in the dtype of x. Raises ValueError if a shape does not fit, for another kind or activation, an offset without a
    weight, or for a backend ("reference", "torch", "triton") that cannot serve the call.

    Gated Linear Attention Transformers, arXiv 2312.06635, section 4.4; Retentive Network, arXiv 2307.08621.
    """
    if x.shape != gate.shape:
        raise ValueError(f"gated_norm: x has shape {tuple(x.shape)}, gate {tuple(gate.shape)}; they must be the same")
    check_normalization("gated_norm", x, weight, bias, kind, offset)
    check_activation("gated_norm", activation)
    return _BACKENDS.select(backend, x, gate, weight, bias)(x, gate, weight, bias, eps, kind, activation, offset)


def _floor(x: Tensor, gate: Tensor, **_) -> tuple[Cost, Cost]:
    each = size_in_bytes(x)
    both = size_in_bytes(x, gate)
    return Cost(both + each, 10 * x.numel()), Cost(2 * both + each, 25 * x.numel())


def _inputs(random: Sampler, *shape: int, kind: NormKind, weight: bool = True, bias: bool = False, **settings) -> dict:
    return {
        "x": random.normal(*shape) + 1,
        "gate": random.normal(*shape),
        "weight": random.normal(shape[-1]) if weight else None,
        "bias": random.normal(shape[-1]) if bias else None,
        "kind": kind,
        **settings,
    }


SPEC = OpSpec(
    function=gated_norm,
    backends=_BACKENDS,
    cases={
        "one row": lambda random: _inputs(random, 63, kind="rms"),
        "short rows": lambda random: _inputs(random, 3, 67, 5, kind="layer", bias=True, activation="sigmoid"),
        "offset": lambda random: _inputs(random, 2, 5, 131, kind="rms", activation="gelu", offset=1.0),
        "rms, bias alone": lambda random: _inputs(random, 7, 63, kind="rms", weight=False, bias=True),
        "layer, neither": lambda random: _inputs(random, 7, 13, kind="layer", weight=False, activation="identity"),
        "no rows": lambda random: _inputs(random, 0, 8, kind="rms"),
    },
    large_cases={"wide": lambda random: _inputs(random, 33, 1021, kind="rms")},
    benchmarks={
        "4 heads of 64, 2x1024 tokens rms": lambda random: _inputs(random, 2, 1024, 4, 64, kind="rms"),
        "4096 tokens dim 768 layer": lambda random: _inputs(random, 4096, 768, kind="layer", bias=True),
    },
    differentiable=("x", "gate", "weight", "bias"),
    # torch sums the gradients of weight and bias over the rows one after the other.
    tolerances={"torch": {torch.float32: 4e-6}},
    floor=_floor,
    paper="Gated Linear Attention Transformers, arXiv 2312.06635",
)
