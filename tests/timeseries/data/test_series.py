"""Series of one's own, from the file to windows: splits without leakage, scaling, what is refused."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from quintet.core.errors import QuintetError
from quintet.core.runner import build_data
from quintet.timeseries import SeriesData
from quintet.timeseries.data.series import seasonal_error


def ready(path, context=24, horizon=6, **arguments) -> SeriesData:
    data = SeriesData(path, context, horizon, **arguments)
    data.setup()
    return data


def test_every_window_of_every_part(csv):
    data = ready(csv(rows=240))
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 115, "val": 43, "test": 43}
    first, last = data.datasets["test"][0], data.datasets["test"][42]
    assert (int(first.position), int(last.position) + 6) == (192, 240)


def test_values_return_by_mean_and_std(csv, table):
    data = ready(csv(rows=240))
    known = data.description()
    window = data.datasets["val"][0]
    restored = window.target.double() * torch.tensor(known.std) + torch.tensor(known.mean)
    assert np.allclose(restored, table(240)[["a", "b"]].to_numpy()[144:150], rtol=1e-5)
    train = table(240)[["a", "b"]].to_numpy()[:144]
    assert np.allclose(known.mean, train.mean(0))
    assert np.allclose(known.std, train.std(0))


def test_rows_after_training_change_nothing_of_it(csv):
    def garbage(frame):
        frame.loc[144:, ["a", "b"]] = 1e6
        return frame

    clean, spoiled = ready(csv()), ready(csv(garbage, name="spoiled.csv"))
    ours, theirs = clean.description(), spoiled.description()
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    for index in range(len(clean.datasets["train"])):
        pairs = zip(clean.datasets["train"][index], spoiled.datasets["train"][index])
        assert all(torch.equal(mine, other) for mine, other in pairs)


def test_what_the_description_says(csv):
    known = ready(csv(), calendar=["hour"]).description()
    assert (known.channels, known.frequency, known.period, known.time) == (["a", "b"], "h", 24, "date")
    assert known.seen_until == {"": "2024-01-08 23:00:00"}


def test_windows_with_nothing_to_see_are_left_out(csv):
    def hole(frame):
        frame.loc[20:80, ["a", "b"]] = np.nan
        return frame

    data = ready(csv(hole))
    assert len(data.datasets["train"]) < 115
    for window in data.datasets["train"]:
        assert window.context.isfinite().any()
        assert window.target.isfinite().any()


def test_a_long_table_of_unequal_series(csv, table):
    def long(frame):
        return pd.concat([frame.assign(store="x"), table(100, start="2024-02-01", seed=1).assign(store="y")])

    path = csv(long)
    data = ready(path, id="store")
    windows = data.datasets["train"]
    assert torch.bincount(windows.series).tolist() == [115, 60 - 24 - 6 + 1]
    assert data.description().seen_until == {"x": "2024-01-08 23:00:00", "y": "2024-02-04 07:00:00"}
    late = SeriesData(path, id="store")
    late.adopt(data.description())
    late.setup("predict")
    last = late.datasets["predict"][1].context
    scaled = (table(100, seed=1)[["a", "b"]].to_numpy()[-24:] - data.description().mean) / data.description().std
    assert np.allclose(last, scaled, atol=1e-5)
    assert late.stamps(1, 6)[-6] == pd.Timestamp("2024-02-05 04:00")


def test_series_too_short_for_training_are_said(csv, table):
    data = ready(csv(lambda frame: pd.concat([frame.assign(unique_id="x"), table(40).assign(unique_id="y")])))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(data.table())
    assert "1 of 2 series are too short for a window of training" in console.export_text()


def test_seasonal_error():
    values = np.array([[1.0], [2.0], [4.0], [np.nan], [5.0]])
    assert seasonal_error(values, 1) == pytest.approx(1.5)
    assert seasonal_error(values, 2) == pytest.approx(2.0)
    assert np.isnan(seasonal_error(values, 5))


def test_the_future_has_stamps_and_no_target(csv):
    trained = ready(csv())
    data = SeriesData(csv(name="latest.csv", rows=50), 1, 1)
    data.adopt(trained.description())
    data.setup("predict")
    (window,) = data.datasets["predict"]
    assert window.context.shape == (24, 2)
    assert window.target.isnan().all()
    assert list(data.stamps(0, 2)[-3:]) == list(pd.date_range("2024-01-03 01:00", periods=3, freq="h"))


@pytest.mark.parametrize(
    ("change", "arguments", "complaint"),
    [
        (lambda f: f[:40], {}, "has 24 train rows of 40, and one window takes 30"),
        (lambda f: f.assign(b=3.0), {}, r"column 'b' is constant \(3\) over the training rows; leave it out"),
        (lambda f: f.assign(b=[None] * 200 + [1.0] * 40), {}, "column 'b' has no number in the training rows"),
        (lambda f: f[::-1], {}, "row 3 goes back in time"),
        (lambda f: f.assign(a=f["a"].astype(object).where(f.index != 7, "bad")), {}, "row 9 has 'bad' in 'a'"),
        (lambda f: f, {"split": {"val": 0.2, "test": 0.01}}, "has 2 test rows of 240, and one window takes 6"),
        (lambda f: f, {"target": ["c"]}, "data.target: no column 'c'"),
        (lambda f: f, {"context": 0}, "data.context is 0; give at least 1"),
    ],
)
def test_what_is_refused(csv, change, arguments, complaint):
    with pytest.raises(QuintetError, match=complaint) as caught:
        ready(csv(change), **arguments)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: f[:20], "has 20 rows; the model sees 24 of them before it forecasts"),
        (lambda f: f.drop(columns="b"), "has no column 'b'; the model needs it"),
        (
            lambda f: f.assign(date=pd.date_range("2024", periods=len(f), freq="D")),
            "has steps of D, the model was .* h",
        ),
        (lambda f: f.assign(b=f["b"].where(f.index < 100)), "'b' has no number in the 24 rows up to 2024-01-10 23:00"),
    ],
)
def test_what_a_trained_model_refuses(csv, change, complaint):
    data = SeriesData(csv(change, name="latest.csv"))
    data.adopt(ready(csv()).description())
    with pytest.raises(QuintetError, match=complaint):
        data.setup("predict")


def test_inspect_finds_the_data_module_and_the_faults(csv):
    assert isinstance(build_data(str(csv()), []), SeriesData)
    data = build_data(str(csv(lambda frame: frame[::-1])), [])
    assert len(data.faults()) == 1
    assert data.table().row_count


def test_inspect_finds_what_training_would_stumble_over(csv):
    found = SeriesData(csv(lambda frame: frame[:60].assign(b=1.0)), 24, 24)
    constant, short, *_ = found.faults()
    assert constant.what == "is constant (1) over the training rows"
    assert "has 36 train rows of 60, and one window takes 48 (context 24, horizon 24)" in short.what
    assert found.table().row_count


def test_other_files_are_not_taken_for_series(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,label\na.jpg,cat\nb.jpg,dog\n")
    assert not SeriesData.recognises(path)
    assert not SeriesData.recognises(tmp_path)


def test_etth1(shared_data):
    data = ready(shared_data("ts_ett") / "ETTh1.csv", 96, 96, split="ett-hour")
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 8449, "val": 2785, "test": 2785}
