"""Gated linear units: packed and apart, far gates, parity with timm and x-transformers."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import GluMlp
from torch import nn

from quintet.kernels._activation import TORCH
from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.glu import _halves as halves
from quintet.kernels.glu import glu


@given(
    activation=st.sampled_from(sorted(TORCH)),
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    dim=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_packed_equals_apart(activation, shape, dim, seed):
    torch.manual_seed(seed)
    packed = torch.randn(*shape, 2 * dim, dtype=torch.float64, requires_grad=True)
    gate, value = (half.detach().requires_grad_() for half in packed.chunk(2, dim=-1))
    for backend in ("torch", "reference"):
        together, apart = glu(packed, None, activation, backend=backend), glu(gate, value, activation, backend=backend)
        assert torch.equal(together, apart)
        grad = torch.randn_like(apart)
        (found,) = torch.autograd.grad(together, packed, grad)
        assert torch.equal(found, torch.cat(torch.autograd.grad(apart, (gate, value), grad), -1))


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("activation", sorted(TORCH))
def test_far_gates_stay_finite(activation, backend):
    gate = torch.tensor([-1e4, -88.0, 0.0, 88.0, 1e4], requires_grad=True)
    y = glu(gate, torch.ones(5), activation, backend=backend)
    (gradient,) = torch.autograd.grad(y.sum(), gate)
    assert torch.isfinite(y).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("activation", "layer"), [("silu", nn.SiLU), ("gelu", nn.GELU), ("sigmoid", nn.Sigmoid)])
def test_equals_timm(activation, layer):
    torch.manual_seed(0)
    peer = GluMlp(12, 32, act_layer=layer, gate_last=False)
    x = torch.randn(3, 5, 12)
    assert relative_error(peer.fc2(glu(peer.fc1(x), activation=activation)), peer(x)) < 1e-6


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_the_kernel_reads_halves_and_writes_their_gradients_in_place():
    torch.manual_seed(0)
    wide = torch.randn(3, 5, 40, requires_grad=True)
    for packed in (wide[..., 3:25], wide):
        gate, value = halves(packed, None)
        assert gate.data_ptr() == packed.data_ptr()
        assert value.data_ptr() == packed.data_ptr() + packed.shape[-1] // 2 * packed.itemsize
        apart = [half.clone() for half in packed.chunk(2, dim=-1)]
        y, truth = glu(packed, backend="triton"), glu(*apart, backend="reference")
        assert relative_error(y.detach(), truth.detach()) < 1e-5
        gradient, expected = (torch.autograd.grad(out.square().sum(), wide)[0] for out in (y, truth))
        assert relative_error(gradient, expected) < 1e-5


def test_wrong_arguments_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks would speak first
    x = torch.zeros(2, 5)
    with pytest.raises(ValueError, match="packed in one tensor need an even last dimension; got 5"):
        glu(x)
    with pytest.raises(ValueError, match=r"gate has shape \(2, 5\), value \(1, 5\)"):
        glu(x, x[:1])
    with pytest.raises(ValueError, match="activation 'swish' is unknown; choose from silu, gelu"):
        glu(x, x, "swish")


@pytest.mark.peers
@pytest.mark.parametrize(("activation", "function"), [("silu", F.silu), ("gelu", F.gelu), ("relu", F.relu)])
def test_equals_x_transformers(activation, function):
    torch.manual_seed(0)
    peer = pytest.importorskip("x_transformers.x_transformers", reason="install quintet[peers]").GLU(12, 16, function)
    x = torch.randn(3, 5, 12)
    value, gate = peer.proj(x).chunk(2, dim=-1)
    assert relative_error(glu(gate, value, activation), peer(x)) < 1e-6
