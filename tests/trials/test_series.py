"""What a table of series says, and what is made of it: read as it was meant, asked about, or refused; never guessed."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from quintet.core.errors import QuintetError
from quintet.timeseries import AnomalyData, SeriesData
from quintet.timeseries.data.classes import LabelledSeries
from quintet.timeseries.data.files import read
from quintet.timeseries.metrics.anomalies import largest_buffer, volume_under_surface

HOURS = pd.date_range("2024-01-01", periods=300, freq="h")
DAYS = pd.date_range("2024-01-01", periods=300, freq="D")
NUMBERS = np.stack([np.arange(300.0), np.arange(300.0) ** 2], axis=1)


def table(stamps, path=None, **columns):
    frame = pd.DataFrame({"date": stamps, "a": NUMBERS[: len(stamps), 0], "b": NUMBERS[: len(stamps), 1]} | columns)
    if path is None:
        return frame
    frame.to_csv(path, index=False)
    return path


def fault_of(data):
    faults = data.examination.faults
    assert faults, data.examination.channels
    return f"{faults[0].what}; {faults[0].remedy}"


# Numbers that are stamps

SECONDS = (HOURS - pd.Timestamp(0)) // pd.Timedelta(seconds=1)
STAMPS = {
    "unix": (SECONDS, HOURS),
    "unix_ms": (SECONDS * 1000, HOURS),
    "unix_us": (SECONDS * 10**6, HOURS),
    "unix_ns": (SECONDS * 10**9, HOURS),
    "excel": ((DAYS - pd.Timestamp("1899-12-30")).days.astype(float), DAYS),
    "%Y%m%d%H": (HOURS.strftime("%Y%m%d%H").astype("int64"), HOURS),
    "%Y%m%d%H%M": (HOURS.strftime("%Y%m%d%H%M").astype("int64"), HOURS),
    "%Y%m": (
        pd.date_range("2000-01", periods=300, freq="MS").strftime("%Y%m").astype("int64"),
        pd.date_range("2000-01", periods=300, freq="MS"),
    ),
}


@pytest.mark.parametrize("name", ["date", "timestamp", "Time"])
@pytest.mark.parametrize("known", STAMPS)
def test_numbers_of_stamps_are_asked_about_and_no_target(tmp_path, known, name):
    written, meant = STAMPS[known]
    frame = table(written).rename(columns={"date": name})
    frame.to_csv(tmp_path / "a.csv", index=False)
    asked = SeriesData(tmp_path / "a.csv")
    assert f"data.time_format={known}" in fault_of(asked)
    told = SeriesData(tmp_path / "a.csv", time_format=known).usable()  # without data.time
    assert told.channels == ["a", "b"]
    assert list(told.series[0].stamps) == list(meant)
    np.testing.assert_array_equal(told.series[0].values, NUMBERS)


def test_numbers_since_1970_are_found_by_what_they_are(tmp_path):
    frame = table(SECONDS * 1000).rename(columns={"date": "logged"})
    assert "unix_ms" in fault_of(SeriesData(frame))


def test_years_and_days_are_read_without_being_asked_for():
    for written, frequency in ((range(1700, 2000), "YS-JAN"), (DAYS.strftime("%Y%m%d").astype("int64"), "D")):
        found = SeriesData(table(list(written))).usable()
        assert found.frequency == frequency
        assert found.channels == ["a", "b"]


def test_milliseconds_are_not_taken_for_seconds():
    words = fault_of(SeriesData(table(SECONDS * 1000), time="date", time_format="unix"))
    assert "data.time_format=unix_ms" in words
    words = fault_of(SeriesData(table(SECONDS), time="date", time_format="unix_ms"))
    assert "data.time_format=unix " in words


def test_digits_as_text_are_numbers():
    found = SeriesData(table(DAYS.strftime("%Y%m%d").astype(str))).usable()
    assert list(found.series[0].stamps) == list(DAYS)


@pytest.mark.parametrize("option", [{"time_format": "unix"}, {"time_zone": "UTC"}, {"frequency": "h"}])
def test_no_option_of_stamps_is_ignored(option):
    frame = pd.DataFrame({"a": NUMBERS[:, 1], "b": NUMBERS[:, 0] % 5})
    with pytest.raises(QuintetError, match=f"data.{next(iter(option))}"):
        SeriesData(frame, **option).usable()
    if "time_format" in option:
        with pytest.raises(QuintetError, match=r"data\.time_format"):
            SeriesData(table(HOURS), **option).usable()


@pytest.mark.parametrize("frequency", ["0h", "-1h", "fortnight", "h h"])
def test_a_step_that_is_none(frequency):
    with pytest.raises(QuintetError, match=r"data\.frequency"):
        SeriesData(table(HOURS), frequency=frequency).usable()


def test_windows_and_splits_that_do_not_fit_the_stamps(tmp_path):
    with pytest.raises(QuintetError, match="offset from UTC"):
        _ = SeriesData(table(HOURS), split={"val": "2024-01-08T00:00+02:00"}).rows
    data = AnomalyData(table(HOURS), windows=[["2024-01-02T00:00+01:00", "2024-01-03"]])
    with pytest.raises(QuintetError, match="offset from UTC"):
        _ = data.truth
    (tmp_path / "windows.json").write_text('{"x.csv": 5}')
    with pytest.raises(QuintetError, match=r"data\.windows"):
        _ = AnomalyData(table(HOURS, tmp_path / "x.csv"), windows=tmp_path / "windows.json").truth


# Dates that read two ways


def dated(*texts):
    return SeriesData(table(list(texts)), context=1, horizon=1)


def test_day_and_month_in_doubt_are_asked_about():
    for separator in "/.-":
        for end in ("2023", "2023 00:00", "2023 00:00:00"):
            months = [f"01{separator}{month:02}{separator}{end}" for month in range(1, 13)]
            words = fault_of(dated(*months))
            assert f"%d{separator}%m{separator}%Y" in words
            assert f"%m{separator}%d{separator}%Y" in words


@pytest.mark.parametrize(
    ("time_format", "second"), [("%d/%m/%Y", pd.Timestamp("2023-02-01")), ("%m/%d/%Y", pd.Timestamp("2023-01-02"))]
)
def test_day_and_month_as_they_are_told(time_format, second):
    frame = table([f"01/{month:02}/2023" for month in range(1, 13)])
    assert SeriesData(frame, time_format=time_format).usable().series[0].stamps[1] == second


def test_one_day_above_twelve_decides_for_all():
    first = pd.date_range("2024-01-01", periods=40, freq="D")
    for pattern in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y %H:%M"):
        found = dated(*first.strftime(pattern)).usable()
        assert list(found.series[0].stamps) == list(first)


def test_dates_without_doubt_are_not_asked_about():
    same = pd.date_range("2024-01-01", periods=20, freq="h")  # the first of January either way
    assert list(dated(*same.strftime("%d/%m/%Y %H:%M")).usable().series[0].stamps) == list(same)
    assert list(dated(*same.strftime("%Y-%m-%d %H:%M")).usable().series[0].stamps) == list(same)


def test_years_of_two_digits_are_asked_about():
    assert "%d.%m.%y" in fault_of(dated(*DAYS[:12].strftime("%d.%m.%y")))


@pytest.mark.parametrize("frequency", ["M", "Q", "W", "h"])
def test_periods_are_stamps_at_their_begin(tmp_path, frequency):
    spans = pd.period_range("2024-01-01", periods=300, freq=frequency)
    frame = table(spans)
    frame.to_parquet(tmp_path / "a.parquet")
    for given in (frame, frame.set_index("date"), tmp_path / "a.parquet"):
        found = SeriesData(given).usable()
        assert list(found.series[0].stamps) == list(spans.to_timestamp())
        assert found.channels == ["a", "b"]


# Names that look like something else


def test_codes_that_begin_with_zero_stay_what_they_are(tmp_path):
    path = table(list(HOURS[:100]) * 3, tmp_path / "a.csv", unique_id=np.repeat(["001", "002", "010"], 100))
    found = SeriesData(path).usable()
    assert [series.name for series in found.series] == ["001", "002", "010"]
    assert list(found.labels["unique_id"]) == ["001", "002", "010"]
    assert list(SeriesData(path, id="unique_id").usable().labels["unique_id"]) == ["001", "002", "010"]


def test_numbers_that_begin_with_zero_are_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("date,a\n" + "".join(f"{stamp},{number:03}\n" for number, stamp in enumerate(HOURS)))
    np.testing.assert_array_equal(SeriesData(path).usable().series[0].values[:, 0], np.arange(300))


@pytest.mark.parametrize("word", ["NA", "None", "null", "nan", "N/A"])
def test_words_of_names_are_no_gaps(tmp_path, word):
    words = np.where(np.arange(300) % 2, word, "EU")
    path = table(HOURS, tmp_path / "a.csv", land=words)
    found = SeriesData(path, future=["land"]).usable()
    assert found.categories["land"] == sorted(["EU", word])
    path = table(list(HOURS[:150]) * 2, tmp_path / "b.csv", series=np.repeat([word, "EU"], 150))
    assert [series.name for series in SeriesData(path).usable().series] == [word, "EU"]


def test_marks_of_gaps_among_numbers_are_gaps(tmp_path):
    marked = pd.Series(NUMBERS[:, 0], dtype=object)
    marked[[3, 7]] = ["NA", "null"]
    path = table(HOURS, tmp_path / "a.csv", c=marked)
    assert list(np.flatnonzero(np.isnan(SeriesData(path).usable().series[0].values[:, 2]))) == [3, 7]


def test_a_class_called_none(tmp_path):
    rows = [(f"s{n}", step, step * (n % 2) + n, ("None", "NA")[n % 2]) for n in range(20) for step in range(8)]
    frame = pd.DataFrame(rows, columns=["unique_id", "step", "x", "label"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert LabelledSeries(tmp_path / "a.csv").description().classes == ["NA", "None"]


# Columns


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "index", "id", "row", "#"])
def test_numbers_of_rows_are_not_forecast(tmp_path, name):
    frame = table(HOURS)
    frame.insert(0, name, np.arange(300))
    frame.to_csv(tmp_path / "a.csv", index=False)
    found = SeriesData(tmp_path / "a.csv").usable()
    assert found.channels == ["a", "b"]
    assert any("numbers the rows" in remark for remark in found.remarks)


def test_a_column_that_happens_to_rise_is_forecast():
    assert SeriesData(table(HOURS)).usable().channels == ["a", "b"]
    assert SeriesData(table(HOURS, index=NUMBERS[:, 1])).usable().channels == ["a", "b", "index"]


def test_several_columns_may_name_the_series(tmp_path):
    from quintet.core.run.inspection import build_data

    frame = table(list(HOURS[:50]) * 4, Region=np.repeat(["N", "S"], 100), State=np.tile(np.repeat(["x", "y"], 50), 2))
    path = tmp_path / "a.csv"
    frame.to_csv(path, index=False)
    assert "data.id=[Region,State]" in fault_of(build_data(str(path), []))
    told = build_data(str(path), ["data.id=[Region,State]", "data.context=4", "data.horizon=2"])
    assert len(told.usable().series) == 4
    assert told.faults() == []


def test_inspect_takes_the_options_that_explain_a_file(tmp_path):
    from quintet.core.run.inspection import build_data

    table(HOURS).rename(columns={"date": "gemessen"}).assign(gemessen=SECONDS).to_csv(tmp_path / "a.csv", index=False)
    told = build_data(str(tmp_path / "a.csv"), ["data.time=gemessen", "data.time_format=unix"])
    assert type(told) is SeriesData
    assert told.usable().channels == ["a", "b"]
    grid = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), np.random.default_rng(0).normal(size=(300, 2, 3)))},
        {"time": HOURS, "lat": [1.0, 2.0], "lon": [3.0, 4.0, 5.0]},
    )
    (tmp_path / "grid.nc").write_bytes(grid.to_netcdf(engine="h5netcdf"))
    assert len(build_data(str(tmp_path / "grid.nc"), []).usable().series) == 6


@pytest.mark.parametrize("group", ["series", "gaps", "loads", "anomalies", "sunspots"])
def test_a_split_without_a_test_has_none(group):
    from quintet.core.run.composition import class_path_form, compose, plain

    given = ["data.path=x.csv"] if group != "sunspots" else []
    node = class_path_form(plain(compose([f"data=timeseries/{group}", *given, "data.split={val:0.07}"]))["data"])
    assert dict(node["init_args"]["split"]) == {"val": 0.07}


def test_the_split_of_anomalies_is_the_same_in_python():
    assert AnomalyData("x.csv").split == {"val": 0.2, "test": 0.4}


# Metrics


@pytest.mark.parametrize("length", [1, 30, 1000])
@pytest.mark.parametrize("period", [86_400, 24, 1])
def test_buffers_tell_random_scores_from_good_ones(length, period):
    labels = np.zeros(20_000, dtype=bool)
    labels[5_000 : 5_000 + length] = labels[15_000 : 15_000 + length] = True
    draw = np.random.default_rng(0)
    buffer = largest_buffer(labels, period)
    random = np.mean([volume_under_surface(draw.random(20_000), labels, buffer, 50) for _ in range(4)], axis=0)
    assert abs(random[0] - 0.5) < 0.2
    assert random[1] < 0.15
    assert volume_under_surface(labels + 0.1 * draw.random(20_000), labels, buffer, 50)[0] > 0.9


def test_a_buffer_is_a_season_where_anomalies_are_longer():
    labels = np.zeros(5_000, dtype=bool)
    labels[1_000:1_300] = labels[3_000:3_300] = True
    assert largest_buffer(labels, 288) == 288
    assert largest_buffer(labels, 86_400) == 300
    assert largest_buffer(labels, 1) == 100


# What was observed is written as it was observed


@pytest.fixture(scope="module")
def untrained():
    """A small forecaster of a series near a million and one near zero, with what it was told of them, and the data."""
    from quintet.timeseries import Forecaster

    small, large = np.zeros(120), 1e6 + 0.1 + np.arange(120.0) % 24
    frame = pd.DataFrame({"date": list(HOURS[:120]) * 2, "unique_id": ["small"] * 120 + ["large"] * 120})
    frame["a"] = np.concatenate([small, large])
    data = SeriesData(frame, context=24, horizon=6, split={"val": 0.2, "test": 0.3})
    task = (
        Forecaster("seasonal_naive_like", quantiles=None)
        if False
        else Forecaster("itransformer", {"dim": 8, "depth": 1, "num_heads": 2})
    )
    task.adopt(data.description())
    data.adopt(task.description)
    return task.eval(), data, frame


def test_backtests_write_the_truth_to_the_bit(untrained):
    from quintet.timeseries.tasks import backtest

    task, data, frame = untrained
    positions = backtest.cutoffs_of(data, task.description, 3, 6)
    outcomes = backtest.outcomes_of(task, data, positions)
    written = backtest.frame_of(data, positions, outcomes, [])
    merged = written.merge(frame, on=["unique_id", "date"])
    assert len(merged) == 2 * 3 * 6
    assert (merged["truth"] == merged["a"]).all()
    # The season before, copied, is just as exact: both series repeat every 24 rows.
    assert (merged["seasonal_naive"] == merged["a"]).all()


@pytest.mark.parametrize("name", ["channel", "step", "cutoff", "truth", "forecast"])
def test_names_that_a_table_has_of_its_own_are_refused(untrained, name, tmp_path, monkeypatch):
    from quintet.timeseries.tasks.outputs import write_backtest

    task, _, frame = untrained
    for column in ("unique_id", "date"):
        given = {"id": name} if column == "unique_id" else {"time": name}
        data = SeriesData(frame.rename(columns={column: name}), **given)
        data.adopt(task.description)
        if column == "date":
            monkeypatch.setattr(task.description, "time", name)
        with pytest.raises(QuintetError, match=f"column called '{name}'"):
            write_backtest(task, data, tmp_path, 2, None, None)
    assert list(tmp_path.iterdir()) == []


# Pictures of nothing


def years_of(axis):
    from matplotlib.dates import num2date

    return {num2date(limit).year for limit in axis.get_xlim()}


def test_axes_of_time_are_those_of_the_stamps_where_nothing_is_drawn():
    from quintet.timeseries.pictures import Panel, forecast_panels
    from quintet.timeseries.pictures.anomalies import AnomalyPanel, anomaly_panels
    from quintet.timeseries.pictures.gaps import GapPanel, gap_panels
    from quintet.timeseries.pictures.loads import LoadPanel, load_panels

    stamps, nothing = HOURS[:30], np.full(30, np.nan)
    figures = [
        forecast_panels([Panel("x", "", stamps, nothing[:24], nothing[:6], nothing[:6])], ""),
        gap_panels([GapPanel("x", "", stamps, nothing, nothing, {"model": nothing})], ""),
        anomaly_panels([AnomalyPanel("x", stamps, nothing[:, None], ["a"], nothing, 1.0)], ""),
        load_panels([LoadPanel("x", stamps, nothing, nothing[:, None], nothing[:, None])], ["a"], [1.0], "W", ""),
    ]
    for figure in figures:
        for axis in figure.axes:
            assert years_of(axis) <= {2023, 2024}, figure


def test_errors_that_nobody_knows_have_no_line():
    from quintet.timeseries.pictures import error_by_step
    from quintet.timeseries.pictures.gaps import error_by_gap

    figure = error_by_step({"model": np.ones(3), "ridge": np.full(3, np.nan)}, "error")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["model (1.000)"]
    for figure in (
        error_by_step({"model": np.full(3, np.nan)}, "error"),
        error_by_gap({"model": np.full(2, np.nan)}, (1, 2), "error"),
    ):
        assert figure.axes[0].get_legend() is None
        assert "nothing was observed" in figure.axes[0].texts[0].get_text()


# Devices and precisions


class Elsewhere:
    """Moves tensors as a device without float64 does: it refuses those."""

    def __init__(self) -> None:
        self.moved: list[torch.dtype] = []

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        self.moved.append(tensor.dtype)
        return tensor


def tasks():
    from quintet.timeseries import AnomalyDetector, Disaggregator, Forecaster, Imputer
    from quintet.timeseries.data.disaggregation import DisaggregationDescription
    from quintet.timeseries.data.windows import SeriesDescription

    known = {
        "channels": ["a", "b"],
        "units": ["", ""],
        "mean": [1e6 + 0.1, 2.0],
        "std": [3.0, 4.0],
        "context": 24,
        "horizon": 6,
        "frequency": "h",
        "period": 24,
        "calendar": [],
        "time": "date",
        "series": "",
        "seen_until": {},
    }
    small = {"backbone_arguments": {"dim": 8, "depth": 1, "num_heads": 2}}
    for task_type in (Forecaster, Imputer, AnomalyDetector, Disaggregator):
        extra = {"distribution": "student_t"} if task_type is Forecaster else {}
        task = task_type(**extra, **(small if task_type is not Disaggregator else {}))
        if task_type is Disaggregator:
            task.adopt(DisaggregationDescription(**known, thresholds=[1.0], shares=[0.5]))
        else:
            task.adopt(SeriesDescription(**known))
        yield task


def test_statistics_stay_exact_wherever_a_task_goes():
    for task in tasks():
        before = {name: buffer.clone() for name, buffer in task.named_buffers() if buffer.dtype == torch.float64}
        assert before
        elsewhere = Elsewhere()
        task._apply(elsewhere)  # what `to(device)` does
        assert torch.float32 in elsewhere.moved
        for change in (torch.nn.Module.half, torch.nn.Module.bfloat16, lambda module: module.to(dtype=torch.bfloat16)):
            change(task)
            for name, buffer in before.items():
                torch.testing.assert_close(task.get_buffer(name), buffer, rtol=0, atol=0, equal_nan=True)
        for metric in task.modules():
            states = [getattr(metric, name) for name in getattr(metric, "_defaults", {})]
            exact = [state for state in states if isinstance(state, torch.Tensor) and state.dtype == torch.float64]
            assert len(exact) == len(states) or not exact  # sums and counts of one metric lie in one place


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_precisions_that_round_statistics_are_refused(precision):
    import lightning as L

    task = next(iter(tasks()))
    trainer = L.Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    with pytest.raises(QuintetError, match=precision.replace("true", "mixed")):
        task.check_precision(trainer)


def test_as_many_processes_as_windows():
    from types import SimpleNamespace

    data = SeriesData(table(HOURS[:60]), context=4, horizon=2)
    data.setup("fit")
    data.trainer = SimpleNamespace(world_size=50, global_rank=0, lightning_module=None)
    with pytest.raises(QuintetError, match=r"trainer\.devices"):
        data.val_dataloader()


# A single step of a single channel, to the end


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_one_step_of_one_channel(tmp_path, monkeypatch, precision):
    import sys

    from quintet.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["quintet"])
    values = 10 + np.sin(np.arange(200) / 4)
    pd.DataFrame({"date": HOURS[:200], "a": values}).to_csv("a.csv", index=False)
    options = ["data.path=a.csv", "data.context=24", "data.horizon=1", "run_dir=run", "trainer.max_epochs=1"]
    options += ["trainer.enable_progress_bar=false", "trainer=cpu", f"trainer.precision={precision}"]
    options += ["model.backbone_arguments={dim:8,depth:1,num_heads:2}"]
    assert main(["fit", "experiment=timeseries/series", *options]) == 0
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "pictures" / "forecasts.png").is_file()
    given = ["ckpt_path=run/checkpoints/best.ckpt", "data.path=a.csv"]
    assert main(["backtest", *given, "output=b.csv", "cutoffs=3"]) == 0
    written = pd.read_csv("b.csv", float_precision="round_trip", parse_dates=["date"])
    observed = dict(zip(HOURS, values))
    assert [observed[stamp] for stamp in written["date"]] == written["truth"].tolist()
    assert read("a.csv").frame["a"].tolist() == values.tolist()


# What is called a stamp and cannot be read, and what pandas reads as one that it is not


def frame_of(name, stamps):
    stamps = list(stamps)
    return pd.DataFrame({name: stamps, "a": NUMBERS[: len(stamps), 1], "b": NUMBERS[: len(stamps), 1] % 7})


UNREAD = {
    "iso weeks": ("date", [f"2023-W{week:02d}" for week in range(1, 53)]),
    "year and week": ("week", [2023 * 100 + week for week in range(1, 53)]),
    "year and day": ("date", [2024000 + day for day in range(1, 200)]),
    "decimal years": ("time", [round(2000 + month / 12, 3) for month in range(120)]),
    "decimal years, called otherwise": ("decimal_date", [round(2000 + month / 12, 3) for month in range(120)]),
    "days since 4713 BC": ("jd", [2460310.5 + day for day in range(100)]),
    "quarters": ("quarter", [f"Q{number % 4 + 1} {2000 + number // 4}" for number in range(40)]),
    "fiscal periods": ("period", [f"FY{2000 + number // 12}P{number % 12 + 1:02d}" for number in range(48)]),
    "a zone's name": ("timestamp", [f"{stamp:%Y-%m-%d %H:%M} EST" for stamp in HOURS[:40]]),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_a_column_of_stamps_that_cannot_be_read_is_no_target_and_not_left_out(kind):
    frame = frame_of(*UNREAD[kind])
    assert "which is read as no date" in fault_of(SeriesData(frame))
    assert SeriesData(frame, target=["a"]).usable().channels == ["a"]


def test_stamps_of_a_long_table_that_cannot_be_read():
    one = frame_of("date", [f"{stamp:%Y-%m-%d} EST" for stamp in DAYS[:40]])
    long = pd.concat([one.assign(unique_id="x"), one.assign(unique_id="y")])
    assert "which is read as no date" in fault_of(SeriesData(long))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("time", [number / 10 for number in range(100)]),
        ("time_ms", [20 * number for number in range(100)]),
        ("day", ["Mon", "Tue", "Wed", "Thu", "Fri"] * 20),
        ("weekday", [number % 7 for number in range(100)]),
        ("load", [2000 + number**2 for number in range(100)]),
    ],
)
def test_columns_that_only_count_or_repeat_are_not_asked_about(name, values):
    assert not SeriesData(frame_of(name, values)).examination.faults


@pytest.mark.parametrize("stamps", [[f"{s:%b-%y}" for s in pd.date_range("2024-01", periods=12, freq="MS")], None])
def test_months_without_a_year_are_not_of_the_year_one(stamps):
    frame = frame_of("month", stamps or [f"{s:%B}" for s in pd.date_range("2024-01", periods=12, freq="MS")])
    assert "would be the year 1" in fault_of(SeriesData(frame))
    if stamps:
        assert SeriesData(frame, time_format="%b-%y").usable().series[0].stamps[-1] == pd.Timestamp("2024-12-01")


@pytest.mark.parametrize("clock", ["%H:%M", "%H:%M:%S", "%I:%M %p"])
def test_times_of_day_are_not_of_the_day_on_which_they_are_read(clock):
    frame = frame_of("time", [f"{stamp:{clock}}" for stamp in HOURS[:24]])
    assert "a time of day without a date" in fault_of(SeriesData(frame))


@pytest.mark.parametrize("first", ["2024-01-01,5", "5,01.02.2024 00:00", "1.5,2", "3,2e5,1.25"])
def test_a_table_without_a_header_does_not_lose_its_first_row(tmp_path, first):
    (tmp_path / "a.csv").write_text("\n".join([first] * 30))
    with pytest.raises(QuintetError, match="no header"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("header", ["0,1", "x,2020-01-31", "1990,1991", "date,0.5"])
def test_numbers_and_dates_may_be_names(tmp_path, header):
    (tmp_path / "a.csv").write_text("\n".join([header, *["5,6"] * 30]))
    assert list(read(tmp_path / "a.csv").frame.columns) == header.split(",")


@pytest.mark.parametrize("nothing", [-9999, -999.0, 99999, -99.99])
def test_numbers_that_stand_for_nothing_are_said(nothing):
    values = np.sin(np.arange(100.0)) * 5 + 12
    values[[3, 40, 41]] = nothing
    said = " ".join(SeriesData(pd.DataFrame({"date": HOURS[:100], "a": values})).usable().remarks)
    assert "in 3 rows, far from all others" in said
    honest = np.where(values == nothing, 9, values)
    assert not SeriesData(pd.DataFrame({"date": HOURS[:100], "a": honest})).usable().remarks


def test_whole_numbers_that_are_rounded_are_said():
    values = np.arange(100, dtype=np.int64) * 3
    for start, said in ((2**53 + 1, True), (2**52, False)):
        remarks = SeriesData(pd.DataFrame({"date": HOURS[:100], "a": values + start})).usable().remarks
        assert any("rounded" in remark for remark in remarks) is said
