"""Student's t against scipy: likelihood, quantiles, and how they move with the window."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quintet.timeseries.tasks.distributions import StudentT

LEVELS = [0.01, 0.1, 0.5, 0.9, 0.99]


def outputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, 3, 4, 3, generator=generator, dtype=torch.float64)
    return drawn, torch.rand(2, 1, 4, generator=generator, dtype=torch.float64) + 0.1


def test_the_likelihood():
    drawn, std = outputs()
    head = StudentT(LEVELS)
    location, scale, freedom = (part.numpy() for part in head.parameters_of(drawn, std))
    targets = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = -stats.t.logpdf(targets.numpy(), freedom, location, scale)
    assert np.allclose(head.loss(drawn, std, targets), expected, rtol=1e-10)


@pytest.mark.parametrize("shift", [-30.0, 0.0, 30.0])
def test_quantiles_are_the_inverse_of_the_distribution(shift):
    """From 2 degrees of freedom, where the tails are heaviest, to next to the normal distribution."""
    drawn, std = outputs()
    drawn[..., 2] += shift
    drawn[0, 0, 0, 2] = 1e6
    head = StudentT(LEVELS)
    location, scale, freedom = (part.numpy()[..., None] for part in head.parameters_of(drawn, std))
    expected = stats.t.ppf(np.array(LEVELS), freedom, location, scale)
    assert np.allclose(head(drawn, std), expected, rtol=1e-8, atol=1e-8)


@given(st.integers(0, 1000))
def test_quantiles_never_cross(seed):
    drawn, std = outputs(seed)
    assert (StudentT(LEVELS)(10 * drawn, std).diff(dim=-1) > 0).all()


def test_it_moves_and_stretches_with_the_window():
    drawn, std = outputs()
    head = StudentT(LEVELS)
    assert torch.allclose(head(3 * drawn + 7, 3 * std), 3 * head(drawn, std) + 7, rtol=1e-10)


def test_gradients_are_finite_far_from_the_target():
    drawn, std = (part.float() for part in outputs())
    drawn.requires_grad_()
    StudentT(LEVELS).loss(drawn, std, torch.full((2, 3, 4), 1e4)).sum().backward()
    assert drawn.grad.isfinite().all()


def test_parameters_by_hand():
    """softplus(0) is log 2; far below it nothing but the floors is left: a ten-thousandth of the window, 2 degrees."""
    std = torch.tensor([[[0.5]]], dtype=torch.float64)
    for offset, rise in ((0.0, np.log(2)), (-500.0, 0.0), (500.0, 1000.0)):
        outputs = torch.tensor([[[[3.0, 3.0 + offset, 3.0 + offset]]]], dtype=torch.float64)
        location, scale, freedom = (part.item() for part in StudentT(LEVELS).parameters_of(outputs, std))
        assert (location, scale, freedom) == pytest.approx((3.0, 0.5 * (rise + 1e-4), 2 + rise), rel=1e-12)
