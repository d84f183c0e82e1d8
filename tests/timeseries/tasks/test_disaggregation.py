"""The disaggregator: masked losses, baselines, no leak, a run that learns, and tables in watts."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from quintet.cli import main
from quintet.core.attention import GatedLinearAttention
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.core.run.metrics_file import read_metrics
from quintet.timeseries import DisaggregationData, Disaggregator
from quintet.timeseries.models import NILMFormer
from quintet.timeseries.tasks.disaggregation import merged

CHECKPOINT = "ckpt_path=run/checkpoints/best.ckpt"
SMALL = {"dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.0}


@pytest.fixture
def built(house):
    """Function to a task and its data, from the loads of a household after `change(loads)`."""

    def make(change=None, **arguments):
        frame = house() if change is None else change(house())
        data = DisaggregationData(frame, length=20)
        data.setup()
        torch.manual_seed(0)
        task = Disaggregator(backbone_arguments=SMALL, **arguments)
        task.adopt(data.description())
        return task.eval(), data

    return make


@pytest.mark.parametrize(("loss", "error"), [("mse", torch.square), ("mae", torch.abs)])
def test_losses_are_masked_means(built, loss, error):
    task, data = built(loss=loss)
    batch = data.datasets["train"].__getitems__(range(6))
    batch.context[0, 2, 1] = torch.nan  # an appliance
    batch.target[1, 3, 0] = torch.nan  # the load, without which no appliance counts
    result = task.step(batch)
    assert result.targets.isnan().sum() == 1 + 2
    assert result.loss.item() == pytest.approx(error(result.predictions - result.targets).nanmean().item(), rel=1e-5)
    result.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in task.network.parameters())


def test_baselines_in_watts(built):
    task, data = built()
    batch = data.datasets["test"].__getitems__([0])
    load = torch.cat([batch.context, batch.target], 1)[..., 0]
    share = task.restored(task.baselines(load)["share"])
    watts = load.double().unsqueeze(-1) * task.scale[0]
    torch.testing.assert_close(share, watts * torch.tensor(task.description.shares), rtol=1e-5, atol=1e-3)


def test_what_comes_after_the_training_rows_changes_nothing_before(built):
    def garbage(frame):
        frame.loc[240:, ["aggregate", "kettle", "fridge"]] = 1e5 + np.tile(np.arange(160)[:, None] ** 2, 3)
        return frame

    (_, one), (_, other) = built(), built(garbage)
    first, second = one.description(), other.description()
    assert (first.std, first.thresholds, first.shares) == (second.std, second.thresholds, second.shares)
    indices = range(len(one.datasets["train"]))
    batches = [data.datasets["train"].__getitems__(indices) for data in (one, other)]
    for left, right in zip(batches[0][:3], batches[1][:3], strict=True):
        assert torch.equal(left, right)


def test_a_mixer_is_put_in(house):
    data = DisaggregationData(house(), length=20, calendar=[])
    task = Disaggregator(mixer=GatedLinearAttention, backbone_arguments={"dim": 32, "depth": 1})
    task.adopt(data.description())
    assert isinstance(task.network.blocks[0].mixer, GatedLinearAttention)
    assert task.network.calendar is None


def test_what_is_refused():
    with pytest.raises(QuintetError, match="is a built NILMFormer"):
        Disaggregator(backbone=NILMFormer(dim=8))


# Commands, on one small run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, house, working_in):
    """A folder with loads, `house.csv`, and a run trained on them, `run`."""
    folder = tmp_path_factory.mktemp("loads")
    house(2000).to_csv(folder / "house.csv", index=False)
    options = ["data.path=house.csv", "data.length=40", "data.stride=8", "run_dir=run", "trainer=cpu", "model.lr=1e-2"]
    options += ["trainer.max_epochs=10", "trainer.enable_progress_bar=false"]
    options += ["model.backbone_arguments={dim:16,depth:1,num_heads:2,dropout:0.0}"]
    with working_in(folder):
        assert main(["fit", "experiment=timeseries/disaggregate", *options]) == 0
    return folder


@pytest.fixture
def run(folder, working_in):
    """The folder of that run, in which the test runs; tests read it and add to it, but change nothing."""
    with working_in(folder):
        yield folder


def test_it_learns_and_stands_beside_what_it_must_beat(run):
    last = read_metrics(run / "run" / "metrics.csv")[-1]
    assert last["test/f1_kettle"] > 0.9
    assert last["test/mae"] < 0.5 * min(last["test/mae_share"], last["test/mae_off"])
    assert last["test/matching_ratio"] > last["test/matching_ratio_share"] + 0.2
    assert last["test/rmse_fridge"] < last["test/rmse_kettle"]
    for name in ("loads", "mean_loads", "learning_curves"):
        assert (run / "run" / "pictures" / f"{name}.png").stat().st_size > 10_000


def test_a_table_in_watts(run, house):
    given = house(2100, seed=3)[["date", "aggregate"]]
    given.loc[50:52, "aggregate"] = np.nan
    given.to_csv("new.csv", index=False)
    assert main(["predict", CHECKPOINT, "data.path=new.csv", "output=new_appliances.csv"]) == 0
    found = pd.read_csv("new_appliances.csv", parse_dates=["date"])
    assert list(found.columns) == ["date", "aggregate", "kettle", "fridge", "kettle_on", "fridge_on"]
    assert (found["date"] == given["date"]).all()
    assert found["kettle"].isna().to_numpy().nonzero()[0].tolist() == [50, 51, 52]
    truth = house(2100, seed=3)
    assert (found["kettle_on"] == (truth["kettle"] > 0)).mean() > 0.97
    assert (found.loc[truth["kettle"] > 0, "kettle"] - 2000).abs().median() < 300
    assert (found["kettle"].dropna() >= 0).all()
    assert (run / "new_appliances.png").stat().st_size > 10_000


def test_netcdf_with_units(run):
    assert main(["predict", CHECKPOINT, "data.path=house.csv", "output=loads.nc"]) == 0
    with xr.open_dataset("loads.nc") as found:
        assert found.sizes == {"date": 2000}
        assert found["kettle"].attrs["units"] == "W"
        assert found["kettle_on"].dtype == bool


def test_the_last_row_is_told_by_its_own_windows_alone(run, house):
    """What stands in one place of the load changes nothing a window away."""
    task = load_task("run/checkpoints/best.ckpt")
    given, other = house(200), house(200)
    other.loc[:60, "aggregate"] = 3e4
    found = []
    for frame in (given, other):
        data = DisaggregationData(frame)
        data.adopt(task.description)
        data.setup("predict")
        batch = data.datasets["predict"].__getitems__(range(len(data.datasets["predict"])))
        with torch.no_grad():
            result = task.predict_step(batch, 0)
        found.append(merged(data, [result])[0])
    np.testing.assert_array_equal(found[0][120:], found[1][120:])
    assert not np.allclose(found[0][:60], found[1][:60])


def test_nothing_is_overwritten_and_a_short_file_is_refused(run, house, capsys):
    (run / "taken.csv").write_text("mine")
    assert main(["predict", CHECKPOINT, "data.path=house.csv", "output=taken.csv"]) == 1
    house(30).to_csv("short.csv", index=False)
    assert main(["predict", CHECKPOINT, "data.path=short.csv", "output=short_appliances.csv"]) == 1
    said = capsys.readouterr().err
    assert "taken.csv exists and is not overwritten" in said
    assert "short.csv has 30 rows; the model sees windows of 40" in said
