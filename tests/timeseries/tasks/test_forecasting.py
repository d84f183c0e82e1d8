"""The forecaster: losses, masks, quantiles, baselines beside it, and forecasts of the future in the user's units."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from quintet.cli import main
from quintet.core.attention import GatedLinearAttention
from quintet.core.data.module import DataModule
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.timeseries import Forecaster, SeriesData
from quintet.timeseries.data import Windows
from quintet.timeseries.models import ITransformer
from quintet.timeseries.models._shared import window_std
from quintet.timeseries.tasks.distributions import StudentT

CHECKPOINT = "ckpt_path=run/checkpoints/best.ckpt"
SMALL = {"dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.0}


def built(path, data_arguments=None, **arguments) -> tuple[Forecaster, SeriesData]:
    data = SeriesData(path, 24, 6, **data_arguments or {})
    data.setup()
    torch.manual_seed(0)
    task = Forecaster(**{"backbone_arguments": SMALL} | arguments)
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


def test_a_distribution_gives_any_quantile(csv):
    task, data = built(csv(), distribution="student_t")
    batch = batch_of(data)
    batch.target[0, 2, 1] = torch.nan
    result = task.step(batch)
    assert task.quantiles == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert result.predictions.shape == (8, 6, 2, 9)
    assert (result.predictions.diff(dim=-1) > 0).all()
    outputs = task.outputs(batch.context, None, None)
    likelihood = task.head.loss(outputs, window_std(batch.context), batch.target)
    assert result.loss.item() == pytest.approx(likelihood.nanmean().item(), rel=1e-5)
    result.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in task.network.parameters())
    assert task.levels_of([0.95, 0.05]) == [0.05, 0.95]
    with task._quantiles_of([0.05]):
        assert task.quantiles == [0.05, 0.5]
        wide = task(batch.context)
    assert (wide[..., 0] < result.predictions[..., 0]).all()
    assert torch.equal(wide[..., 1], result.predictions[..., 4])
    with pytest.raises(QuintetError, match=r"quantiles=1\.5: levels lie between 0 and 1"):
        task.levels_of([1.5])


def test_a_distribution_of_ones_own(csv):
    task, data = built(csv(), distribution=StudentT, quantiles=[0.5])
    assert task.step(batch_of(data)).predictions.shape == (8, 6, 2, 1)


# What a network takes


ROLES = {"past": ["b"], "future": ["c"], "static": ["store"]}


def shops(table) -> pd.DataFrame:
    parts = [table(120, 3, seed).assign(store=name, unique_id=name) for seed, name in enumerate("xy")]
    return pd.concat(parts, ignore_index=True)


def test_every_covariate_reaches_the_forecast(table):
    task, data = built(shops(table), data_arguments=ROLES)
    batch = batch_of(data)
    loss = task.step(batch).loss
    loss.backward()
    assert all(parameter.grad.norm() > 0 for parameter in task.network.covariates.parameters())
    for role in ROLES:
        changed = batch.covariates._replace(**{role: getattr(batch.covariates, role) + 1})
        assert not torch.equal(task(batch.context, None, changed), task(batch.context, None, batch.covariates))
        nothing = batch.covariates._replace(**{role: torch.full_like(getattr(batch.covariates, role), torch.nan)})
        assert task(batch.context, None, nothing).isfinite().all()


def test_a_network_without_covariates_refuses_them(table):
    with pytest.raises(QuintetError, match=r"patchtst_small takes no past covariates \(b\); leave data.past out"):
        built(shops(table), backbone="patchtst_small", backbone_arguments={}, data_arguments={"past": ["b"]})


class Repeated(torch.nn.Module):
    """Forecasts the last value, and says what it was given."""

    levels = (0.1, 0.5, 0.9)
    reads_future_calendar = True
    takes = frozenset({"future"})

    def __init__(self, context: int, horizon: int, outputs: int) -> None:
        super().__init__()
        self.horizon, self.weight = horizon, torch.nn.Parameter(torch.zeros(()))

    def forward(self, values, observed=None, calendar=None, covariates=None):
        self.given = calendar, covariates
        return (values[:, -1:, :, None] + self.weight).expand(-1, self.horizon, -1, 3)


def test_a_network_decides_on_its_levels_and_sees_the_future_calendar(table):
    arguments = {"future": ["c"], "calendar": ["hour"]}
    task, data = built(shops(table), backbone=Repeated, backbone_arguments={}, data_arguments=arguments)
    assert task.quantiles == [0.1, 0.5, 0.9]
    assert task.point == 1
    task.step(batch_of(data))
    calendar, covariates = task.network.given
    assert calendar.shape == (8, 30, 1)
    assert covariates.future.shape == (8, 30, 1)
    for name, value in (("quantiles", [0.5]), ("distribution", "student_t")):
        option = {name: value}
        with pytest.raises(QuintetError, match=f"forecasts the levels 0.1, 0.5, 0.9; leave model.{name} out"):
            built(shops(table), backbone=Repeated, backbone_arguments={}, data_arguments=arguments, **option)


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
    from quintet.core.run.metrics_file import read_metrics

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
    before = set(run.rglob("*"))
    assert main(["predict", CHECKPOINT, "data.path=all.csv", "horizon=4", "output=future.csv"]) == 0
    found = pd.read_csv(run / "future.csv", parse_dates=["date"])
    assert list(found["date"]) == list(pd.date_range("2024-01-17 16:00", periods=4, freq="h"))
    columns = [f"{channel} quantile_{level}" for channel in "ab" for level in (0.1, 0.5, 0.9)]
    assert list(found.columns) == ["date", *columns]
    assert found["a quantile_0.5"].between(5, 15).all()
    assert found["b quantile_0.5"].between(50, 150).all()
    assert (found["b quantile_0.1"] <= found["b quantile_0.9"]).all()
    # No empty folder is left where nothing was written.
    assert set(run.rglob("*")) - before == {run / "future.csv", run / "future.png"}


def test_another_horizon_is_refused_and_not_ignored(run, capsys):
    before = set(run.rglob("*"))
    assert main(["predict", CHECKPOINT, "data.path=all.csv", "data.horizon=4", "output=four.csv"]) == 1
    error = capsys.readouterr().err
    assert "data.horizon=4: this model was trained with data.horizon=6; to forecast fewer steps give horizon=4" in error
    assert set(run.rglob("*")) == before


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


def test_a_grid_comes_back_with_its_coordinates(loaded, tmp_path):
    """From NetCDF to NetCDF: every coordinate but time is identical, and time goes on where it ended."""
    _, trainer, _ = loaded
    values = np.random.default_rng(0).normal(size=(80, 2, 3))
    values[:, 0, 1] = np.nan
    given = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values, {"units": "K", "long_name": "temperature"})},
        {
            "time": ("time", pd.date_range("2024", periods=80, freq="h"), {"long_name": "valid time"}),
            "lat": ("lat", [46.5, 45.5], {"units": "degrees_north"}),
            "lon": ("lon", [14.0, 15.0, 16.0], {"units": "degrees_east"}),
            "height": (("lat", "lon"), np.arange(6.0).reshape(2, 3), {"units": "m"}),
        },
        {"title": "a cube"},
    )
    given.to_netcdf(tmp_path / "given.nc", engine="h5netcdf")
    task, _ = built(tmp_path / "given.nc")
    data = SeriesData(tmp_path / "given.nc")
    data.adopt(task.description)
    task.predict(data, trainer, tmp_path, output=str(tmp_path / "out.nc"))
    with xr.open_dataset(tmp_path / "given.nc") as given, xr.open_dataset(tmp_path / "out.nc") as found:
        for name in ("lat", "lon", "height"):
            assert found[name].identical(given[name]), name
        assert found["t2m"].dims == ("lat", "lon", "time")
        assert found["t2m"].attrs == given["t2m"].attrs
        assert found["time"].attrs == given["time"].attrs
        assert found.attrs == given.attrs
        assert (found["time"].to_numpy() == pd.date_range("2024-01-04 08:00", periods=6, freq="h").to_numpy()).all()
        assert np.array_equal(found["t2m"].isnull().all("time"), given["t2m"].isnull().all("time"))


def test_the_future_with_covariates(loaded, table, tmp_path, capsys):
    _, trainer, _ = loaded
    frame = shops(table).assign(weather=["rain", "sun"] * 120)
    task, _ = built(frame, data_arguments=ROLES | {"future": ["c", "weather"]}, distribution="student_t")
    later = frame.copy()
    later.loc[later.index % 120 >= 114, ["a", "b"]] = np.nan
    later.loc[later.index % 120 == 119, "weather"] = "hail"
    paths = []
    for name, change in (("first", 0.0), ("second", 5.0)):
        later.loc[later.index % 120 == 119, "c"] += change
        data = SeriesData(later)
        data.adopt(task.description)
        paths += task.predict(data, trainer, tmp_path, quantiles=[0.05, 0.5], output=str(tmp_path / f"{name}.csv"))
    assert "note: column 'weather' has 'hail', which no training row shows; masked" in capsys.readouterr().out
    first, second = (pd.read_csv(path, parse_dates=["date"]) for path in (paths[0], paths[2]))
    assert list(first.columns) == ["unique_id", "date", "a quantile_0.05", "a quantile_0.5"]
    assert first["date"].min() == pd.Timestamp("2024-01-05 18:00")
    assert (first["a quantile_0.05"] < first["a quantile_0.5"]).all()
    # What is known of the last step reaches the forecasts.
    assert not np.array_equal(first["a quantile_0.5"], second["a quantile_0.5"])


def test_a_constant_series_is_forecast_to_stay(loaded, csv, tmp_path):
    _, trainer, _ = loaded
    task, _ = built(csv())
    data = SeriesData(csv(lambda frame: frame.assign(a=9.0, b=90.0), name="constant.csv"))
    data.adopt(task.description)
    table, _ = task.predict(data, trainer, tmp_path)
    found = pd.read_csv(table)
    assert np.allclose(found["a"], 9.0, atol=0.1)
    assert np.allclose(found["b"], 90.0, atol=1.0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"horizon": 7}, "horizon=7: this model forecasts 1 to 6 steps; train one with data.horizon=7"),
        ({"horizon": 0}, "horizon=0: this model forecasts 1 to 6 steps"),
        ({"quantiles": [0.05]}, "quantiles=0.05: this model gives 0.1, 0.5, 0.9; train one with model.quantiles"),
        ({"output": "all.csv"}, "all.csv exists and is not overwritten"),
        ({"output": "future.xlsx"}, "output=future.xlsx: give a file that ends in .csv, .parquet, .nc, .zarr"),
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
