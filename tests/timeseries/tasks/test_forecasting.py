"""The forecaster: losses, masks, quantiles, baselines beside it, and forecasts of the future in the user's units."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from quintet.cli import main
from quintet.core.attention import GatedLinearAttention
from quintet.core.data import DataModule
from quintet.core.errors import QuintetError
from quintet.core.task import load_task
from quintet.timeseries import Forecaster, SeriesData
from quintet.timeseries.data import Windows
from quintet.timeseries.models import ITransformer

CHECKPOINT = "ckpt_path=run/checkpoints/best.ckpt"
SMALL = {"dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.0}


def built(path, **arguments) -> tuple[Forecaster, SeriesData]:
    data = SeriesData(path, 24, 6)
    data.setup()
    torch.manual_seed(0)
    task = Forecaster(backbone_arguments=SMALL, **arguments)
    task.adopt(data.description())
    return task.eval(), data


def batch_of(data: DataModule, count: int = 8) -> Windows:
    return data.datasets["train"].__getitems__(range(count))


def test_losses_are_masked_means(csv):
    for loss, error in (("mse", torch.square), ("mae", torch.abs)):
        task, data = built(csv(), loss=loss)
        batch = batch_of(data)
        batch.target[0, 2, 1] = torch.nan
        result = task.step(batch)
        errors = error(result.predictions.squeeze(-1) - batch.target)
        assert result.loss.item() == pytest.approx(errors.nanmean().item(), rel=1e-5)
        result.loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in task.network.parameters())


def test_a_channel_that_shows_nothing_counts_nowhere(csv):
    task, data = built(csv())
    batch = batch_of(data)
    batch.context[:, :, 0] = torch.nan
    result = task.step(batch)
    assert result.targets[..., 0].isnan().all()
    expected = (result.predictions[..., 1, 0] - batch.target[..., 1]).square().mean()
    assert result.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_quantiles_never_cross(csv):
    task, data = built(csv(), quantiles=[0.1, 0.5, 0.9])
    predictions = task.step(batch_of(data)).predictions
    assert (predictions.diff(dim=-1) >= 0).all()
    assert {"pinball", "coverage"} <= set(task.metrics().keys())
    assert task.point == 1


def test_a_mixer_is_put_in(csv):
    data = SeriesData(csv(), 24, 6)
    task = Forecaster(mixer=GatedLinearAttention, backbone_arguments={"dim": 32, "depth": 1})
    task.adopt(data.description())
    assert isinstance(task.network.encoder.blocks[0].mixer, GatedLinearAttention)


def test_calendar_features_are_further_tokens(csv):
    data = SeriesData(csv(), 24, 6, calendar=["hour", "weekday"])
    data.setup()
    task = Forecaster(backbone_arguments=SMALL)
    task.adopt(data.description())
    batch = batch_of(data)
    assert batch.calendar.shape == (8, 30, 2)
    task.eval()
    with_hours = task.step(batch).predictions
    assert not torch.equal(with_hours, task(batch.context))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"quantiles": [0.1, 0.9]}, r"model.quantiles is \[0.1, 0.9\]; give rising levels between 0 and 1 with 0.5"),
        ({"quantiles": [0.9, 0.5]}, "give rising levels"),
        ({"quantiles": [0.5, 1.5]}, "give rising levels"),
        ({"backbone": ITransformer(8, 4, dim=8)}, "model.backbone is a built ITransformer"),
    ],
)
def test_what_is_refused(arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        Forecaster(**arguments)


def test_pretrained_from_a_file(csv, tmp_path, capsys):
    path = tmp_path / "weights.pth"
    source = ITransformer(24, 6, **SMALL)
    torch.save(source.state_dict(), path)
    task, _ = built(csv(), pretrained=str(path))
    assert torch.equal(task.network.embedding.weight, source.embedding.weight)
    assert "tensors loaded" in capsys.readouterr().out


# Commands, on one small run


def test_every_test_stands_beside_the_baselines(run):
    from quintet.core.metrics_file import read_metrics

    last = read_metrics(run / "run" / "metrics.csv")[-1]
    for metric in ("mae", "mse", "rmse", "smape", "mase"):
        assert {f"test/{metric}", f"test/{metric}_ridge", f"test/{metric}_seasonal_naive"} <= set(last)
    assert last["test/mae_ridge"] < last["test/mae_seasonal_naive"]
    for name in ("forecasts", "error_by_step", "learning_curves"):
        assert (run / "run" / "pictures" / f"{name}.png").stat().st_size > 10_000


def test_a_checkpoint_holds_everything(run):
    task = load_task(run / "run" / "checkpoints" / "best.ckpt")
    assert task.description.channels == ["a", "b"]
    assert task.ridge.weight.isfinite().all()


def test_the_future_in_the_users_units(run, capsys):
    assert main(["predict", CHECKPOINT, "data.path=all.csv", "horizon=4", "output=future.csv"]) == 0
    found = pd.read_csv(run / "future.csv", parse_dates=["date"])
    assert list(found["date"]) == list(pd.date_range("2024-01-17 16:00", periods=4, freq="h"))
    columns = [f"{channel} quantile_{level}" for channel in "ab" for level in (0.1, 0.5, 0.9)]
    assert list(found.columns) == ["date", *columns]
    assert found["a quantile_0.5"].between(5, 15).all()
    assert found["b quantile_0.5"].between(50, 150).all()
    assert (found["b quantile_0.1"] <= found["b quantile_0.9"]).all()
    assert (run / "future.png").is_file()


def test_netcdf_in_netcdf_out(run):
    frame = pd.read_csv("all.csv", parse_dates=["date"]).set_index("date")
    given = frame.to_xarray()
    given["a"].attrs["units"] = "kW"
    given.to_netcdf("all.nc", engine="h5netcdf")
    assert main(["predict", CHECKPOINT, "data.path=all.nc", "quantiles=[0.1]", "output=low.nc"]) == 0
    with xr.open_dataset(run / "low.nc") as found:
        assert found["a"].dims == ("date", "quantile")
        assert found.sizes == {"date": 6, "quantile": 1}
        assert found["a"].attrs == {"units": "kW"}
        both = np.concatenate([given["date"], found["date"]])
        assert (both == pd.date_range("2024-01-01", periods=406, freq="h").to_numpy()).all()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"horizon": 7}, "horizon=7: this model forecasts 1 to 6 steps; train one with data.horizon=7"),
        ({"horizon": 0}, "horizon=0: this model forecasts 1 to 6 steps"),
        ({"quantiles": [0.05]}, "quantiles=0.05: this model gives 0.1, 0.5, 0.9; train one with model.quantiles"),
        ({"output": "all.csv"}, "all.csv exists and is not overwritten"),
        ({"output": "future.xlsx"}, "output=future.xlsx: give a file that ends in .csv, .parquet, .nc"),
        ({"output": "nowhere/x.csv"}, "no folder nowhere for x.csv"),
    ],
)
def test_what_predict_refuses(run, loaded, options, complaint):
    task, trainer, read = loaded
    with pytest.raises(QuintetError) as caught:
        task.predict(read("all.csv"), trainer, run, **options)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_refused(run, capsys):
    assert main(["predict", CHECKPOINT, "data.path=all.csv", "horizons=3"]) == 1
    assert "predict has no option 'horizons'; nearest: horizon" in capsys.readouterr().err
