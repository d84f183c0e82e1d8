"""Splits by time alone: the last rows of each series are the test, those before them validation."""

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from ...core.errors import QuintetError
from .examine import Series

Split = Literal["ett-hour"] | dict[str, float | str]
Rows = dict[str, tuple[int, int]]  # first row and the row after the last, of each part

ETT_HOUR = (8640, 11520, 14400)  # ends of train, validation and test: 12, 4 and 4 months of 30 days


def check_split(split: Split) -> None:
    """Raises QuintetError for a split that cannot be made of any series."""
    if split == "ett-hour":
        return
    if not isinstance(split, Mapping) or set(split) - {"val", "test"} or "val" not in split:
        raise QuintetError(
            "data.split is ett-hour, or where validation and test begin: {val: 0.2, test: 0.2} as shares of the rows, "
            "{val: 2024-01-01, test: 2024-07-01} as dates"
        )
    shares = [value for value in split.values() if isinstance(value, int | float)]
    if shares and (len(shares) != len(split) or min(shares) < 0 or sum(shares) >= 1):
        raise QuintetError(f"data.split is {dict(split)}; shares lie between 0 and 1 and leave some rows for training")


def rows_of(series: Series, split: Split) -> Rows:
    """Rows of train, val and test in one series. Raises QuintetError where the series does not reach that far."""
    total, label = len(series.values), f"series '{series.name}'" if series.name else "the series"
    if split == "ett-hour":
        if total < ETT_HOUR[2]:
            raise QuintetError(f"data.split=ett-hour needs {ETT_HOUR[2]:,} rows, {label} has {total:,}; give shares")
        train, val, test = ETT_HOUR
    elif all(isinstance(value, int | float) for value in split.values()):
        test = total
        val = total - round(total * split.get("test", 0.0))
        train = val - round(total * split["val"])
    else:
        test = total
        train = _row_at(series, split["val"], "val")
        val = _row_at(series, split["test"], "test") if "test" in split else total
        if not 0 < train < val:
            begins = f"{split['val']}" + (f" and {split['test']}" if "test" in split else "")
            raise QuintetError(
                f"data.split: {label} runs from {series.stamps[0]} to {series.stamps[-1]}; validation and test cannot "
                f"begin at {begins}"
            )
    return {"train": (0, train), "val": (train, val), "test": (val, test)}


def _row_at(series: Series, begin: float | str, part: str) -> int:
    """The first row not before a date."""
    if not isinstance(series.stamps, pd.DatetimeIndex):
        raise QuintetError("data.split: the rows have no dates; give shares, e.g. {val: 0.2, test: 0.2}")
    try:
        stamp = pd.Timestamp(begin)
    except ValueError:
        raise QuintetError(f"data.split: '{begin}' for {part} is no date; e.g. 2024-01-01") from None
    if series.stamps.tz and stamp.tz is None:
        stamp = stamp.tz_localize(series.stamps.tz)
    if series.stamps.tz is None and stamp.tz is not None:
        raise QuintetError(f"data.split: '{begin}' names an offset from UTC, the stamps do not; leave it out")
    return int(series.stamps.searchsorted(stamp))
