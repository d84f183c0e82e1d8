"""Series of one's own, from the file to windows: splits without leakage, scaling, what is refused."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from rich.console import Console

from quintet.core.errors import QuintetError
from quintet.core.run.inspection import build_data
from quintet.core.weights.described import description_of
from quintet.timeseries import AnomalyData, DisaggregationData, ImputationData, SeriesData, Sunspots


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
        pairs = zip(clean.datasets["train"][index][:6], spoiled.datasets["train"][index][:6])
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


def test_the_future_has_stamps_and_no_target(csv):
    trained = ready(csv())
    data = SeriesData(csv(name="latest.csv", rows=50))
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


@pytest.mark.parametrize("kind", [AnomalyData, DisaggregationData, ImputationData, Sunspots])
def test_a_table_of_series_is_for_forecasts_unless_something_else_is_asked_for(csv, kind):
    path = csv()
    assert SeriesData.recognises(Path(path))
    assert not kind.recognises(Path(path))


# Covariates

ROLES = {"past": ["b"], "future": ["c", "weather"], "static": ["store"]}


def shops(table) -> pd.DataFrame:
    """Two shops with a past, two future and a static covariate."""
    parts = [
        table(240, channels=3, seed=seed).assign(store=store, unique_id=store, weather=["rain", "sun", None] * 80)
        for seed, store in enumerate("xy")
    ]
    return pd.concat(parts, ignore_index=True)


def test_covariates_are_scaled_and_coded_by_training_rows(table):
    frame = shops(table)
    frame.loc[frame.index % 240 >= 150, "weather"] = "hail"
    data = ready(frame, **ROLES)
    known = data.description()
    assert known.channels == ["a"]
    assert known.covariate_features() == {"past": 1, "future": 3, "static": 2}
    assert known.future[1].categories == ["rain", "sun"]
    train = frame[frame.index % 240 < 144]
    assert known.past[0].mean == pytest.approx(train["b"].mean())
    assert known.past[0].std == pytest.approx(train["b"].std(ddof=0))
    window = data.datasets["train"].__getitems__([100])
    past, future, static = window.covariates
    assert (past.shape, future.shape, static.tolist()) == ((1, 24, 1), (1, 30, 3), [[1.0, 0.0]])
    begin = int(window.position) - 24
    scaled = (frame["b"][begin : begin + 24] - known.past[0].mean) / known.past[0].std
    assert np.allclose(past[0, :, 0], scaled, atol=1e-5)
    words = frame["weather"][begin : begin + 30]
    expected = np.stack([np.where(words.isna(), np.nan, words == word) for word in ("rain", "sun")], axis=1)
    assert np.array_equal(future[0, :, 1:].numpy(), expected.astype(float), equal_nan=True)
    # What training never showed is masked, and said.
    assert data.datasets["test"][0].covariates.future[:, 1:].isnan().all()
    assert data.unseen == ["column 'weather' has 'hail', which no training row shows; masked"]


def test_a_static_covariate_tells_series_apart(table):
    data = ready(shops(table), **ROLES)
    batch = data.datasets["test"].__getitems__([0, len(data.datasets["test"]) - 1])
    assert batch.covariates.static.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def ahead(table, rows: int = 6) -> pd.DataFrame:
    """The last rows are known of the future covariates alone."""
    frame = shops(table)
    frame["weather"] = frame["weather"].fillna("sun")
    frame.loc[frame.index % 240 >= 240 - rows, ["a", "b"]] = np.nan
    return frame


def test_the_future_takes_covariates_over_the_horizon(table):
    trained = ready(shops(table), **ROLES)
    data = SeriesData(ahead(table))
    data.adopt(trained.description())
    data.setup("predict")
    windows = data.datasets["predict"]
    assert windows.positions.tolist() == [234, 234]
    assert windows[0].target.isnan().all()
    covariates = windows[1].covariates
    known = trained.description()
    expected = (shops(table)["c"][450:480] - known.future[0].mean) / known.future[0].std
    assert np.allclose(covariates.future[:, 0], expected, atol=1e-5)
    assert covariates.past.isfinite().all()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda f: f[f.index % 240 < 238],
            "series 'x' has no 'c' at 2024-01-10 22:00:00, a future covariate that the model needs up to "
            "2024-01-10 23:00:00; add those rows and leave their target empty",
        ),
        (lambda f: f.assign(c=f["c"].where(f.index != 237)), "has no 'c' at 2024-01-10 21:00:00"),
        (lambda f: f.drop(columns="c"), "has no column 'c'; the model needs it"),
        (lambda f: f.assign(c="windy"), "has 'windy' in 'c', which is no number"),
        (lambda f: f[f.index % 240 < 234], "has no 'c' at 2024-01-10 18:00:00"),
    ],
)
def test_future_covariates_that_are_missing(table, change, complaint):
    trained = ready(shops(table), **ROLES)
    data = SeriesData(change(ahead(table)))
    data.adopt(trained.description())
    with pytest.raises(QuintetError, match=complaint) as caught:
        data.setup("predict")
    assert len(str(caught.value).splitlines()) == 1


def test_covariates_that_say_nothing(table):
    frame = shops(table).assign(wind=np.nan, name=[f"n{row}" for row in range(480)])
    wind, name = SeriesData(frame, 24, 6, past=["wind", "name"]).faults()
    assert wind.what == "has no value in the training rows"
    assert name.what == "has 288 categories in the training rows, and at most 100 are read"


def test_numbers_that_name_categories(table):
    frame = shops(table).assign(kind=np.arange(480) % 3)
    known = ready(frame, past=["kind"], categorical=["kind"]).description()
    assert known.past[0].categories == ["0", "1", "2"]


# What a path may be


def test_objects_given_in_python(table):
    frame = table(240)
    data = ready(frame)
    assert len(data.datasets["train"]) == 115
    array = frame.set_index("date").to_xarray().to_dataarray("sensor")
    assert ready(array).usable().labels["sensor"].tolist() == ["a", "b"]
    described = description_of(data)
    assert described["init_args"]["path"] == "an object in Python"
    late = SeriesData("an object in Python")
    late.adopt(data.description())
    with pytest.raises(QuintetError, match="this model was trained on an object in Python; give data"):
        late.setup("predict")


def test_a_folder(tmp_path, table):
    for name, rows in (("x", 240), ("y", 100)):
        table(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    data = build_data(str(tmp_path), ["data.context=24", "data.horizon=6"])
    assert isinstance(data, SeriesData)
    assert [series.name for series in data.usable().series] == ["x", "y"]


def test_points_of_a_grid_without_a_number_are_left_out():
    values = np.random.default_rng(0).normal(size=(60, 2, 3))
    values[:, 1, 2] = np.nan
    dates = pd.date_range("2024", periods=60)
    cube = xr.DataArray(values, {"time": dates, "lat": [46, 45], "lon": [14, 15, 16]}, ("time", "lat", "lon"), "t")
    data = ready(cube, 8, 2)
    assert len(data.usable().series) == len(data.usable().labels) == 5
    assert "1 of 6 points of lat, lon hold nothing and are left out" in data.usable().remarks
    assert np.array_equal(data.usable().series[4].values[:, 0], values[:, 1, 1])


def test_sizes_of_a_trained_model_are_not_changed(csv):
    known = ready(csv()).description()
    for arguments, complaint in (
        ({"horizon": 4}, "data.horizon=4: this model was trained with data.horizon=6; to forecast fewer .* horizon=4"),
        ({"horizon": 8}, "data.horizon=8: this model was trained with data.horizon=6"),
        ({"context": 12}, "data.context=12: this model was trained with data.context=24"),
    ):
        with pytest.raises(QuintetError, match=complaint):
            SeriesData(csv(), **arguments).adopt(known)


def test_etth1(shared_data):
    data = ready(shared_data("ts_ett") / "ETTh1.csv", 96, 96, split="ett-hour")
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 8449, "val": 2785, "test": 2785}
