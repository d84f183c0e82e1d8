"""Gated linear unit: a value times the activation of a gate.

    y = activation(gate) * value

with "silu" (SwiGLU), "gelu" (GeGLU), "relu" (ReGLU), "sigmoid" (the original unit), "identity" (bilinear) and
"gelu_tanh". Shapes: gate, value and y (*batch, dim); or both packed in one tensor (*batch, 2 dim), the gate first,
which is read, and whose gradient is written, in place of two tensors without a copy.

The kernel computes in float32; y has the dtype of the value, each gradient that of its input.

Floor, for R = numel(y) elements of e bytes: the forward reads both and writes y, 3Re bytes and 5R flops; the backward
reads both and the gradient of y and writes two gradients, 5Re bytes and 10R flops.

Papers: Language Modeling with Gated Convolutional Networks, arXiv 1612.08083; GLU Variants Improve Transformer, arXiv
2002.05202.
"""

from jaxtyping import Float
from torch import Tensor

from ._activation import REFERENCE, TORCH, Activation, activate, check_activation
from ._normalization import as_rows, load_rows, store_rows, widen
from ._runtime import Backends, cdiv, jit, next_power_of_2, operator, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes


def glu_reference(
    gate: Float[Tensor, "*batch gate_dim"],
    value: Float[Tensor, "*batch dim"] | None = None,
    activation: Activation = "silu",
) -> Float[Tensor, "*batch dim"]:
    gate, value = _split(gate, value)
    return (REFERENCE[activation](widen(gate)) * widen(value)).to(value.dtype)


def glu_torch(
    gate: Float[Tensor, "*batch gate_dim"],
    value: Float[Tensor, "*batch dim"] | None = None,
    activation: Activation = "silu",
) -> Float[Tensor, "*batch dim"]:
    gate, value = _split(gate, value)
    return (TORCH[activation](gate) * value).to(value.dtype)


