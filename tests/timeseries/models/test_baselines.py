"""The baselines by their definitions: seasons by hand, the ridge by numpy's least squares in float64."""

import numpy as np
import pytest
import torch

from quintet.timeseries import SeriesData
from quintet.timeseries.models import RidgeForecaster, seasonal_naive

NAN = float("nan")


def test_the_last_season_again():
    values = torch.arange(7.0)[None, :, None]
    assert seasonal_naive(values, 5, 3).flatten().tolist() == [4, 5, 6, 4, 5]
    assert seasonal_naive(values, 2, 1).flatten().tolist() == [6, 6]
    assert seasonal_naive(values, 2, 30).flatten().tolist() == [6, 6]


def test_what_was_not_observed_comes_from_the_season_before():
    values = torch.tensor([1.0, 2, 3, 4, NAN, 6])[None, :, None]
    assert seasonal_naive(values, 3, 3).flatten().tolist() == [4, 2, 6]
    values = torch.tensor([1.0, NAN, 3, 4, NAN, 6])[None, :, None]
    assert seasonal_naive(values, 3, 3).flatten().tolist() == [4, 3.5, 6]
    values = torch.tensor([1.0, 2, 3, NAN])[None, :, None]
    assert seasonal_naive(values, 3, 3).flatten().tolist() == [2, 3, 1]


def test_ridge_is_penalised_least_squares():
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(50, 6, 2, generator=generator)
    target = torch.randn(50, 3, 2, generator=generator)
    ridge = RidgeForecaster(6, 3, penalty=0.1)
    ridge.fit([(context[:20], target[:20]), (context[20:], target[20:])])
    x = context.double().numpy().transpose(0, 2, 1).reshape(-1, 6)
    y = target.double().numpy().transpose(0, 2, 1).reshape(-1, 3)
    mean = x.mean(1, keepdims=True)
    # Least squares with the penalty as further rows: an independent way to the same map.
    rows = np.concatenate([x - mean, np.sqrt(0.1 * len(x)) * np.eye(6)])
    expected, *_ = np.linalg.lstsq(rows, np.concatenate([y - mean, np.zeros((6, 3))]), rcond=None)
    assert np.allclose(ridge.weight.numpy(), expected, atol=1e-6)
    forecast = (x - mean) @ expected + mean
    assert np.allclose(ridge(context).transpose(1, 2).reshape(-1, 3).numpy(), forecast, atol=1e-5)


def test_ridge_and_missing_values():
    context, target = torch.randn(40, 6, 2), torch.randn(40, 3, 2)
    target[:10, 1, 0] = NAN
    ridge, other = RidgeForecaster(6, 3), RidgeForecaster(6, 3)
    ridge.fit([(context, target)])
    pairs = [(context[:10, :, 1:], target[:10, :, 1:]), (context[10:], target[10:])]
    other.fit(pairs)
    assert torch.allclose(ridge.weight, other.weight, atol=1e-5)
    context[0, 2] = NAN
    assert ridge(context).isfinite().all()


def test_unfitted_is_nan():
    assert RidgeForecaster(6, 3)(torch.randn(1, 6, 1)).isnan().all()


def test_ridge_on_etth1(shared_data):
    data = SeriesData(shared_data("ts_ett") / "ETTh1.csv", 96, 96, split="ett-hour")
    data.setup()
    ridge = RidgeForecaster(96, 96)
    train = data.datasets["train"].__getitems__(range(8449))
    ridge.fit([(train.context, train.target)])
    test = data.datasets["test"].__getitems__(range(2785))
    errors = ridge(test.context) - test.target
    assert errors.square().mean().item() == pytest.approx(0.383, abs=1e-3)
    assert errors.abs().mean().item() == pytest.approx(0.392, abs=1e-3)
