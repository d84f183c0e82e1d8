"""What is wrong with a table is said with its row and a remedy; what is only remarkable is remarked."""

import numpy as np
import pandas as pd
import pytest

from quintet.core.errors import QuintetError
from quintet.timeseries.data.examine import Reading, examine
from quintet.timeseries.data.files import Source


def found(frame: pd.DataFrame, demanded=False, **reading):
    return examine(Source("file.csv", frame, first_row=2), Reading(**reading), demanded)


def test_a_wide_table(table):
    result = found(table(50))
    (series,) = result.series
    assert (result.time, result.id, result.frequency, result.channels) == ("date", "", "h", ["a", "b"])
    assert series.values.shape == (50, 2)
    assert not result.faults
    assert not result.remarks


def test_a_long_table_of_unequal_series(table):
    frame = pd.concat([table(50).assign(store="x"), table(30, start="2024-02-01").assign(store="y")])
    result = found(frame, id="store")
    assert [(series.name, len(series.values)) for series in result.series] == [("x", 50), ("y", 30)]
    assert found(frame.rename(columns={"store": "unique_id"})).id == "unique_id"


def test_gaps_are_masked_and_said(table):
    frame = table(50)
    frame.loc[10, "a"] = np.nan
    result = found(frame.drop(index=[20, 21]))
    (series,) = result.series
    assert np.isnan(series.values[[20, 21]]).all()
    assert np.isnan(series.values).sum() == 5
    assert result.remarks == [
        "2 stamps are absent; they are masked, not filled",
        "column 'a' is empty in 1 rows; they are masked, not filled",
    ]


def spoiled(frame, change):
    frame = frame.astype({"a": object})
    change(frame)
    return frame


@pytest.mark.parametrize(
    ("change", "where", "what", "remedy"),
    [
        (
            lambda f: f.__setitem__("a", ["1.0"] * 5 + ["broken"] + ["1"] * 44),
            "file.csv row 7",
            "'broken' in 'a'",
            "empty",
        ),
        (lambda f: f.loc.__setitem__((3, "b"), np.inf), "file.csv row 5", "infinite number in 'b'", "correct it"),
        (
            lambda f: f.loc.__setitem__((3, "date"), f["date"][9]),
            "file.csv row 6",
            "goes back in time",
            "data.sort=true",
        ),
        (
            lambda f: f.loc.__setitem__((3, "date"), f["date"][2]),
            "file.csv row 5",
            "repeats the stamp",
            "data.duplicates",
        ),
        (
            lambda f: f.loc.__setitem__((3, "date"), f["date"][3] + pd.Timedelta("7min")),
            "file.csv row 5",
            "2024-01-01 03:07:00, off the grid of h as 1 of 50 are",
            "resample",
        ),
        (
            lambda f: f.loc.__setitem__((49, "date"), pd.Timestamp("2034-01-01")),
            "file.csv",
            "far too few for steps of h",
            "data.frequency",
        ),
    ],
)
def test_faults(table, change, where, what, remedy):
    result = found(spoiled(table(50), change))
    (fault,) = result.faults
    assert fault.where == where
    assert what in fault.what
    assert remedy in fault.remedy


def test_choices_cure_the_faults(table):
    frame = table(50)
    shuffled = frame.sample(frac=1, random_state=0)
    assert np.array_equal(found(shuffled, sort=True).series[0].values, frame[["a", "b"]].to_numpy())
    twice = pd.concat([frame, frame.tail(1).assign(a=0.0)])
    for choice, expected in (("first", frame["a"].iloc[-1]), ("last", 0.0), ("mean", frame["a"].iloc[-1] / 2)):
        result = found(twice, duplicates=choice)
        assert result.series[0].values[-1, 0] == pytest.approx(expected)
        assert result.remarks == [f"1 repeated stamps: {choice} taken"]


def test_text_columns_are_not_read_and_said(table):
    result = found(table(50).assign(city="Graz"))
    assert result.channels == ["a", "b"]
    assert result.remarks == ["column 'city' holds no numbers and is not read"]
    (fault,) = found(table(50)[["date"]].assign(city="Graz")).faults
    assert "no column of numbers" in fault.what


