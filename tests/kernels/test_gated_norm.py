"""Gated normalization: what an open and a closed gate do, parity with flash-linear-attention."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.gated_norm import gated_norm

NORMS = {"rms": F.rms_norm, "layer": F.layer_norm}
ACTIVATIONS = {
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "identity": lambda x: x,
}


@given(
    kind=st.sampled_from(sorted(NORMS)),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    rows=st.integers(1, 5),
    dim=st.integers(2, 40),
    seed=st.integers(0, 99),
)
def test_is_a_norm_times_an_activation(kind, activation, rows, dim, seed):
    torch.manual_seed(seed)
    x, gate = torch.randn(2, rows, dim, dtype=torch.float64)
    weight = torch.randn(dim, dtype=torch.float64)
    expected = NORMS[kind](x, (dim,), weight, eps=1e-6) * ACTIVATIONS[activation](gate)
    for backend in ("torch", "reference"):
        found = gated_norm(x, gate, weight, kind=kind, activation=activation, backend=backend)
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("activation", ["silu", "sigmoid", "gelu", "gelu_tanh"])
def test_extreme_gates_stay_finite(activation, backend):
    torch.manual_seed(0)
    x, gate = torch.randn(4, 32, requires_grad=True), torch.full((4, 32), -1e4).requires_grad_()
    closed = gated_norm(x, gate, activation=activation, backend=backend)
    opened = gated_norm(x, -gate, activation=activation, backend=backend)
    assert closed.abs().max() < 1e-6
    norm = F.rms_norm(x, (32,), eps=1e-6)
    assert relative_error(opened, norm * (1.0 if activation == "sigmoid" else 1e4)) < 1e-6
    gradients = torch.autograd.grad((closed.sum(), opened.sum()), (x, gate))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_the_kernel_reads_a_gate_inside_one_projection():
    torch.manual_seed(0)
    projected = torch.randn(3, 5, 4, 2 * 13, requires_grad=True)
    x, gate = projected.chunk(2, dim=-1)
    y, truth = (gated_norm(x, gate, backend=backend) for backend in ("triton", "reference"))
    assert relative_error(y.detach(), truth.detach()) < 1e-5
    gradient, expected = (torch.autograd.grad(out.pow(3).sum(), projected)[0] for out in (y, truth))
    assert relative_error(gradient, expected) < 1e-5


def test_wrong_arguments_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks would speak first
    x = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"x has shape \(2, 4\), gate \(1, 4\)"):
        gated_norm(x, x[:1])
    with pytest.raises(ValueError, match="activation 'swish' is unknown; choose from silu, gelu"):
        gated_norm(x, x, activation="swish")


@pytest.mark.peers
def test_equals_flash_linear_attention():
    torch.manual_seed(0)
    peer = pytest.importorskip("fla.modules.norm.layernorm_gated", reason="install quintet[peers]")
    x, gate, (weight, bias) = torch.randn(3, 5, 24), torch.randn(3, 5, 24), torch.randn(2, 24)
    expected = peer.rms_norm_ref(x, weight, bias, z=gate, eps=1e-5)
    assert relative_error(gated_norm(x, gate, weight, bias, 1e-5), expected) < 1e-6
