"""Layer normalization: invariances, the offset, half-precision gradients, parity with x-transformers."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._normalization import as_rows
from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.layer_norm import layer_norm


@given(
    rows=st.integers(1, 5),
    dim=st.integers(2, 40),
    factor=st.floats(0.1, 10),
    shift=st.floats(-10, 10),
    seed=st.integers(0, 99),
)
def test_scaling_and_shifting_the_input_changes_nothing(rows, dim, factor, shift, seed):
    x = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = layer_norm(x, eps=0.0)
    assert relative_error(layer_norm(factor * x + shift, eps=0.0), y) < 1e-10
    assert relative_error(y.mean(-1), torch.zeros(rows)) < 1e-10
    assert relative_error(y.square().mean(-1), torch.ones(rows)) < 1e-10


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_offset_is_added_to_the_weight(backend):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 17), torch.randn(17), torch.randn(17)
    found = layer_norm(x, weight - 1, bias, offset=1.0, backend=backend)
    assert relative_error(found, F.layer_norm(x.double(), (17,), weight.double(), bias.double(), 1e-6)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_the_weights_are_summed_in_float32(dtype):
    """torch alone sums them in the dtype of the input on the CPU: after 20000 bfloat16 rows they are a tenth off."""
    torch.manual_seed(0)
    x, probe = torch.randn(2, 20000, 8).to(dtype)
    vectors = [torch.randn(8).to(dtype).requires_grad_() for _ in range(2)]
    layer_norm(x, *vectors).backward(probe)
    wide = [vector.detach().double().requires_grad_() for vector in vectors]
    F.layer_norm(x.double(), (8,), *wide, 1e-6).backward(probe.double())
    for vector, truth in zip(vectors, wide):
        assert vector.grad.dtype == dtype
        assert relative_error(vector.grad, truth.grad) < 4e-3


def test_a_low_precision_weight_is_not_rounded_when_the_offset_is_added():
    torch.manual_seed(0)
    x, weight = torch.randn(4, 64), torch.full((64,), 1e-3).bfloat16()
    found = layer_norm(x, weight, offset=1.0)
    assert relative_error(found, F.layer_norm(x.double(), (64,), weight.double() + 1, None, 1e-6)) < 1e-6


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_the_kernel_reads_slices_in_place():
    torch.manual_seed(0)
    wide = torch.randn(3, 5, 40, requires_grad=True)
    x, weight = wide[..., 7:30], torch.randn(23)
    assert as_rows(x).data_ptr() == x.data_ptr()
    (y, gradient), (truth, expected) = (
        (y, *torch.autograd.grad(y.square().sum(), wide))
        for y in (layer_norm(x, weight, backend=backend) for backend in ("triton", "reference"))
    )
    assert relative_error(y.detach(), truth.detach()) < 1e-5
    assert relative_error(gradient, expected) < 1e-5


def test_wrong_arguments_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks would speak first
    x = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"bias has shape \(3,\), x \(2, 4\); it must be \(4,\)"):
        layer_norm(x, None, torch.zeros(3))
    with pytest.raises(ValueError, match=r"offset=1\.0 is added to the weight, and there is none"):
        layer_norm(x, offset=1.0)
    with pytest.raises(ValueError, match="backend 'cuda' is unknown"):
        layer_norm(x, backend="cuda")


@pytest.mark.peers
def test_equals_x_transformers():
    torch.manual_seed(0)
    peer = pytest.importorskip("x_transformers.x_transformers", reason="install quintet[peers]")
    norm, x = peer.LayerNorm(24, unit_offset=True), torch.randn(3, 5, 24)
    torch.nn.init.normal_(norm.gamma)
    found = layer_norm(x, norm.gamma, eps=1e-5, offset=1.0)
    assert relative_error(found, norm(x)) < 1e-6
