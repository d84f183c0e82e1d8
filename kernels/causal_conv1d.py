"""Short causal convolution along a sequence, each channel by itself.

    y_t = activation(b + sum_j w_j x_{t-W+1+j}),    j = 0 ... W - 1

with "silu" or no activation. Shapes: x (batch, time, dim), weight (dim, W), bias (dim,) or None, initial_state (batch,
W - 1, dim), the tokens before the first, or None for zeros. Returns y in the dtype of x, and the last W - 1 tokens as
the state, in float32. Products and sums are float32 (float64 for float64 inputs).

With p_t the gradient of what the activation is applied to, the backward is the same convolution towards the past,

    dx_s = sum_j w_j p_{s+W-1-j},    dw_j = sum_t p_t x_{t-W+1+j},    db = sum_t p_t

Floor, for R = numel(x) elements of e bytes: the forward reads x and writes y, 2Re bytes and 2RW flops; the backward
reads x and the gradient of y and writes one gradient, 3Re bytes and 4RW flops, or 6RW where it computes what the
activation was applied to again.

Paper: Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv 2312.00752, section 3.4.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._chunks import store_tile
from ._runtime import INTERPRETING, Backends, cdiv, jit, next_power_of_2, operator, processor_count, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes
from .linear_scan import unit_stride

MAX_TRITON_WIDTH = 8  # taps are unrolled, in the backward each with each


def causal_conv1d_reference(
    x: Float[Tensor, "batch time dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"] | None,
    activation: Literal["silu"] | None,
    initial_state: Float[Tensor, "batch past dim"] | None,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch past dim"]]:
    tokens, weight, bias = _widen(x, weight, bias, initial_state)
    time = x.shape[1]
    y = sum(tokens[:, j : j + time] * tap for j, tap in enumerate(weight.unbind(1)))
    y = y if bias is None else y + bias
    return _activate(y, activation).to(x.dtype), tokens[:, time:]


def causal_conv1d_torch(
    x: Float[Tensor, "batch time dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"] | None,
    activation: Literal["silu"] | None,
    initial_state: Float[Tensor, "batch past dim"] | None,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch past dim"]]:
    tokens, weight, bias = _widen(x, weight, bias, initial_state)
    y = _Convolution.apply(tokens, weight)
    y = y if bias is None else y + bias
    # A copy, so that a state kept for later does not keep the sequence in memory.
    return _activate(y, activation).to(x.dtype), tokens[:, x.shape[1] :].clone()


def _widen(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """In float32 or more: the tokens with those before them, the weights, and the bias."""
    dtype, past = torch.promote_types(x.dtype, torch.float32), weight.shape[1] - 1
    if initial_state is None:
        tokens = F.pad(x.to(dtype), (0, 0, past, 0))
    else:
        tokens = torch.cat([initial_state.to(dtype), x.to(dtype)], 1)
    return tokens, weight.to(dtype), None if bias is None else bias.to(dtype)


def _activate(y: Tensor, activation: str | None) -> Tensor:
    return F.silu(y) if activation == "silu" else y


class _Convolution(torch.autograd.Function):
    """sum_j w_j x_{t+j}. The backward that autograd derives would fill a tensor of zeros for each tap."""

    @staticmethod
    def forward(ctx, tokens, weight):
        ctx.save_for_backward(tokens, weight)
        return _add_shifted(tokens, weight.unbind(1))

    @staticmethod
    def backward(ctx, grad):
        tokens, weight = ctx.saved_tensors
        time, width = grad.shape[1], weight.shape[1]
        grad_tokens = _add_shifted(F.pad(grad, (0, 0, width - 1, width - 1)), weight.unbind(1)[::-1])
        grad_taps = [(grad * tokens[:, j : j + time]).sum((0, 1)) for j in range(width)]
        return grad_tokens, torch.stack(grad_taps, 1)


def _add_shifted(tokens: Tensor, taps: tuple[Tensor, ...]) -> Tensor:
    time = tokens.shape[1] - len(taps) + 1
    y = tokens[:, :time] * taps[0]
    for j, tap in enumerate(taps[1:], 1):
        y = y.addcmul_(tokens[:, j : j + time], tap)
    return y


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _load_tokens(x_ptr, initial_ptr, row, x_time, time, channel, dim, HAS_INITIAL: tl.constexpr, WIDTH: tl.constexpr):
    """Tokens in float32; of rows below zero, those of the state; zero outside of both."""
    real = (channel < dim)[None, :]
    inside = ((row >= 0) & (row < time))[:, None] & real
    tile = tl.load(x_ptr + row[:, None] * x_time + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    if HAS_INITIAL:
        before = ((row < 0) & (row > -WIDTH))[:, None] & real
        offset = (row[:, None] + WIDTH - 1) * dim + channel[None, :]
        tile += tl.load(initial_ptr + offset, mask=before, other=0.0).to(tl.float32)
    return tile


@jit
def _convolve(
    x_ptr, initial_ptr, weight_ptr, bias_ptr, row, x_time, time, channel, dim,
    HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """What the activation is applied to, at any rows."""
    y = tl.zeros([ROWS, CHANNELS], tl.float32)
    if HAS_BIAS:
        y += tl.load(bias_ptr + channel, mask=channel < dim, other=0.0).to(tl.float32)[None, :]
    for j in tl.static_range(WIDTH):
        tap = tl.load(weight_ptr + channel * WIDTH + j, mask=channel < dim, other=0.0).to(tl.float32)
        token = row + (j - WIDTH + 1)
        y += tap[None, :] * _load_tokens(
            x_ptr, initial_ptr, token, x_time, time, channel, dim, HAS_INITIAL=HAS_INITIAL, WIDTH=WIDTH
        )
    return y


@jit(do_not_specialize=("time", "tiles"))
def _forward_kernel(
    x_ptr, weight_ptr, bias_ptr, initial_ptr, y_ptr, time, tiles, dim, x_batch, x_time,
    SILU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    index = tl.cast(tl.program_id(0), tl.int64)
    batch, row = index // tiles, (index % tiles) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    y = _convolve(
        x_ptr + batch * x_batch, initial_ptr + batch * (WIDTH - 1) * dim if HAS_INITIAL else initial_ptr, weight_ptr,
        bias_ptr, row, x_time, time, channel, dim,
        HAS_BIAS=HAS_BIAS, HAS_INITIAL=HAS_INITIAL, WIDTH=WIDTH, ROWS=ROWS, CHANNELS=CHANNELS,
    )  # fmt: skip
    if SILU:
        y *= tl.sigmoid(y)
    store_tile(y_ptr + batch * time * dim, row, dim, time, channel, dim, y)


@jit(do_not_specialize=("time", "tiles", "all_tiles"))
def _backward_kernel(
    grad_ptr, x_ptr, weight_ptr, bias_ptr, initial_ptr, grad_x_ptr, grad_weight_ptr, grad_bias_ptr, grad_initial_ptr,
    time, tiles, all_tiles, dim, grad_batch, grad_time, x_batch, x_time,
    SILU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, WIDTH: tl.constexpr, TAPS: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real, which = channel < dim, tl.arange(0, TAPS)
    grad_weight = tl.zeros([TAPS, CHANNELS], tl.float32)
    grad_bias = tl.zeros([CHANNELS], tl.float32)
    # Each program walks over tiles of all samples, and keeps one sum for the weights.
    for index in range(group, all_tiles, tl.num_programs(0)):
        batch = tl.cast(index, tl.int64) // tiles
        # Rows below zero are the tokens of the initial state.
        row = (tl.cast(index, tl.int64) % tiles) * ROWS + tl.arange(0, ROWS) - (WIDTH - 1)
        x_start = x_ptr + batch * x_batch
        initial_start = initial_ptr + batch * (WIDTH - 1) * dim if HAS_INITIAL else initial_ptr
        grad_x = tl.zeros([ROWS, CHANNELS], tl.float32)
        for ahead in tl.static_range(WIDTH):
            seen = row + ahead
            inside = ((seen >= 0) & (seen < time))[:, None] & real[None, :]
            offset = batch * grad_batch + seen[:, None] * grad_time + channel[None, :]
            grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32)
            if SILU:
                y = _convolve(
                    x_start, initial_start, weight_ptr, bias_ptr, seen, x_time, time, channel, dim,
                    HAS_BIAS=HAS_BIAS, HAS_INITIAL=HAS_INITIAL, WIDTH=WIDTH, ROWS=ROWS, CHANNELS=CHANNELS,
                )  # fmt: skip
                sigmoid = tl.sigmoid(y)
                grad *= sigmoid * (1.0 + y * (1.0 - sigmoid))
            tap = tl.load(weight_ptr + channel * WIDTH + (WIDTH - 1 - ahead), mask=real, other=0.0).to(tl.float32)
            grad_x += tap[None, :] * grad
            if ahead == 0:
                grad_bias += tl.sum(grad, axis=0)
                for j in tl.static_range(WIDTH):
                    token = row + (j - WIDTH + 1)
                    x = _load_tokens(
                        x_start, initial_start, token, x_time, time, channel, dim, HAS_INITIAL=HAS_INITIAL, WIDTH=WIDTH
                    )
                    grad_weight += tl.where((which == j)[:, None], tl.sum(grad * x, axis=0)[None, :], 0.0)
        offset = (batch * time + row[:, None]) * dim + channel[None, :]
        inside = ((row >= 0) & (row < time))[:, None] & real[None, :]
        tl.store(grad_x_ptr + offset, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)
        if HAS_INITIAL:
            offset = (batch * (WIDTH - 1) + row[:, None] + (WIDTH - 1)) * dim + channel[None, :]
            before = (row < 0)[:, None] & real[None, :]
            tl.store(grad_initial_ptr + offset, grad_x.to(grad_initial_ptr.dtype.element_ty), mask=before)
    place = tl.cast(group, tl.int64) * dim + channel
    tl.store(grad_bias_ptr + place, grad_bias, mask=real)
    offset = place[None, :] * WIDTH + which[:, None]
    tl.store(grad_weight_ptr + offset, grad_weight, mask=(which < WIDTH)[:, None] & real[None, :])


def _blocks(dim: int) -> dict[str, int]:
    """Tiles of 2048 elements, 16 for each thread of 4 warps."""
    channels = min(64, next_power_of_2(dim))
    # The interpreter gets several tiles out of few steps.
    return {"ROWS": 8 if INTERPRETING else 2048 // channels, "CHANNELS": channels, "num_warps": 4}


def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, initial: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


@operator("causal_conv1d", fake=_forward_fake)
def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, initial: Tensor | None) -> Tensor:
    y = _forward_fake(x, weight, bias, silu, initial)
    if y.numel():
        x, (weight, bias, initial) = unit_stride(x), map(_contiguous, (weight, bias, initial))
        (batch, time, dim), blocks = x.shape, _blocks(x.shape[2])
        tiles = cdiv(time, blocks["ROWS"])
        _forward_kernel[(batch * tiles, cdiv(dim, blocks["CHANNELS"]))](
            x, weight, bias, initial, y, time, tiles, dim, *x.stride()[:2],
            SILU=silu, HAS_BIAS=bias is not None, HAS_INITIAL=initial is not None, WIDTH=weight.shape[1], **blocks,
        )  # fmt: skip
    return y


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, initial: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = (x, weight, bias, initial)
    return tuple(x.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape) for tensor in inputs)


@operator("causal_conv1d_backward", fake=_backward_fake)
def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, initial: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_x, grad_weight, grad_bias, grad_initial = _backward_fake(grad, x, weight, bias, silu, initial)
    grad, x = unit_stride(grad), unit_stride(x)
    weight, bias, initial = map(_contiguous, (weight, bias, initial))
    (batch, time, dim), width, blocks = x.shape, weight.shape[1], _blocks(x.shape[2])
    tiles, columns = cdiv(time + width - 1, blocks["ROWS"]), cdiv(dim, blocks["CHANNELS"])
    groups = max(1, min(batch * tiles, cdiv(4 * processor_count(x.device), max(1, columns))))
    partial_weight = x.new_empty((groups, dim, width), dtype=torch.float32)
    partial_bias = x.new_empty((groups, dim), dtype=torch.float32)
    _backward_kernel[(groups, columns)](
        grad, x, weight, bias, initial, grad_x, partial_weight, partial_bias, grad_initial,
        time, tiles, batch * tiles, dim, *grad.stride()[:2], *x.stride()[:2],
        SILU=silu, HAS_BIAS=bias is not None, HAS_INITIAL=initial is not None, WIDTH=width, TAPS=next_power_of_2(width),
        **blocks,
    )  # fmt: skip
    # Sums over programs have a fixed order, which atomic additions would not.
    grad_weight = partial_weight.sum(0).to(weight.dtype)
    return grad_x, grad_weight, grad_bias if bias is None else partial_bias.sum(0).to(bias.dtype), grad_initial


def _save_for_backward(ctx, inputs, output):
    x, weight, bias, ctx.silu, initial = inputs
    ctx.save_for_backward(x, weight, bias, initial)


def _gradient(ctx, grad):
    x, weight, bias, initial = ctx.saved_tensors
    grad_x, grad_weight, grad_bias, grad_initial = _backward(grad, x, weight, bias, ctx.silu, initial)
    return grad_x, grad_weight, None if bias is None else grad_bias, None, None if initial is None else grad_initial


_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def _causal_conv1d_triton(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    y = _forward(x, weight, bias, activation == "silu", initial_state)
    # The state is a few tokens, of which torch makes a copy and its gradient.
    past = weight.shape[1] - 1
    last, _, _ = _widen(x[:, max(0, x.shape[1] - past) :], weight, None, initial_state)
    return y, last[:, last.shape[1] - past :]


def _triton_refuses(x: Tensor, weight: Tensor, *_) -> str | None:
    if weight.shape[1] > MAX_TRITON_WIDTH:
        return f"{weight.shape[1]} taps are more than {MAX_TRITON_WIDTH}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends(
    "causal_conv1d", causal_conv1d_reference, causal_conv1d_torch, _causal_conv1d_triton, _triton_refuses
)


def causal_conv1d(
    x: Float[Tensor, "batch time dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"] | None = None,
    activation: Literal["silu"] | None = None,
    initial_state: Float[Tensor, "batch past dim"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch past dim"]]:
    """Convolve each channel with few weights of its own: activation(b + sum_j w_j x_{t-W+1+j}).

    x (batch, time, dim); weight (dim, W), the last for the token itself; bias (dim,) or None; `activation` "silu" or
    None; initial_state (batch, W - 1, dim), the tokens before the first, or None for zeros. Returns y in the dtype of
    x, and the last W - 1 tokens, in float32. Raises ValueError if shapes do not fit, for another activation, or for a
    backend ("reference", "torch", "triton") that cannot serve the call.

    Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv 2312.00752, section 3.4.
    """
    (batch, time, dim), width = x.shape, weight.shape[-1]
    if activation not in ("silu", None):
        raise ValueError(f"causal_conv1d: activation {activation!r} is unknown; choose 'silu' or None")
    if not time or not width:
        raise ValueError(
            f"causal_conv1d: x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}; both need at least one step"
        )
    required = {
        "weight": (weight, (dim, width)),
        "bias": (bias, (dim,)),
        "initial_state": (initial_state, (batch, width - 1, dim)),
    }
    for name, (tensor, shape) in required.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"causal_conv1d: {name} has shape {tuple(tensor.shape)}; for x of shape {tuple(x.shape)} and {width} "
                f"taps it must be {shape}"
            )
    inputs = (x, weight, bias, activation, initial_state)
    return _BACKENDS.select(backend, *inputs)(*inputs)


def _floor(x: Tensor, weight: Tensor, activation: str | None, **_) -> tuple[Cost, Cost]:
    products = 2 * x.numel() * weight.shape[1]
    again = products if activation else 0
    return Cost(2 * size_in_bytes(x), products), Cost(3 * size_in_bytes(x), 2 * products + again)


def _inputs(random: Sampler, batch: int, time: int, dim: int, width: int) -> dict:
    return {
        "x": random.normal(batch, time, dim),
        "weight": random.normal(dim, width, scale=width**-0.5),
        "bias": random.normal(dim),
        "activation": "silu",
        "initial_state": random.normal(batch, width - 1, dim),
    }


def _plain(inputs: dict) -> dict:
    return {**inputs, "bias": None, "activation": None, "initial_state": None}


SPEC = OpSpec(
    function=causal_conv1d,
    backends=_BACKENDS,
    cases={
        "prime": lambda random: _inputs(random, 2, 11, 5, 3),
        "one step": lambda random: _inputs(random, 1, 1, 3, 4),
        "plain": lambda random: _plain(_inputs(random, 2, 13, 131, 2)),
        "one tap": lambda random: _inputs(random, 1, 5, 3, 1),
        "no samples": lambda random: _inputs(random, 0, 4, 3, 2),
    },
    large_cases={"long": lambda random: _inputs(random, 2, 157, 31, 4)},
    benchmarks={"2x1024 dim 256, 4 taps": lambda random: _inputs(random, 2, 1024, 256, 4)},
    differentiable=("x", "weight", "bias", "initial_state"),
    float32=("initial_state",),
    floor=_floor,
    paper="Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv 2312.00752",
)