def _split(gate: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor]:
    return gate.chunk(2, -1) if value is None else (gate, value)


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _tile(rows, dim, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.cast(tl.program_id(0), tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    return row, column, (row < rows)[:, None] & (column < dim)[None, :]


@jit
def _forward_kernel(
    gate_ptr, value_ptr, y_ptr, rows, dim, gate_stride, value_stride,
    ACTIVATION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, column, inside = _tile(rows, dim, ROWS, COLUMNS)
    activated, _ = activate(load_rows(gate_ptr, row, column, inside, gate_stride), ACTIVATION)
    value = load_rows(value_ptr, row, column, inside, value_stride)
    store_rows(y_ptr, activated * value, row, column, inside, dim)


@jit
def _backward_kernel(
    grad_ptr, gate_ptr, value_ptr, grad_gate_ptr, grad_value_ptr, rows, dim,
    grad_stride, gate_stride, value_stride, grad_gate_stride, grad_value_stride,
    ACTIVATION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, column, inside = _tile(rows, dim, ROWS, COLUMNS)
    grad = load_rows(grad_ptr, row, column, inside, grad_stride)
    activated, slope = activate(load_rows(gate_ptr, row, column, inside, gate_stride), ACTIVATION)
    value = load_rows(value_ptr, row, column, inside, value_stride)
    store_rows(grad_gate_ptr, grad * value * slope, row, column, inside, grad_gate_stride)
    store_rows(grad_value_ptr, grad * activated, row, column, inside, grad_value_stride)


def _launch(rows: int, dim: int) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid and the blocks: about two thousand elements a program."""
    columns = min(1024, next_power_of_2(dim))
    blocks = {"ROWS": 2048 // columns, "COLUMNS": columns, "num_warps": 4}
    return (cdiv(rows, blocks["ROWS"]), cdiv(dim, columns)), blocks


def _halves(gate: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gate and value as rows; of a packed tensor, views."""
    return _split(as_rows(gate), None if value is None else as_rows(value))


def _forward_fake(gate: Tensor, value: Tensor | None, activation: str) -> Tensor:
    if value is None:
        return gate.new_empty((*gate.shape[:-1], gate.shape[-1] // 2))
    return value.new_empty(value.shape)


@operator("glu", fake=_forward_fake)
def _forward(gate: Tensor, value: Tensor | None, activation: str) -> Tensor:
    y = _forward_fake(gate, value, activation)
    if y.numel():
        gate, value = _halves(gate, value)
        grid, blocks = _launch(*value.shape)
        _forward_kernel[grid](
            gate, value, y, *value.shape, gate.stride(0), value.stride(0), ACTIVATION=activation, **blocks
        )
    return y


def _backward_fake(grad: Tensor, gate: Tensor, value: Tensor | None, activation: str) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), gate.new_empty(0) if value is None else value.new_empty(value.shape)


@operator("glu_backward", fake=_backward_fake)
def _backward(grad: Tensor, gate: Tensor, value: Tensor | None, activation: str) -> tuple[Tensor, Tensor]:
    grad_gate, grad_value = _backward_fake(grad, gate, value, activation)
    if grad.numel():
        # The halves of a packed gradient are written where they belong.
        targets = _halves(grad_gate, None if value is None else grad_value)
        grad, (gate, value) = as_rows(grad), _halves(gate, value)
        grid, blocks = _launch(*value.shape)
        strides = (tensor.stride(0) for tensor in (grad, gate, value, *targets))
        _backward_kernel[grid](grad, gate, value, *targets, *value.shape, *strides, ACTIVATION=activation, **blocks)
    return grad_gate, grad_value


def _save_for_backward(ctx, inputs, output):
    gate, value, ctx.activation = inputs
    ctx.save_for_backward(gate, value)


def _gradient(ctx, grad):
    gate, value = ctx.saved_tensors
    grad_gate, grad_value = _backward(grad, gate, value, ctx.activation)
    return grad_gate, None if value is None else grad_value, None


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _glu_triton(gate: Tensor, value: Tensor | None = None, activation: Activation = "silu") -> Tensor:
    return _forward(gate, value, activation)


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("glu", glu_reference, glu_torch, _glu_triton)


def glu(
    gate: Float[Tensor, "*batch gate_dim"],
    value: Float[Tensor, "*batch dim"] | None = None,
    activation: Activation = "silu",
    *,
    backend: str | None = None,
) -> Float[Tensor, "*batch dim"]:
    """Multiply a value by the activation of a gate: activation(gate) * value.

    gate and value (*batch, dim), or, with value None, both packed in `gate` (*batch, 2 dim), the gate first; returned
    in the dtype of the value. `activation` is "silu" (SwiGLU), "gelu" (GeGLU), "relu" (ReGLU), "sigmoid", "identity"
    (bilinear) or "gelu_tanh". Raises ValueError if the shapes do not fit, for another activation, or for a backend
    ("reference", "torch", "triton") that cannot serve the call.

    GLU Variants Improve Transformer, arXiv 2002.05202.
    """
    check_activation("glu", activation)
    if value is None and gate.shape[-1] % 2:
        raise ValueError(f"glu: gate and value packed in one tensor need an even last dimension; got {gate.shape[-1]}")
    if value is not None and value.shape != gate.shape:
        raise ValueError(f"glu: gate has shape {tuple(gate.shape)}, value {tuple(value.shape)}; they must be the same")
    return _BACKENDS.select(backend, gate, value, activation)(gate, value, activation)


def _floor(gate: Tensor, value: Tensor | None, **_) -> tuple[Cost, Cost]:
    both = size_in_bytes(gate, value)
    elements = gate.numel() // (2 if value is None else 1)
    return Cost(both * 1.5, 5 * elements), Cost(both * 2.5, 10 * elements)


def _inputs(random: Sampler, *shape: int, activation: Activation) -> dict:
    return {"gate": random.normal(*shape), "value": random.normal(*shape), "activation": activation}


def _packed(random: Sampler, *shape: int, activation: Activation) -> dict:
    packed = random.normal(*shape[:-1], 2 * shape[-1])
    return {"gate": packed, "value": None, "activation": activation}


SPEC = OpSpec(
    function=glu,
    backends=_BACKENDS,
    cases={
        "one element": lambda random: _inputs(random, 1, activation="silu"),
        "silu packed": lambda random: _packed(random, 3, 67, 5, activation="silu"),
        "gelu packed": lambda random: _packed(random, 2, 63, activation="gelu"),
        "gelu_tanh": lambda random: _inputs(random, 5, 31, activation="gelu_tanh"),
        "relu": lambda random: _inputs(random, 2, 1031, activation="relu"),
        "sigmoid": lambda random: _inputs(random, 2, 3, 17, activation="sigmoid"),
        "identity packed": lambda random: _packed(random, 7, 13, activation="identity"),
        "far gates": lambda random: {
            **_inputs(random, 3, 37, activation="silu"),
            "gate": random.normal(3, 37, scale=99.0),
        },
        "no rows": lambda random: _packed(random, 0, 8, activation="silu"),
    },
    large_cases={"wide": lambda random: _packed(random, 33, 1021, activation="silu")},
    benchmarks={
        "56x56 dim 256": lambda random: _packed(random, 4, 56, 56, 256, activation="silu"),
        "1024 tokens dim 2048": lambda random: _packed(random, 1024, 2048, activation="gelu"),
    },
    differentiable=("gate", "value"),
    floor=_floor,
    paper="GLU Variants Improve Transformer, arXiv 2002.05202",
)
