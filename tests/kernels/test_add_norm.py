"""Addition and normalization in one: the two steps it stands for, dtypes, parity with flash-linear-attention."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.add_norm import add_norm

NORMS = {"rms": F.rms_norm, "layer": F.layer_norm}


@given(kind=st.sampled_from(sorted(NORMS)), rows=st.integers(1, 5), dim=st.integers(2, 40), seed=st.integers(0, 99))
def test_is_an_addition_and_a_norm(kind, rows, dim, seed):
    torch.manual_seed(seed)
    x, residual = torch.randn(2, rows, dim, dtype=torch.float64)
    weight = torch.randn(dim, dtype=torch.float64)
    total, y = add_norm(x, residual, weight, kind=kind)
    assert torch.equal(total, x + residual)
    assert relative_error(y, NORMS[kind](total, (dim,), weight, eps=1e-6)) < 1e-12


def test_a_wide_residual_stream_stays_wide():
    torch.manual_seed(0)
    x, residual = torch.randn(3, 64).bfloat16(), torch.randn(3, 64)
    total, y = add_norm(x, residual)
    assert (total.dtype, y.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(total, residual + x.float())
    assert relative_error(y, F.rms_norm(total.double(), (64,), eps=1e-6)) < 4e-3


def test_the_gradient_comes_through_both_outputs():
    torch.manual_seed(0)
    x, residual = torch.randn(2, 3, 8, dtype=torch.float64).requires_grad_().unbind(0)
    total, y = add_norm(x, residual, kind="layer")
    through_total, through_y = torch.randn(2, 3, 8, dtype=torch.float64)
    (found,) = torch.autograd.grad((total, y), x, (through_total, through_y))
    inner = (x + residual).detach().requires_grad_()
    (expected,) = torch.autograd.grad(F.layer_norm(inner, (8,), eps=1e-6), inner, through_y)
    assert relative_error(found, expected + through_total) < 1e-12


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_the_kernel_keeps_a_wide_residual_stream_wide():
    torch.manual_seed(0)
    x, residual = torch.randn(3, 2 * 23).half()[:, :23].requires_grad_(), torch.randn(3, 23, requires_grad=True)
    results = []
    for backend in ("triton", "reference"):
        total, y = add_norm(x, residual, backend=backend)
        results.append((total, y, *torch.autograd.grad(total.sum() + y.float().pow(3).sum(), (x, residual))))
    for found, expected, tolerance in zip(*results, (1e-6, 2e-3, 2e-3, 1e-3)):
        assert found.dtype == expected.dtype
        assert relative_error(found.detach(), expected.detach()) < tolerance


def test_wrong_arguments_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks would speak first
    x = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"x has shape \(2, 4\), residual \(1, 4\)"):
        add_norm(x, x[:1])
    with pytest.raises(ValueError, match="kind 'batch' is unknown; choose 'rms' or 'layer'"):
        add_norm(x, x, kind="batch")


@pytest.mark.peers
@pytest.mark.parametrize("kind", sorted(NORMS))
def test_equals_flash_linear_attention(kind):
    torch.manual_seed(0)
    peer = pytest.importorskip("fla.modules.norm.layernorm", reason="install quintet[peers]")
    x, residual, (weight, bias) = torch.randn(3, 5, 24), torch.randn(3, 5, 24), torch.randn(2, 24)
    total, y = add_norm(x, residual, weight, bias, 1e-5, kind=kind)
    reference = {"rms": peer.rms_norm_ref, "layer": peer.layer_norm_ref}[kind]
    expected, expected_total = reference(x, weight, bias, residual, eps=1e-5, prenorm=True)
    assert torch.equal(total, expected_total)
    assert relative_error(y, expected) < 1e-6
