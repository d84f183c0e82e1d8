"""Adaptive normalization: sample by sample, slices of one tensor, parity with x-transformers and timm."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.modulate import modulate

NORMS = {"rms": F.rms_norm, "layer": F.layer_norm}


@given(
    kind=st.sampled_from(sorted(NORMS)),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    dim=st.integers(2, 20),
    seed=st.integers(0, 99),
)
def test_each_sample_has_its_own_scale_and_shift(kind, shape, dim, seed):
    torch.manual_seed(seed)
    x = torch.randn(*shape, dim, dtype=torch.float64)
    shift, scale, _ = torch.randn(shape[0], 3 * dim, dtype=torch.float64).chunk(3, dim=-1)
    y = modulate(x, scale, shift, kind=kind)
    for sample in range(shape[0]):
        expected = NORMS[kind](x[sample], (dim,), 1 + scale[sample], eps=1e-6) + shift[sample]
        assert relative_error(y[sample], expected) < 1e-12


def test_low_precision_samples_and_wide_conditions_mix():
    torch.manual_seed(0)
    x, scale, shift = torch.randn(2, 9, 64).bfloat16(), torch.randn(2, 64), torch.randn(2, 64)
    y = modulate(x, scale, shift)
    assert y.dtype == torch.bfloat16
    assert relative_error(y, modulate(x.double(), scale.double(), shift.double(), backend="reference")) < 4e-3


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_the_kernel_reads_slices_of_the_modulation():
    torch.manual_seed(0)
    x, modulation = torch.randn(3, 4, 13), torch.randn(3, 6 * 13, requires_grad=True)
    _, scale, _, shift, _, _ = modulation.chunk(6, dim=-1)
    y, truth = (modulate(x, scale, shift, backend=backend) for backend in ("triton", "reference"))
    assert relative_error(y.detach(), truth.detach()) < 1e-5
    gradient, expected = (torch.autograd.grad(out.square().sum(), modulation)[0] for out in (y, truth))
    assert relative_error(gradient, expected) < 1e-5


def test_wrong_arguments_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks would speak first
    x, vectors = torch.zeros(2, 3, 4), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"scale has shape \(1, 4\), x \(2, 3, 4\); it must be \(2, 4\)"):
        modulate(x, vectors[:1])
    with pytest.raises(ValueError, match=r"shift has shape \(2, 3, 4\)"):
        modulate(x, vectors, x)


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "name"), [("layer", "AdaptiveLayerNorm"), ("rms", "AdaptiveRMSNorm")])
def test_equals_x_transformers(kind, name):
    torch.manual_seed(0)
    peer = pytest.importorskip("x_transformers.x_transformers", reason="install quintet[peers]")
    norm, x, condition = getattr(peer, name)(24), torch.randn(3, 5, 24), torch.randn(3, 24)
    torch.nn.init.normal_(norm.to_gamma.weight)
    eps = 1e-5 if kind == "layer" else 0.0
    assert (
        relative_error(modulate(x, norm.to_gamma(condition), eps=eps, kind=kind), norm(x, condition=condition)) < 1e-6
    )
