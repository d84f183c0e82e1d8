"""Splits are by time alone and say what they need."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.core.errors import QuintetError
from quintet.timeseries.data.examine import Series
from quintet.timeseries.data.splits import check_split, rows_of


def series(rows: int, zone: str | None = None) -> Series:
    return Series("x", pd.date_range("2024-01-01", periods=rows, freq="h", tz=zone), np.zeros((rows, 1)))


@given(st.integers(1, 500), st.floats(0, 0.49), st.floats(0, 0.49))
def test_parts_follow_each_other_and_cover_every_row(rows, val, test):
    parts = rows_of(series(rows), {"val": val, "test": test})
    assert parts["train"][0] == 0
    assert parts["train"][1] == parts["val"][0] <= parts["val"][1] == parts["test"][0] <= parts["test"][1] == rows


def test_dates():
    split = {"val": "2024-01-03", "test": "2024-01-04 12:00"}
    expected = {"train": (0, 48), "val": (48, 84), "test": (84, 100)}
    assert rows_of(series(100), split) == expected
    assert rows_of(series(100, "UTC"), split) == expected


def test_ett_hour():
    assert rows_of(series(17420), "ett-hour") == {"train": (0, 8640), "val": (8640, 11520), "test": (11520, 14400)}
    with pytest.raises(QuintetError, match="ett-hour needs 14,400 rows, series 'x' has 100; give shares"):
        rows_of(series(100), "ett-hour")


@pytest.mark.parametrize(
    ("split", "complaint"),
    [
        ({"val": "2030-01-01"}, "series 'x' runs from 2024-01-01 .* cannot begin at 2030-01-01"),
        ({"val": "soon"}, "'soon' for val is no date"),
    ],
)
def test_dates_that_do_not_fit(split, complaint):
    with pytest.raises(QuintetError, match=complaint):
        rows_of(series(100), split)


def test_dates_need_dates():
    with pytest.raises(QuintetError, match="the rows have no dates; give shares"):
        rows_of(Series("", pd.RangeIndex(10), np.zeros((10, 1))), {"val": "2024-01-01"})


@pytest.mark.parametrize(
    "split", [{}, {"test": 0.2}, {"val": 0.2, "tset": 0.2}, {"val": 0.6, "test": 0.5}, {"val": -0.1}]
)
def test_splits_of_nothing(split):
    with pytest.raises(QuintetError, match=r"data.split is"):
        check_split(split)


def test_shares_and_dates_do_not_mix():
    with pytest.raises(QuintetError, match="shares lie between 0 and 1"):
        check_split({"val": "2024-01-01", "test": 0.2})
