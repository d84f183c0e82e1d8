"""The imputer: scored on hidden cells alone, beside lines and last values; originals untouched to the letter."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from quintet.cli import main
from quintet.core.attention import GatedLinearAttention
from quintet.core.errors import QuintetError
from quintet.core.run.metrics_file import read_metrics
from quintet.timeseries import ImputationData, Imputer
from quintet.timeseries.models import ITransformer

CHECKPOINT = "ckpt_path=run/checkpoints/best.ckpt"
SMALL = {"dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.0}


def built(path, **arguments):
    data = ImputationData(path, 24)
    data.setup()
    torch.manual_seed(0)
    task = Imputer(**{"backbone_arguments": SMALL} | arguments)
    task.adopt(data.description())
    return task.eval(), data


@pytest.fixture(scope="module")
def trained(tmp_path_factory, working_in):
    """A folder with a whole table, `whole.csv`, one with gaps, `gaps.csv`, and a run, `run`."""
    folder = tmp_path_factory.mktemp("gaps")
    hours, noise = np.arange(300), np.random.default_rng(0).normal(size=(2, 300)) / 10
    columns = {"a": 10 + np.sin(np.pi * hours / 12) + noise[0], "b": 100 + 10 * np.cos(np.pi * hours / 12) + noise[1]}
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=300, freq="h"), **columns})
    frame.to_csv(folder / "whole.csv", index=False)
    lines = (folder / "whole.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines]
    for row, column in [(5, 1), (6, 1), (7, 1), (40, 2), (299, 1)]:
        cells[row][column] = ""
    cells[80][2] = " 101.50"  # what a person may have written stays as it is
    kept = [",".join(row) for number, row in enumerate(cells) if number not in (60, 61)]
    (folder / "gaps.csv").write_text("\n".join(kept) + "\n")
    options = ["data.path=whole.csv", "data.length=24", "run_dir=run", "trainer.max_epochs=3", "trainer=cpu"]
    options += ["trainer.enable_progress_bar=false", "model.lr=5e-3", "model.block=4"]
    options += ["model.backbone_arguments={dim:16,depth:1,num_heads:2}"]
    with working_in(folder):
        assert main(["fit", "experiment=timeseries/impute", *options]) == 0
    return folder


@pytest.fixture
def run(trained, working_in):
    with working_in(trained):
        yield trained


def test_only_hidden_cells_count(csv):
    task, data = built(csv(lambda frame: frame.assign(a=frame["a"].where(frame.index % 5 > 0))))
    batch = data.datasets["val"].__getitems__(range(2))
    result = task.step(batch)
    hidden = result.targets.isfinite()
    assert not (hidden & result.seen).any()
    assert not (hidden & ~result.values.isfinite()).any()
    errors = (result.predictions.squeeze(-1) - result.targets)[hidden]
    assert result.loss.item() == pytest.approx(errors.square().mean().item(), rel=1e-5)
    metrics = task.metrics()
    metrics.update(result.predictions, result.targets)
    assert metrics.compute()["mae"].item() == pytest.approx(errors.abs().mean().item(), rel=1e-5)


def test_the_network_never_sees_what_is_hidden(csv):
    task, data = built(csv())
    batch = data.datasets["val"].__getitems__(range(2))
    clean = task.step(batch)
    hidden = clean.targets.isfinite()
    spoiled = torch.cat([batch.context, batch.target], 1).masked_fill(hidden, 1e6)
    other = task.step(batch._replace(context=spoiled[:, :12], target=spoiled[:, 12:]))
    assert torch.equal(clean.predictions, other.predictions)


def test_every_test_stands_beside_the_baselines(trained):
    last = read_metrics(trained / "run" / "metrics.csv")[-1]
    for metric in ("mae", "mse", "rmse"):
        assert {f"test/{metric}{name}" for name in ("", "_linear_interpolation", "_last_value")} <= set(last)
    assert last["test/mae_linear_interpolation"] < last["test/mae_last_value"]
    for name in ("filled", "error_by_gap", "learning_curves"):
        assert (trained / "run" / "pictures" / f"{name}.png").stat().st_size > 10_000


def test_originals_stay_to_the_letter(run):
    assert main(["predict", CHECKPOINT, "data.path=gaps.csv", "output=filled.csv"]) == 0
    text = {"dtype": str, "keep_default_na": False}
    given, found = pd.read_csv("gaps.csv", **text), pd.read_csv("filled.csv", **text)
    assert list(found.columns) == ["date", "a", "b", "a_filled", "b_filled"]
    assert list(pd.to_datetime(found["date"])) == list(pd.date_range("2024-01-01", periods=300, freq="h"))
    original = found.merge(given, on="date", suffixes=("", "_given"))
    assert len(original) == 298
    for channel in "ab":
        empty = original[f"{channel}_given"] == ""
        assert (original.loc[~empty, channel] == original.loc[~empty, f"{channel}_given"]).all()
        assert (original[f"{channel}_filled"] == empty.map(str)).all()
    assert found.index[found["a_filled"] == "True"].tolist() == [4, 5, 6, 59, 60, 298]
    assert found.index[found["b_filled"] == "True"].tolist() == [39, 59, 60]
    assert found["a"].astype(float).between(5, 15).all()
    assert found["b"].astype(float).between(50, 150).all()
    assert (run / "filled.png").is_file()


def test_netcdf_in_netcdf_out(run):
    frame = pd.read_csv("whole.csv", parse_dates=["date"]).set_index("date")
    frame.iloc[20:23, 0] = np.nan
    given = frame.to_xarray()
    given["a"].attrs["units"] = "kW"
    given.to_netcdf("gaps.nc", engine="h5netcdf")
    assert main(["predict", CHECKPOINT, "data.path=gaps.nc", "output=grid.nc"]) == 0
    with xr.open_dataset("grid.nc") as found:
        assert found["a"].attrs["units"] == "kW"
        kept = ~given["a"].isnull().values
        assert np.array_equal(found["a"].values[kept], given["a"].values[kept])
        assert np.array_equal(found["b"].values, given["b"].values)
        assert found["a_filled"].values.nonzero()[0].tolist() == [20, 21, 22]


def test_several_series_of_a_parquet_table_keep_their_bits_and_their_order(run):
    frame = pd.read_csv("whole.csv", parse_dates=["date"])
    both = pd.concat([frame.assign(unique_id="x", note="n"), frame[:100].assign(unique_id="y", note="m")])
    both = both.sort_values("date", kind="stable", ignore_index=True)
    both.loc[[10, 11, 50], "b"] = np.nan
    both.to_parquet("both.parquet")
    assert main(["predict", CHECKPOINT, "data.path=both.parquet", "output=both_filled.parquet"]) == 0
    found = pd.read_parquet("both_filled.parquet")
    empty = both["b"].isna()
    assert found["b_filled"].tolist() == empty.tolist()
    pd.testing.assert_frame_equal(found[both.columns][~empty], both[~empty])
    assert found["b"].notna().all()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["data.path=whole.csv"], "whole.csv has no gap to fill"),
        (["data.path=gaps.csv", "output=gaps.csv"], "gaps.csv exists and is not overwritten"),
        (["data.path=gaps.csv", "output=x.txt"], "output=x.txt: give a file that ends in .csv, .parquet, .nc"),
    ],
)
def test_what_predict_refuses(run, capsys, options, complaint):
    assert main(["predict", CHECKPOINT, *options]) == 1
    assert complaint in capsys.readouterr().err


def test_a_mixer_is_put_in(csv):
    task, _ = built(csv(), mixer=GatedLinearAttention, backbone_arguments={"dim": 32, "depth": 1})
    assert isinstance(task.network.encoder.blocks[0].mixer, GatedLinearAttention)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"missing": 0.0}, "model.missing is 0.0; the share of cells to hide lies between 0 and 1"),
        ({"block": 0}, "model.block is 0; give at least 1 row"),
        ({"backbone": ITransformer(8, 8, dim=8)}, "model.backbone is a built ITransformer"),
    ],
)
def test_what_is_refused(arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        Imputer(**arguments)
