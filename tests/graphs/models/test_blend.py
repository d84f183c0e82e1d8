"""Weights of a blend, against a case by hand and against scipy's minimum."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from quintet.core.errors import QuintetError
from quintet.graphs.models.blend import Blend, blend_weights


def test_two_members_by_hand():
    # Errors (1, 1) and (-3, 1): with w for the first, (4w - 3)^2 + 1 is least at w = 3/4.
    targets = torch.tensor([0.0, 10.0])
    predictions = torch.tensor([[1.0, -3.0], [11.0, 11.0]])
    assert blend_weights(predictions, targets, prior=0.0).tolist() == pytest.approx([0.75, 0.25])
    # s = (1 + 1 + 9 + 1) / 4 = 3 and prior 2: plus 6 * 2 (w - 1/2)^2; 32 w - 24 + 24 w - 12 = 0.
    assert blend_weights(predictions, targets, prior=2.0).tolist() == pytest.approx([36 / 56, 20 / 56])


def test_a_member_that_only_harms_gets_nothing():
    targets = torch.tensor([0.0, 0.0])
    predictions = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert blend_weights(predictions, targets, prior=0.0).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("prior", [0.0, 7.0])
def test_the_minimum_is_scipys(prior):
    draw = np.random.default_rng(3)
    targets = draw.normal(size=30)
    predictions = targets[:, None] + draw.normal(size=(30, 4)) * [0.5, 0.7, 2.0, 0.6] + [0.0, 0.1, 0.5, 0.0]
    scale = ((predictions - targets[:, None]) ** 2).mean()

    def loss(weights):
        return ((targets - predictions @ weights) ** 2).sum() + prior * scale * ((weights - 0.25) ** 2).sum()

    constraint = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    options = {"ftol": 1e-14, "maxiter": 500}
    expected = minimize(loss, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints=constraint, options=options)
    found = blend_weights(torch.from_numpy(predictions), torch.from_numpy(targets), prior)
    np.testing.assert_allclose(found.numpy(), expected.x, atol=1e-5)


def test_few_rows_leave_weights_near_equal_and_many_do_not():
    draw = torch.Generator().manual_seed(0)
    targets = torch.randn(2000, generator=draw)
    noise = torch.randn(2000, 2, generator=draw) * torch.tensor([0.3, 3.0])
    predictions = targets[:, None] + noise
    few, many = (blend_weights(predictions[:rows], targets[:rows])[0].item() for rows in (4, 2000))
    assert 0.5 < few < 0.7
    assert many > 0.9
    assert blend_weights(predictions[:0], targets[:0]).tolist() == pytest.approx([0.5, 0.5])


def test_unmeasured_rows_say_nothing():
    targets = torch.tensor([0.0, 10.0, float("nan")])
    predictions = torch.tensor([[1.0, -3.0], [11.0, 11.0], [5.0, 900.0]])
    assert blend_weights(predictions, targets, prior=0.0).tolist() == pytest.approx([0.75, 0.25])


def test_members_alike_and_without_error_share():
    targets = torch.tensor([1.0, 2.0, 4.0])
    assert blend_weights(targets[:, None].expand(-1, 3), targets).tolist() == pytest.approx([1 / 3] * 3)


@given(rows=st.integers(0, 12), members=st.integers(1, 5), prior=st.sampled_from([0.0, 1.0, 30.0]), seed=st.integers(0))
def test_a_blend_is_never_outside_the_range_of_its_members(rows, members, prior, seed):
    draw = torch.Generator().manual_seed(seed % 2**31)
    blend = Blend(members, outputs=2, prior=prior)
    blend.fit(torch.randn(rows, 2, members, generator=draw), torch.randn(rows, 2, generator=draw))
    assert (blend.weights >= 0).all()
    torch.testing.assert_close(blend.weights.sum(1), torch.ones(2, dtype=torch.float64))
    predictions = torch.randn(9, 2, members, generator=draw)
    blended = blend(predictions)
    assert (blended >= predictions.min(-1)[0] - 1e-5).all()
    assert (blended <= predictions.max(-1)[0] + 1e-5).all()


def test_outputs_have_weights_of_their_own_unless_they_are_classes():
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    first_right = torch.stack([targets[:, :1], 1 - targets[:, :1]], -1)
    second_right = torch.stack([1 - targets[:, 1:], targets[:, 1:]], -1)
    blend = Blend(2, outputs=2, prior=0.0)
    blend.fit(torch.cat([first_right, second_right], 1), targets)
    torch.testing.assert_close(blend.weights, torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    blend.fit_shared(torch.cat([first_right, second_right], 1), targets)
    torch.testing.assert_close(blend.weights, torch.full((2, 2), 0.5, dtype=torch.float64))


def test_what_cannot_be_blended():
    with pytest.raises(QuintetError, match="11 models"):
        blend_weights(torch.zeros(3, 11), torch.zeros(3))
    with pytest.raises(QuintetError, match="no number"):
        blend_weights(torch.tensor([[float("nan"), 1.0]]), torch.zeros(1))
