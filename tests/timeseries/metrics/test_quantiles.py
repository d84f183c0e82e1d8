"""Quantile metrics by their definitions."""

import numpy as np
import pytest
import torch

from quintet.timeseries.metrics import Coverage, PinballLoss
from quintet.timeseries.metrics.quantiles import IntervalWidth, pinball


def test_pinball_by_hand():
    levels = torch.tensor([0.1, 0.5])
    found = pinball(torch.tensor([[1.0, 1.0]]), torch.tensor([3.0]), levels)
    assert torch.allclose(found, torch.tensor([[0.2, 1.0]]))
    found = pinball(torch.tensor([[3.0, 3.0]]), torch.tensor([1.0]), levels)
    assert torch.allclose(found, torch.tensor([[1.8, 1.0]]))


def test_the_quantile_has_the_least_pinball_loss():
    draws = np.random.default_rng(0).normal(size=20000)
    level, guesses = 0.9, np.linspace(0.5, 2.0, 151)
    targets = torch.from_numpy(draws)
    losses = [
        pinball(torch.full((len(draws), 1), guess, dtype=torch.float64), targets, torch.tensor([level]).double()).mean()
        for guess in guesses
    ]
    assert guesses[int(np.argmin(losses))] == pytest.approx(np.quantile(draws, level), abs=0.02)


def test_masked_loss_and_coverage():
    predictions = torch.tensor([[[[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]]]])
    targets = torch.tensor([[[1.5], [3.0], [float("nan")]]])
    loss, coverage = PinballLoss([0.1, 0.5, 0.9]), Coverage()
    loss.update(predictions, targets)
    coverage.update(predictions, targets)
    by_hand = [(0.1 * 1.5 + 0.5 * 0.5 + 0.1 * 0.5) / 3, (0.1 * 3 + 0.5 * 2 + 0.9 * 1) / 3]
    assert loss.compute().item() == pytest.approx(np.mean(by_hand))
    assert coverage.compute().item() == pytest.approx(0.5)


def test_width_from_the_lowest_to_the_highest_quantile():
    predictions = torch.tensor([[[[1.0, 2.0, 4.0]], [[-3.0, 0.0, 2.0]], [[0.0, 50.0, 100.0]]]])
    width = IntervalWidth()
    width.update(predictions, torch.tensor([[[0.0], [9.0], [float("nan")]]]))
    assert width.compute().item() == pytest.approx((3 + 5) / 2)
