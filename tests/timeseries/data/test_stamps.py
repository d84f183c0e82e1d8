"""Stamps are found and read in the forms people write them; frequencies and seasons."""

import numpy as np
import pandas as pd
import pytest

from quintet.core.errors import QuintetError
from quintet.timeseries.data.files import Source
from quintet.timeseries.data.stamps import (
    calendar_of,
    extended,
    find_time,
    infer_frequency,
    parse_stamps,
    same_step,
    season_of,
)


def source(**columns) -> Source:
    return Source("file.csv", pd.DataFrame(columns), first_row=2)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"x": [1.0], "date": ["2024-01-01"]}, ["date"]),
        ({"x": [1.0], "Month": ["1949-01"]}, ["Month"]),
        ({"YEAR": [1700.0], "x": [1.0]}, ["YEAR"]),
        ({"date": [19580329], "x": [1.0]}, ["date"]),
        ({"when": ["3/4/2021"], "x": [1.0]}, ["when"]),
        ({"year": [1959], "quarter": [1], "x": [1.0]}, ["year", "quarter"]),
        ({"hour": [3], "day": [2], "month": [1], "year": [2024], "x": [1.0]}, ["year", "month", "day", "hour"]),
        ({"x": [1.0], "y": [2.0]}, []),
    ],
)
def test_the_time_column_is_found(columns, expected):
    assert find_time(pd.DataFrame(columns), None) == expected


@pytest.mark.parametrize(
    ("columns", "time_format", "zone", "expected"),
    [
        ({"t": ["2024-01-01 05:00"]}, None, None, "2024-01-01 05:00"),
        ({"t": ["Jan-1-1995"]}, None, None, "1995-01-01"),
        ({"t": ["31.12.2023"]}, "%d.%m.%Y", None, "2023-12-31"),
        ({"t": [1700.0]}, None, None, "1700-01-01"),
        ({"t": [19580329]}, None, None, "1958-03-29"),
        ({"t": [86400]}, "unix", None, "1970-01-02"),
        ({"t": ["2024-01-01T05:00:00+01:00"]}, None, "UTC", "2024-01-01 04:00+00:00"),
        ({"t": ["2024-01-01 05:00"]}, None, "Europe/Vienna", "2024-01-01 05:00+01:00"),
        ({"year": [1959], "quarter": [3]}, None, None, "1959-07-01"),
        ({"year": [2024], "month": [2], "day": [29], "hour": [7]}, None, None, "2024-02-29 07:00"),
    ],
)
def test_forms_of_stamps(columns, time_format, zone, expected):
    stamps, faults = parse_stamps(source(**columns), list(columns), time_format, zone)
    assert not faults
    assert stamps[0] == pd.Timestamp(expected)


@pytest.mark.parametrize(
    ("values", "zone", "where", "what", "remedy"),
    [
        (
            ["2024-01-01", "yesterday"],
            None,
            "file.csv row 3",
            "'yesterday' in 't', which is no date",
            "data.time_format",
        ),
        (["2024-01-01", None], None, "file.csv row 3", "has no stamp in 't'", "add it"),
        ([0.5, 1.5], None, "file.csv column 't'", "is 0.5, neither a year nor yyyymmdd", "data.time_format=unix"),
        (
            ["2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00"],
            None,
            "file.csv row 3",
            "mixes time zones in 't' (+01:00 above, +02:00 here)",
            "data.time_zone",
        ),
        (
            ["2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00"],
            None,
            "file.csv row 3",
            "mixes stamps with and without an offset",
            "write the offset",
        ),
        (["2024-10-27 01:30", "2024-10-27 02:30"], "Europe/Vienna", "file.csv row 3", "twice or never", "the offset"),
    ],
)
def test_stamps_that_cannot_be_read(values, zone, where, what, remedy):
    stamps, (fault,) = parse_stamps(source(t=values), ["t"], None, zone)
    assert stamps is None
    assert fault.where == where
    assert what in fault.what
    assert remedy in fault.remedy


def test_one_zone_brings_mixed_offsets_together():
    values = ["2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00"]
    stamps, faults = parse_stamps(source(t=values), ["t"], None, "UTC")
    assert not faults
    assert list(stamps) == [pd.Timestamp("2024-03-31 00:00", tz="UTC"), pd.Timestamp("2024-03-31 01:00", tz="UTC")]


def test_names_that_are_not_there():
    with pytest.raises(QuintetError, match=r"data.time: no column 'dat'; nearest: date"):
        find_time(pd.DataFrame({"date": ["2024"]}), "dat")
    with pytest.raises(QuintetError, match="no time zone is called 'Europe/Vienn'"):
        parse_stamps(source(t=["2024-01-01 05:00"]), ["t"], None, "Europe/Vienn")
    with pytest.raises(QuintetError, match="'x' is no part of a date"):
        parse_stamps(source(year=[2024], x=[1]), ["year", "x"], None, None)


WEEKS_AND_LESS = [("s", 86400), ("h", 24), ("30min", 48), ("7min", 1), ("2h", 12), ("D", 7), ("B", 5), ("W-SUN", 52)]


@pytest.mark.parametrize("frequency", ["h", "15min", "D", "B", "W-SUN", "MS", "QS-JAN", "YS-JAN"])
def test_a_frequency_is_found_through_gaps(frequency):
    stamps = pd.date_range("2020-01-01", periods=60, freq=frequency)
    assert infer_frequency(stamps) == frequency
    assert infer_frequency(stamps.delete([20, 21, 40])) == frequency


def test_two_stamps_have_no_frequency():
    assert infer_frequency(pd.DatetimeIndex(["2024-01-01", "2024-01-02"])) is None


@pytest.mark.parametrize(
    ("frequency", "season"),
    [*WEEKS_AND_LESS, ("MS", 12), ("ME", 12), ("QS-OCT", 4), ("QE-DEC", 4), ("YS-JAN", 1), ("YE-DEC", 1), ("", 1)],
)
def test_seasons(frequency, season):
    assert season_of(frequency) == season


def test_stamps_after_the_last():
    stamps = pd.date_range("2024-01-30", periods=2, freq="D")
    assert extended(stamps, "D", 2)[-1] == pd.Timestamp("2024-02-02")
    assert list(extended(pd.RangeIndex(3), "", 2)) == [0, 1, 2, 3, 4]


def test_steps_are_the_same_whatever_they_are_called():
    stamps = pd.date_range("2024-01-01", periods=8, freq="QS-OCT")
    assert same_step(stamps, "QS-JAN", "QS-OCT")
    assert not same_step(stamps, "QS-JAN", "MS")
    assert same_step(pd.RangeIndex(3), "", "")
    assert not same_step(pd.RangeIndex(3), "", "h")


def test_calendar_features():
    stamps = pd.DatetimeIndex(["2024-01-01 00:00", "2024-12-31 23:00"])
    found = calendar_of(stamps, ["hour", "day", "yearday", "month"])
    assert np.allclose(found, [[-0.5, -0.5, -0.5, -0.5], [0.5, 0.5, 0.5, 0.5]])
    with pytest.raises(QuintetError, match="no feature is called 'hours'; nearest: hour"):
        calendar_of(stamps, ["hours"])
    with pytest.raises(QuintetError, match="needs dates"):
        calendar_of(pd.RangeIndex(3), ["hour"])
