"""Metrics of disaggregation by hand, masked, clipped at zero, in the user's units."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, mean_absolute_error, root_mean_squared_error

from quintet.timeseries.metrics.appliances import MatchingRatio, MeanLoad, PowerError, RootPowerError, RunningF1

SCALE = [100.0, 2000.0]
THRESHOLDS = [30.0, 900.0]


def loads(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.rand(4, 9, 2, generator=generator) * 1.2 - 0.2
    targets = torch.rand(4, 9, 2, generator=generator)
    targets[1, 3:7, 0] = torch.nan
    return predictions, targets


def by_hand(at: int) -> tuple[np.ndarray, np.ndarray]:
    predictions, targets = (part[..., at].double().numpy().ravel() * SCALE[at] for part in loads())
    counted = np.isfinite(targets)
    return np.clip(predictions[counted], 0, None), targets[counted]


@pytest.mark.parametrize("at", [0, 1])
def test_against_scikit_learn(at):
    estimate, truth = by_hand(at)
    expected = {
        PowerError(SCALE, at): mean_absolute_error(truth, estimate),
        RootPowerError(SCALE, at): root_mean_squared_error(truth, estimate),
        MatchingRatio(SCALE, at): np.minimum(truth, estimate).sum() / np.maximum(truth, estimate).sum(),
        RunningF1(SCALE, THRESHOLDS, at): f1_score(truth >= THRESHOLDS[at], estimate >= THRESHOLDS[at]),
    }
    predictions, targets = loads()
    for metric, value in expected.items():
        for part in zip(predictions.split(3), targets.split(3), strict=True):
            metric.update(*part)
        assert metric.compute().item() == pytest.approx(value, rel=1e-6)


def test_the_mean_of_appliances():
    metrics = [PowerError(SCALE), PowerError(SCALE, 0), PowerError(SCALE, 1)]
    for metric in metrics:
        metric.update(*loads())
    both, first, second = (metric.compute().item() for metric in metrics)
    assert both == pytest.approx((first + second) / 2)
    mean = MeanLoad(SCALE)
    mean.update(*loads())
    assert mean.compute()[0].item() == pytest.approx(by_hand(0)[0].mean())


def test_what_cannot_be_measured_is_nan_and_left_out_of_the_mean():
    predictions, targets = torch.zeros(1, 5, 2), torch.zeros(1, 5, 2)
    targets[..., 1] = 1.0
    predictions[..., 1] = 1.0
    never, mean = RunningF1(SCALE, THRESHOLDS, 0), RunningF1(SCALE, THRESHOLDS)
    for metric in (never, mean):
        metric.update(predictions, targets)
    assert never.compute().isnan()
    assert mean.compute().item() == 1.0
