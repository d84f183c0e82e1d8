"""Losses are means over what counts, be it everything, one value or nothing."""

import pytest
import torch

from quintet.timeseries import AnomalyDetector, Forecaster, Imputer, SeriesData
from quintet.timeseries.data import Windows
from quintet.timeseries.tasks import imputation

SMALL = {"dim": 8, "depth": 1, "num_heads": 2, "dropout": 0.0}
SQUARED = {"mse": torch.square, "mae": torch.abs}


def built(path, kind, **arguments):
    data = SeriesData(path, 24, 6)
    data.setup()
    torch.manual_seed(0)
    task = kind(backbone="itransformer", backbone_arguments=SMALL, **arguments)
    task.adopt(data.description())
    return task.eval(), data.datasets["train"].__getitems__(range(4))


def leave(batch: Windows, count: int) -> None:
    """All targets but the first `count` of the last channel are unknown."""
    known = torch.zeros_like(batch.target, dtype=torch.bool)
    known[0, :count, -1] = True
    batch.target.masked_fill_(~known, torch.nan)


@pytest.mark.parametrize("loss", SQUARED)
@pytest.mark.parametrize("count", [None, 1, 2])
def test_of_forecasts(csv, loss, count):
    task, batch = built(csv(), Forecaster, loss=loss)
    if count is not None:
        leave(batch, count)
    result = task.step(batch)
    errors = SQUARED[loss](result.predictions[..., 0] - batch.target)
    assert errors.isfinite().sum() == (batch.target.numel() if count is None else count)
    assert result.loss.item() == pytest.approx(errors.nanmean().item(), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_of_anomalies(csv, count):
    task, batch = built(csv(), AnomalyDetector, score_by="forecast")
    leave(batch, count)
    result = task.step(batch)
    errors = (result.predictions[..., 0] - batch.target).square()
    assert result.loss.item() == pytest.approx(errors.nanmean().item(), rel=1e-5)


@pytest.mark.parametrize("loss", SQUARED)
@pytest.mark.parametrize("count", [1, 2])
def test_of_gaps(csv, monkeypatch, loss, count):
    def first_cells(observed, *_):
        hidden = torch.zeros_like(observed)
        hidden[0, :count, -1] = True
        return hidden

    monkeypatch.setattr(imputation, "repeatable_cells", first_cells)
    task, batch = built(csv(), Imputer, loss=loss)
    result = task.step(batch)
    errors = SQUARED[loss](result.predictions[0, :count, -1, 0] - batch.context[0, :count, -1])
    assert result.loss.item() == pytest.approx(errors.mean().item(), rel=1e-5)


@pytest.mark.parametrize("kind", [Forecaster, AnomalyDetector, Imputer])
def test_of_nothing_is_zero_and_moves_no_weight(csv, kind):
    task, batch = built(csv(), kind)
    batch.context.fill_(torch.nan)
    batch.target.fill_(torch.nan)
    loss = task.step(batch).loss
    assert loss.item() == 0
    loss.backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in task.network.parameters())