def test_rows_without_dates_are_numbered(table):
    result = found(table(50).drop(columns="date"))
    assert (result.time, result.frequency) == ("row", "")
    assert result.series[0].stamps[-1] == 49
    assert "rows are numbered" in result.remarks[0]


def test_names_that_are_not_there(table):
    for reading, complaint in (
        ({"id": "stor"}, "data.id: no column 'stor'"),
        ({"target": ["c"]}, "data.target: no column 'c'"),
        ({"frequency": "hourly"}, "'hourly' is no pandas frequency"),
    ):
        with pytest.raises(QuintetError, match=complaint):
            found(table(50), **reading)
    (fault,) = found(table(50), demanded=True, target=["a", "OT"]).faults
    assert fault.what == "has no column 'OT'"


def test_covariates_have_roles(table):
    frame = table(50, channels=4).assign(weather=["rain", "sun"] * 25, store="x")
    frame.loc[40:, ["a", "b"]] = np.nan
    result = found(frame, past=["b"], future=["c", "weather"], static=["store"])
    (series,) = result.series
    assert result.channels == ["a", "d"]
    # d is observed to the end.
    assert len(series.values) == len(series.columns["b"]) == 50
    (series,) = found(frame, target=["a"], past=["b"], future=["c", "weather"], static=["store"]).series
    assert len(series.values) == len(series.stamps) == len(series.columns["b"]) == 40
    assert np.array_equal(series.columns["c"], frame["c"])
    assert "future covariates go on for 0 steps after the last target" in result.remarks
    assert series.columns["weather"].tolist() == [0.0, 1.0] * 25
    assert series.columns["store"].tolist() == [0.0]
    assert result.categories == {"weather": ["rain", "sun"], "store": ["x"]}


def test_duplicates_of_words_take_the_first(table):
    frame = pd.concat([table(50), table(50).tail(1)]).assign(weather=["rain", "sun"] * 25 + ["rain"])
    (series,) = found(frame, duplicates="mean", past=["weather"]).series
    assert series.columns["weather"][-1] == 1.0


def test_what_is_wrong_with_covariates(table):
    frame = table(50).assign(size=[1.0] * 20 + [2.0] * 30)
    (fault,) = found(frame, static=["size"]).faults
    assert fault.where == "file.csv row 22"
    assert "another 'size' than the rows before it" in fault.what
    for reading, complaint in (
        ({"past": ["wether"]}, "data.past: no column 'wether'"),
        ({"past": ["a"], "future": ["a"]}, "data.future: 'a' has another role already"),
        ({"target": ["a"], "past": ["a"]}, "data.past: 'a' has another role already"),
        ({"past": ["b"], "categorical": ["a"]}, "data.categorical: 'a' is none of the covariates"),
    ):
        with pytest.raises(QuintetError, match=complaint):
            found(table(50), **reading)
    (fault,) = found(table(50), demanded=True, target=["a"], future=["wind"]).faults
    assert fault.what == "has no column 'wind'"
    mixed = table(50).assign(wind=[1.0] * 40 + ["calm"] * 10)
    (fault,) = found(mixed, past=["wind"]).faults
    assert "has 'calm' in 'wind', which is no number, and 9 more" in fault.what


def test_several_columns_name_a_series(table):
    frame = pd.concat([table(30).assign(store=store, item=item) for store in (1, 2) for item in "xy"])
    result = found(frame, id=["store", "item"])
    assert [series.name for series in result.series] == [f"store={s}, item={i}" for s in (1, 2) for i in "xy"]
    assert result.id == "store, item"
    assert result.labels["store"].tolist() == [1, 1, 2, 2]


def test_real_tables(shared_data):
    small = shared_data("ts_small")
    for name, frequency in (("statsmodels_macrodata", "QS-JAN"), ("AirPassengers", "MS"), ("temps", "D")):
        result = examine(Source(name, pd.read_csv(small / f"{name}.csv")), Reading())
        assert (result.frequency, result.faults) == (frequency, [])
