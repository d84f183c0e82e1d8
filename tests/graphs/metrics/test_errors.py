"""Errors of several targets with gaps, against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from quintet.graphs.metrics.errors import error_metrics

SCALE = [2.0, 0.5]


@pytest.fixture
def seen():
    """Standardised predictions and truths of 40 graphs, a third of the truths unknown."""
    draw = torch.Generator().manual_seed(0)
    truth, noise = torch.randn(40, 2, generator=draw), torch.randn(40, 2, generator=draw)
    truth[torch.rand(40, 2, generator=draw) < 0.3] = torch.nan
    return truth.nan_to_num(0.5) + 0.3 * noise, truth


def measured(predictions, truth, target=None, scale=SCALE):
    metrics = error_metrics(scale, target)
    for part in (slice(0, 7), slice(7, 40)):
        metrics.update(predictions[part], truth[part])
    return {name: float(value) for name, value in metrics.compute().items()}


def of_scikit_learn(predictions, truth, scale):
    known = truth.isfinite()
    y, estimate = (scale * values[known].double().numpy() for values in (truth, predictions))
    return {
        "mae": mean_absolute_error(y, estimate),
        "rmse": root_mean_squared_error(y, estimate),
        "r2": r2_score(y, estimate),
    }


@pytest.mark.parametrize("target", [0, 1])
def test_each_target_is_measured_in_its_units(seen, target):
    predictions, truth = seen
    expected = of_scikit_learn(predictions[:, target], truth[:, target], SCALE[target])
    assert measured(predictions, truth, target) == pytest.approx(expected, rel=1e-9)


def test_several_targets_count_in_units_of_their_deviations(seen):
    predictions, truth = seen
    each = [of_scikit_learn(predictions[:, at], truth[:, at], 1.0) for at in range(2)]
    expected = {name: np.mean([own[name] for own in each]) for name in each[0]}
    assert measured(predictions, truth) == pytest.approx(expected, rel=1e-9)


def test_one_target_counts_in_its_units(seen):
    predictions, truth = (values[:, :1] for values in seen)
    expected = of_scikit_learn(predictions[:, 0], truth[:, 0], SCALE[0])
    assert measured(predictions, truth, scale=SCALE[:1]) == pytest.approx(expected, rel=1e-9)


def test_a_target_that_nobody_knows_is_left_out(seen):
    predictions, truth = seen
    gone = truth.clone()
    gone[:, 1] = torch.nan
    alone = {name: value / SCALE[0] for name, value in measured(predictions, truth, 0).items() if name != "r2"}
    found = measured(predictions, gone)
    assert {name: found[name] for name in alone} == pytest.approx(alone)
    assert np.isnan(measured(predictions, gone, 1)["rmse"])
