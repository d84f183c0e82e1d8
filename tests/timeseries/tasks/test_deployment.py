"""What is exported of a forecaster: the user's own units in and out, gaps and all."""

import pytest
import torch

from quintet.core.export import traced, verified
from quintet.timeseries.data import SeriesDescription
from quintet.timeseries.tasks import Forecaster


def made(quantiles=None, calendar=("hour", "day"), **known) -> Forecaster:
    torch.manual_seed(0)
    given = {"channels": ["load", "heat"], "units": ["MW", "°C"], "mean": [5e4, 12.0], "std": [7e3, 8.0]}
    given |= {"context": 12, "horizon": 3, "frequency": "h", "period": 1, "calendar": list(calendar)}
    description = SeriesDescription(**given, time="time", series="", seen_until={}, **known)
    task = Forecaster("itransformer", {"dim": 16, "depth": 1, "num_heads": 2}, quantiles=quantiles)
    task.adopt(description)
    return task.eval()


def test_forecasts_are_those_of_the_task_in_the_series_own_units():
    task = made([0.1, 0.5, 0.9])
    deployable = task.deployable()
    values, calendar = deployable.inputs.values()
    (found,) = deployable.module(values, calendar)
    scaled = ((values - task.mean) / task.std).float()
    assert values.isnan().any()
    torch.testing.assert_close(found, task.restored(task(scaled, calendar)), equal_nan=True)
    assert found.shape == (2, 3, 2, 3)
    assert found[:, :, 0].mean() > 1e4
    assert (found.diff(dim=-1) >= 0).all()
    assert deployable.about["units"] == ["MW", "°C"]


def test_a_calendar_is_asked_for_only_where_there_is_one():
    assert list(made().deployable().inputs) == ["values", "calendar"]
    assert list(made(calendar=()).deployable().inputs) == ["values"]


@pytest.mark.compilation
def test_a_forecaster_is_traced_for_any_batch_with_gaps_and_without():
    deployable = made([0.5]).deployable()
    program, note = traced(deployable)
    assert note == ""
    module = program.module()
    # Of three windows one has gaps; the single one has none, and the task then takes another way.
    assert deployable.other["values"].isnan().any()
    assert not deployable.other["values"][:1].isnan().any()
    assert len(verified(deployable, lambda inputs: list(module(*inputs)))) == 3
