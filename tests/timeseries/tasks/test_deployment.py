"""What is exported of a forecaster or classifier: the user's own units in, gaps and all."""

import pytest
import torch

from quintet.core.run.export import traced, verified
from quintet.timeseries import LabelledSeriesDescription, SeriesClassifier
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


def test_which_axes_may_have_any_size():
    assert made().deployable().axes == {"values": {0: "batch"}, "calendar": {0: "batch"}}
    assert classifier("inception_time", filters=3, depth=3).deployable().axes == {"values": {0: "batch", 1: "time"}}


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


def classifier(backbone: str, **arguments) -> SeriesClassifier:
    torch.manual_seed(0)
    known = {"channels": ["x", "y"], "units": ["m", "m"], "mean": [1e3, -5.0], "std": [7.0, 0.1]}
    task = SeriesClassifier(backbone, arguments)
    task.adopt(LabelledSeriesDescription(**known, classes=["rest", "walk"], class_counts=[4, 4], longest=17))
    return task.eval()


@pytest.mark.compilation
@pytest.mark.parametrize(
    ("backbone", "arguments"), [("inception_time", {"filters": 3, "depth": 3}), ("patch_classifier", {"dim": 16})]
)
def test_a_classifier_is_traced_for_any_batch_and_length(backbone, arguments):
    task = classifier(backbone, **arguments)
    deployable = task.deployable()
    program, note = traced(deployable)
    assert note == ""
    module = program.module()
    assert deployable.other["values"].isnan().any()
    assert len(verified(deployable, lambda inputs: list(module(*inputs)))) == 3
    values = deployable.inputs["values"]
    scaled = ((values - torch.tensor([1e3, -5.0])) / torch.tensor([7.0, 0.1])).float()
    torch.testing.assert_close(module(values)[0], task(scaled).softmax(1), rtol=1e-4, atol=1e-5)
    assert deployable.about["classes"] == ["rest", "walk"]
