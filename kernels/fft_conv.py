"""Long causal convolution, each channel with a kernel of its own, by the fast Fourier transform.

    y_t = sum_{s <= t} k_{t-s} x_s + D x_t

Shapes: x (batch, time, dim), kernel k (dim, length), of which what is longer than the sequence takes no part, skip D
(dim,) or None. y has the dtype of x; transforms are float32 (float64 for float64 inputs), whatever the dtypes.

With F the transform of sequences continued by zeros, so that nothing wraps around, F(y) = F(k) F(x), and the backward
is three transforms more:

    dx = F^-1(conj F(k) F(dy)),    dk = F^-1(sum over the batch of conj F(x) F(dy))

A transform rounds all of its outputs to the digits of the largest: an output much smaller than the others of its
channel has fewer digits, and one NaN spreads over the whole sequence, its past included.

There is no Triton kernel: the transforms are those of cuFFT, MKL or pocketfft.

Floor, for R = numel(x) elements of e bytes and transforms of n = 2 time points: the forward reads x and writes y, 2Re
bytes, and three transforms take 2.5 n log2(n) flops each, which is 10 R log2(n) and that of the kernels; the backward
reads x and the gradient of y and writes one gradient, 3Re bytes, and takes three transforms too, two of them of the
batch.

Papers: Hyena Hierarchy, arXiv 2302.10866; Simple Hardware-Efficient Long Convolutions for Sequence Modeling, arXiv
2302.06646.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._runtime import Backends, cdiv, next_power_of_2, operator
from ._spec import Cost, OpSpec, Sampler, size_in_bytes


def fft_conv_reference(
    x: Float[Tensor, "batch time dim"],
    kernel: Float[Tensor, "dim length"],
    D: Float[Tensor, " dim"] | None,
) -> Float[Tensor, "batch time dim"]:
    wide, kernel, D = _widen(x, kernel, D)
    # torch's convolution is a correlation: kernels are turned around, and meet as many zeros as they reach back.
    y = F.conv1d(F.pad(wide.mT, (kernel.shape[1] - 1, 0)), kernel.flip(1).unsqueeze(1), groups=x.shape[2]).mT
    return (y if D is None else torch.addcmul(y, D, wide)).to(x.dtype)


def fft_conv_torch(
    x: Float[Tensor, "batch time dim"],
    kernel: Float[Tensor, "dim length"],
    D: Float[Tensor, " dim"] | None,
) -> Float[Tensor, "batch time dim"]:
    wide, kernel, D = _widen(x, kernel, D)
    return _convolve(wide, kernel[:, : x.shape[1]], D).to(x.dtype)


def _widen(x: Tensor, kernel: Tensor, D: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, kernel, D = (part if part is None or part.dtype is dtype else part.to(dtype) for part in (x, kernel, D))
    return x, kernel, D


def _transform_size(points: int) -> int:
    """The next size that transforms are fast for: a power of two, or 3, 5, 9 or 15 times one."""
    return min(factor * next_power_of_2(cdiv(points, factor)) for factor in (1, 3, 5, 9, 15))


def _spectra(sequences: list[Tensor], kernel: Tensor, D: Tensor | None, size: int) -> list[Tensor]:
    """Of each batch of sequences, and of the kernel, to whose first step the skip belongs.

    One call, which shares the preparation, over rows padded here: what rfft does to pad takes as long as a third of it.
    """
    filled = [x.mT for x in sequences] + [kernel.unsqueeze(0)]
    counts = [len(part) for part in filled]
    rows = kernel.new_empty(sum(counts), len(kernel), size)
    shortest = min(part.shape[2] for part in filled)
    rows.narrow(2, shortest, size - shortest).zero_()
    for row, part in zip(rows.split(counts), filled):
        row.narrow(2, 0, part.shape[2]).copy_(part)
    if D is not None:
        rows[-1, :, 0].add_(D)
    return list(torch.fft.rfft(rows).split(counts))


def _transformed(x: Tensor) -> Tensor:
    """Room for sequences as they come out of a transform, with time running fastest: they are not transposed in memory,
    because the next operation reads them once anyway."""
    return x.new_empty(x.mT.shape).mT


# Ops of their own, because Inductor cannot fuse transforms, and the backward that autograd derives computes them on
# complex sequences, at twice the cost.
@operator("fft_conv", fake=lambda x, kernel, D: _transformed(x))
def _convolve(x: Tensor, kernel: Tensor, D: Tensor | None) -> Tensor:
    if not x.numel():  # MKL refuses to transform nothing
        return _transformed(x)
    time = x.shape[1]
    size = _transform_size(time + kernel.shape[1] - 1)
    spectrum, of_kernel = _spectra([x], kernel, D, size)
    return torch.fft.irfft(spectrum.mul_(of_kernel), size)[..., :time].contiguous().mT


def _fake_backward(grad: Tensor, x: Tensor, kernel: Tensor, D: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return _transformed(x), kernel.new_empty(kernel.shape), kernel.new_empty(0 if D is None else len(D))


@operator("fft_conv_backward", fake=_fake_backward)
def _convolve_backward(grad: Tensor, x: Tensor, kernel: Tensor, D: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    grad_D = x.new_empty(0) if D is None else (grad * x).sum((0, 1))
    if not x.numel():
        return _transformed(x), kernel.new_zeros(kernel.shape), grad_D
    time, length = x.shape[1], kernel.shape[1]
    size = _transform_size(time + length - 1)
    spectrum, of_x, of_kernel = _spectra([grad, x], kernel, D, size)
    grad_kernel = (of_x.conj() * spectrum).sum(0)
    grad_x = spectrum.mul_(of_kernel.conj())
    return (
        torch.fft.irfft(grad_x, size)[..., :time].contiguous().mT,
        torch.fft.irfft(grad_kernel, size)[..., :length].contiguous(),
        grad_D,
    )


def _save_for_backward(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _gradient(ctx, grad):
    saved = ctx.saved_tensors
    *grads, grad_D = _convolve_backward(grad, *saved)
    return *grads, None if saved[2] is None else grad_D


_convolve.register_autograd(_gradient, setup_context=_save_for_backward)


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends("fft_conv", fft_conv_reference, fft_conv_torch)


def fft_conv(
    x: Float[Tensor, "batch time dim"],
    kernel: Float[Tensor, "dim length"],
    D: Float[Tensor, " dim"] | None = None,
    *,
    backend: str | None = None,
) -> Float[Tensor, "batch time dim"]:
    """Convolve each channel with a long causal kernel of its own: sum_{s <= t} k_{t-s} x_s + D x_t.

    x (batch, time, dim); kernel (dim, length), k_0 first, of any length; skip D (dim,) or None. Computed in float32,
    returned in the dtype of x. Raises ValueError if shapes do not fit, or for a backend ("reference", "torch") that
    cannot serve the call.

    Simple Hardware-Efficient Long Convolutions for Sequence Modeling, arXiv 2302.06646.
    """
    (_, time, dim), length = x.shape, kernel.shape[-1]
    if kernel.shape != (dim, length) or not time or not length:
        raise ValueError(
            f"fft_conv: x has shape {tuple(x.shape)}, kernel {tuple(kernel.shape)}; they must be (batch, time, dim) "
            "and (dim, length), with at least one step each"
        )
    if D is not None and D.shape != (dim,):
        raise ValueError(f"fft_conv: D has shape {tuple(D.shape)}; for x of shape {tuple(x.shape)} it must be {(dim,)}")
    return _BACKENDS.select(backend, x, kernel, D)(x, kernel, D)


def _floor(x: Tensor, kernel: Tensor, **_) -> tuple[Cost, Cost]:
    sequences, points = x.shape[0] * x.shape[2], 2 * x.shape[1]
    transform = 2.5 * points * math.log2(points)
    forward = (2 * sequences + kernel.shape[0]) * transform
    backward = (2 * sequences + kernel.shape[0]) * transform
    return Cost(2 * size_in_bytes(x), forward), Cost(3 * size_in_bytes(x), backward)


def _inputs(random: Sampler, batch: int, time: int, dim: int, length: int, skip: bool = True) -> dict:
    return {
        "x": random.normal(batch, time, dim),
        "kernel": random.normal(dim, length, scale=length**-0.5),
        "D": random.normal(dim) if skip else None,
    }


SPEC = OpSpec(
    function=fft_conv,
    backends=_BACKENDS,
    cases={
        "prime": lambda random: _inputs(random, 2, 7, 3, 7),
        "one step": lambda random: _inputs(random, 1, 1, 5, 1),
        "short kernel": lambda random: _inputs(random, 1, 63, 2, 5, skip=False),
        "kernel longer than the sequence": lambda random: _inputs(random, 1, 5, 2, 11),
        "no samples": lambda random: _inputs(random, 0, 4, 3, 4),
    },
    large_cases={"long": lambda random: _inputs(random, 2, 157, 5, 157)},
    benchmarks={
        "1x2048 dim 64": lambda random: _inputs(random, 1, 2048, 64, 2048),
        "4x2048 dim 64": lambda random: _inputs(random, 4, 2048, 64, 2048),
    },
    differentiable=("x", "kernel", "D"),
    floor=_floor,
    paper="Simple Hardware-Efficient Long Convolutions for Sequence Modeling, arXiv 2302.06646",
)
