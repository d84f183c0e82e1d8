"""Point metrics against hand-computed numbers and float64 formulas, masked."""

import numpy as np
import pytest
import torch

from quintet.timeseries.metrics import (
    AbsoluteError,
    ErrorByStep,
    RootSquaredError,
    ScaledError,
    SquaredError,
    SymmetricPercentageError,
)
from quintet.timeseries.models import seasonal_naive

NAN = float("nan")
TARGETS = torch.tensor([[[1.0], [2.0]], [[NAN], [-4.0]]])
PREDICTIONS = torch.tensor([[[[1.5]], [[2.0]]], [[[9.0]], [[-2.0]]]])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (AbsoluteError(), (0.5 + 0 + 2) / 3),
        (SquaredError(), (0.25 + 0 + 4) / 3),
        (RootSquaredError(), ((0.25 + 0 + 4) / 3) ** 0.5),
        (SymmetricPercentageError([0.0], [1.0]), (200 * 0.5 / 2.5 + 0 + 200 * 2 / 6) / 3),
        (SymmetricPercentageError([10.0], [2.0]), (200 * 1 / 25 + 0 + 200 * 4 / 8) / 3),
    ],
)
def test_masked_means(metric, expected):
    metric.update(PREDICTIONS[:1], TARGETS[:1])
    metric.update(PREDICTIONS[1:], TARGETS[1:])
    assert metric.compute().item() == pytest.approx(expected)


def test_nothing_observed_is_nan():
    metric = AbsoluteError()
    metric.update(PREDICTIONS, torch.full_like(TARGETS, NAN))
    assert metric.compute().isnan()


def test_mase_leaves_out_what_has_no_scale():
    metric = ScaledError()
    targets, predictions = torch.tensor([[[2.0, 5.0]]]), torch.tensor([[[[1.0], [1.0]]]])
    metric.update(predictions, targets, torch.tensor([[0.5, 0.0]]))
    assert metric.compute().item() == pytest.approx(2.0)


def test_errors_by_step():
    metric = ErrorByStep(2, 1)
    metric.update(PREDICTIONS, TARGETS)
    assert torch.allclose(metric.compute(), torch.tensor([[0.5], [1.0]], dtype=torch.float64))


def test_seasonal_naive_of_monthly_data_by_hand(shared_data):
    """MASE and sMAPE of the last year again, from their definitions in numpy."""
    values = np.loadtxt(shared_data("ts_small") / "AirPassengers.csv", delimiter=",", skiprows=1, usecols=1)
    train, test = values[:-12], values[-12:]
    scale = np.abs(train[12:] - train[:-12]).mean()
    context, targets = (torch.tensor(part, dtype=torch.float32)[None, :, None] for part in (train, test))
    predictions = seasonal_naive(context, 12, 12).unsqueeze(-1)
    mase, smape = ScaledError(), SymmetricPercentageError([0.0], [1.0])
    mase.update(predictions, targets, torch.tensor([[scale]], dtype=torch.float32))
    smape.update(predictions, targets)
    assert mase.compute().item() == pytest.approx(np.abs(test - train[-12:]).mean() / scale, rel=1e-6)
    expected = (200 * np.abs(test - train[-12:]) / (test + train[-12:])).mean()
    assert smape.compute().item() == pytest.approx(expected, rel=1e-6)
