"""RMS normalization against torch's, its invariances, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.rms_norm import MAX_TRITON_DIM, rms_norm


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("with_weight", [False, True])
def test_agrees_with_torch(backend, with_weight):
    torch.manual_seed(0)
    x, weight = torch.randn(3, 5, 63), torch.randn(63) if with_weight else None
    wide = None if weight is None else weight.double()
    expected = F.rms_norm(x.double(), (63,), wide, 1e-3)
    assert relative_error(rms_norm(x, weight, 1e-3, backend=backend), expected) < 1e-6


@given(rows=st.integers(1, 5), dim=st.integers(1, 40), factor=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_scaling_the_input_changes_nothing(rows, dim, factor, seed):
    x = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = rms_norm(x, eps=0.0)
    assert relative_error(rms_norm(factor * x, eps=0.0), y) < 1e-12
    assert relative_error(y.square().mean(-1), torch.ones(rows)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_squares_do_not_overflow(dtype):
    x = torch.full((2, 64), 3e4, dtype=dtype)
    assert relative_error(rms_norm(x), torch.ones(2, 64)) < 4e-3


def test_zeros_give_zeros_and_finite_gradients():
    x = torch.zeros(2, 8, requires_grad=True)
    y = rms_norm(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad.isfinite().all()


def test_dtype_of_the_input_is_kept_beside_a_float32_weight():
    assert rms_norm(torch.randn(2, 8, dtype=torch.bfloat16), torch.ones(8)).dtype == torch.bfloat16


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_kernel_refuses_rows_beyond_its_registers_and_float64():
    with pytest.raises(ValueError, match=f"dim {MAX_TRITON_DIM + 1} is larger than {MAX_TRITON_DIM}"):
        rms_norm(torch.ones(1, MAX_TRITON_DIM + 1), backend="triton")
    with pytest.raises(ValueError, match="float64 is not supported"):
        rms_norm(torch.ones(1, 8, dtype=torch.float64), backend="triton")
