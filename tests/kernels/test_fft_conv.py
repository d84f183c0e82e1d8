"""The long convolution against products of polynomials and torch's convolution, and how far its rounding reaches."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._spec import relative_error
from quintet.kernels.fft_conv import fft_conv

BACKENDS = ["reference", "torch"]


def inputs(batch, time, dim, length, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, time, dim), (dim, length), (dim,))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize("backend", BACKENDS)
@given(time=st.integers(1, 70), length=st.integers(1, 90), seed=st.integers(0, 99))
def test_equals_the_product_of_polynomials(backend, time, length, seed):
    x, kernel, D = inputs(2, time, 2, length, seed)
    y = fft_conv(x, kernel, D, backend=backend)
    for sample in range(2):
        for channel in range(2):
            product = np.convolve(x[sample, :, channel], kernel[channel])[:time] + (D * x[sample])[:, channel].numpy()
            assert relative_error(y[sample, :, channel], torch.from_numpy(product)) < 1e-11


def test_gradients_equal_those_of_the_convolution_of_torch():
    leaves = [tensor.requires_grad_() for tensor in inputs(3, 53, 4, 41)]
    x, kernel, D = leaves
    expected = F.conv1d(F.pad(x.mT, (40, 0)), kernel.flip(1).unsqueeze(1), groups=4).mT + D * x
    y = fft_conv(*leaves)
    assert relative_error(y.detach(), expected.detach()) < 1e-12
    probe = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truths = torch.autograd.grad(expected, leaves, probe)
    for found, truth in zip(torch.autograd.grad(y, leaves, probe), truths):
        assert relative_error(found, truth) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shift(backend):
    x, *_ = inputs(2, 9, 3, 1)
    kernel = torch.zeros(3, 20, dtype=torch.float64)
    kernel[:, 4] = 1.0
    assert relative_error(fft_conv(x, kernel, backend=backend), F.pad(x, (0, 0, 4, -4))) < 1e-12


@given(time=st.integers(2, 300), seed=st.integers(0, 99), data=st.data())
def test_the_past_does_not_see_the_future(time, seed, data):
    """But for rounding: to the digits of the largest output."""
    x, kernel, _ = inputs(1, time, 2, time, seed, torch.float32)
    cut = data.draw(st.integers(1, time - 1))
    y, changed = fft_conv(x, kernel), x.clone()
    changed[:, cut:] = 0.0
    assert (fft_conv(changed, kernel) - y)[:, :cut].abs().max() < 1e-6 * y.abs().max() + 1e-6


def test_long_sequences_in_float32():
    given = inputs(1, 4000, 2, 4000, dtype=torch.float32)
    expected = fft_conv(*(part.double() for part in given))
    assert relative_error(fft_conv(*given), expected) < 1e-6


def test_what_does_not_fit_is_refused_in_words():
    refuse = inspect.unwrap(fft_conv)  # the run-time shape checks of the tests would speak first
    x, kernel, D = inputs(2, 5, 3, 4)
    with pytest.raises(ValueError, match=r"kernel \(2, 4\); they must be \(batch, time, dim\) and \(dim, length\)"):
        refuse(x, kernel[:2])
    with pytest.raises(ValueError, match=r"D has shape \(2,\); .* must be \(3,\)"):
        refuse(x, kernel, D[:2])
    with pytest.raises(ValueError, match="no Triton kernel is written for it"):
        refuse(x, kernel, backend="triton")
