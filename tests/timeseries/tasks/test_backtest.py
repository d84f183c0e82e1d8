"""Backtests: their table, their scores, and that nothing after a cutoff reaches its forecast."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.timeseries import SeriesData
from quintet.timeseries.data import SeriesDescription
from quintet.timeseries.tasks.backtest import cutoffs_of, summary

CHECKPOINT = "ckpt_path=run/checkpoints/best.ckpt"


def test_a_backtest_is_a_table_beside_the_baselines(run, capsys):
    assert main(["backtest", CHECKPOINT, "data.path=all.csv", "cutoffs=4", "output=backtest.parquet"]) == 0
    assert "seasonal naive" in capsys.readouterr().out
    found = pd.read_parquet(run / "backtest.parquet")
    assert len(found) == 4 * 6 * 2
    truth = pd.read_csv(run / "all.csv", parse_dates=["date"]).set_index("date")
    expected = [truth.loc[date, channel] for date, channel in zip(found["date"], found["channel"])]
    assert np.allclose(found["truth"], expected, rtol=1e-6)
    assert (found["date"] - found["cutoff"] == pd.to_timedelta(found["step"], "h")).all()
    scores = pd.read_csv(run / "backtest_scores.csv")
    assert list(scores["forecaster"].unique()) == ["forecast", "ridge", "seasonal_naive"]
    errors = (found["truth"] - found["ridge"]).abs().groupby(found["channel"]).mean()
    assert np.allclose(scores[scores["forecaster"] == "ridge"]["mae"], errors)
    assert (run / "backtest_forecasts.png").is_file()
    assert (run / "backtest_error_by_step.png").is_file()


def test_nothing_after_a_cutoff_reaches_its_forecast(run, loaded, tmp_path):
    task, trainer, read = loaded
    frame = pd.read_csv(run / "all.csv")
    first = 400 - 6 - 3 * 5
    frame.loc[first:, ["a", "b"]] = np.random.default_rng(0).normal(size=(400 - first, 2)) * 1e6
    frame.to_csv(run / "garbage.csv", index=False)
    for name in ("all", "garbage"):
        task.backtest(read(f"{name}.csv"), trainer, tmp_path, cutoffs=4, step=5, output=str(tmp_path / f"{name}.csv"))
    clean, spoiled = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("all", "garbage"))
    columns = ["forecast", "quantile_0.1", "quantile_0.9", "ridge", "seasonal_naive"]
    at_first = clean["cutoff"] == clean["cutoff"].min()
    assert clean[at_first][columns].equals(spoiled[at_first][columns])
    # The garbage is seen by the later cutoffs, so the comparison can fail.
    assert not clean[~at_first][columns].equals(spoiled[~at_first][columns])


def test_labelled_arrays_say_the_same_as_the_table(run, loaded, tmp_path):
    task, trainer, read = loaded
    for name in ("arrays.nc", "table.parquet"):
        task.backtest(read("all.csv"), trainer, tmp_path, cutoffs=3, output=str(tmp_path / name))
    table = pd.read_parquet(tmp_path / "table.parquet")
    with xr.open_dataset(tmp_path / "arrays.nc") as found:
        assert found["forecast"].dims == ("cutoff", "step", "channel")
        assert dict(found["quantiles"].sizes) == {"cutoff": 3, "step": 6, "channel": 2, "quantile": 3}
        row = table.iloc[20]
        at = {"cutoff": row["cutoff"], "step": row["step"], "channel": row["channel"]}
        for name in ("truth", "forecast", "ridge", "seasonal_naive"):
            assert found[name].sel(at).item() == row[name]
        assert found["quantiles"].sel(**at, quantile=0.9).item() == row["quantile_0.9"]
        assert pd.Timestamp(found["date"].sel(cutoff=row["cutoff"], step=row["step"]).item()) == row["date"]


def cutoffs(*rows, number, step=None, seen=None, context=8, horizon=6):
    """Of series of so many rows, the first of which was seen up to a row."""
    series = [SimpleNamespace(name=f"s{place}", values=np.zeros((count, 1))) for place, count in enumerate(rows)]
    data = Mock(spec=SeriesData)
    data.usable.return_value = SimpleNamespace(series=series, where="x.csv")
    data.stamps.side_effect = lambda place: pd.RangeIndex(rows[place])
    seen_until = {} if seen is None else {"s0": seen}
    known = Mock(spec=SeriesDescription, context=context, horizon=horizon, seen_until=seen_until)
    return cutoffs_of(data, known, number, step).tolist()


def test_cutoffs_by_hand():
    # 30 rows: the first forecast may begin at row 8, after the context, the last at 24.
    assert cutoffs(30, number=5) == [[8, 12, 16, 20, 24]]
    assert cutoffs(30, number=3) == [[12, 18, 24]]  # a horizon apart, no more
    assert cutoffs(30, number=2, step=1) == [[23, 24]]
    assert cutoffs(30, number=1) == [[24]]
    assert cutoffs(14, number=1) == [[8]]
    assert cutoffs(14, number=1, step=1) == [[8]]
    assert cutoffs(40, 30, number=5) == [[18, 22, 26, 30, 34], [8, 12, 16, 20, 24]]  # the shorter one decides
    assert cutoffs(30, number=5, seen=15) == [[16, 18, 20, 22, 24]]
    assert cutoffs(30, number=9, seen=15) == [[*range(16, 25)]]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            {"number": 5, "step": 5},
            "has 22 rows to test on .*, 5 cutoffs 5 apart .* of 6 need 26; give cutoffs=4",
        ),
        ({"number": 10, "seen": 15}, "has 14 rows to test on .*, 10 cutoffs 1 apart .* need 15; give cutoffs=9"),
        ({"number": 1, "seen": 24}, "has 5 rows to test on .* need 6; give newer rows"),
        ({"number": 1, "step": 0}, "step is 0; give at least 1"),
    ],
)
def test_cutoffs_for_which_there_are_no_rows(arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        cutoffs(30, **arguments)


def test_scores_are_those_of_each_series(run, loaded, tmp_path):
    task, trainer, read = loaded
    _, path, *_ = task.backtest(read("all.csv"), trainer, tmp_path, cutoffs=4, output=str(tmp_path / "b.csv"))
    scores, table = pd.read_csv(path), pd.read_csv(tmp_path / "b.csv")
    rows = table[table["channel"] == "b"]
    own = scores[(scores["channel"] == "b") & (scores["forecaster"] == "forecast")].iloc[0]
    inside = (rows["quantile_0.1"] <= rows["truth"]) & (rows["truth"] <= rows["quantile_0.9"])
    assert own["coverage"] == pytest.approx(inside.mean())
    naive = (rows["truth"] - rows["seasonal_naive"]).abs().mean()
    assert own["skill"] == pytest.approx(1 - (rows["truth"] - rows["forecast"]).abs().mean() / naive)
    assert scores[scores["forecaster"] == "ridge"]["wql"].isna().all()


def test_the_printed_summary_by_hand():
    """Of three channels the model has the smaller error in two; the third counts against it."""
    model = {"mae": [1.0, 2.0, 9.0], "mase": [0.5, 0.7, 1.5], "skill": [0.5, 0.5, -2.0], "coverage": [0.8, 0.9, 0.7]}
    naive = {"mae": [2.0, 4.0, 3.0], "mase": [1.0, 1.4, 0.6], "skill": [0.0] * 3, "coverage": [np.nan] * 3}
    parts = [("my_model", model), ("seasonal_naive", naive)]
    scores = pd.concat([pd.DataFrame({"forecaster": name, **columns}) for name, columns in parts])
    table = summary(scores, cutoffs=4, series=1)
    assert table.title == "4 cutoffs of 1 series"
    assert [column.header for column in table.columns] == ["forecaster", "MASE", "coverage", "skill", "channels won"]
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows == [("my model", "0.900", "0.800", "-0.333", "67%"), ("seasonal naive", "1.000", "-", "-", "-")]


@pytest.mark.parametrize(
    ("file", "options", "complaint"),
    [
        ("train.csv", {"cutoffs": 20, "step": 6}, "20 cutoffs 6 apart with a horizon of 6 need 120; give cutoffs=10"),
        ("all.csv", {"cutoffs": 0}, "cutoffs is 0; give at least 1"),
        ("all.csv", {"output": "x.xlsx"}, "give a file that ends in .csv, .parquet, .nc, .zarr"),
    ],
)
def test_what_a_backtest_refuses(tmp_path, loaded, file, options, complaint):
    task, trainer, read = loaded
    with pytest.raises(QuintetError) as caught:
        task.backtest(read(file), trainer, tmp_path, **options)
    assert complaint in str(caught.value)
