"""What numbers and text may say as stamps: their one reading, or the several between which only people decide."""

import datetime
import re
import warnings

import numpy as np
import pandas as pd

from ...core.errors import QuintetError

UNITS = {"unix": "s", "unix_ms": "ms", "unix_us": "us", "unix_ns": "ns"}  # data.time_format of numbers since 1970
EXCEL = "excel"  # days since 1899-12-30
CERTAIN = ("%Y", "%Y%m%d")  # formats of numbers that are taken without being asked for
DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
EARLIEST, LATEST = pd.Timestamp("1990-01-01"), pd.Timestamp("2100-01-01")  # of numbers that may be stamps
PLAUSIBLE = (1800, 2262)  # years of stamps whose unit was chosen rightly
# Day, month and year in any order, and what follows of a time of day.
PARTS = re.compile(r"^\s*(\d{1,2})([/.\-])(\d{1,2})\2(\d{4}|\d{2})(?!\d)(.*)")
ORDERS = {"%d{0}%m{0}%": (0, 1, 2), "%m{0}%d{0}%": (1, 0, 2)}


def readings(numbers: pd.Series) -> list[str]:
    """Every format in which all of these numbers are stamps of our time, as `data.time_format` takes them."""
    if not len(numbers):
        return []
    found, low, high = [], float(numbers.min()), float(numbers.max())
    if (numbers % 1 == 0).all() and low > 0 and high < 10**14:
        text = numbers.astype("int64").astype(str)
        lengths = text.str.len().unique()
        known = DIGITS.get(int(lengths[0])) if len(lengths) == 1 else None
        if known == "%Y":
            found += [known] if low >= 1000 and high <= 3000 else []
        elif known is not None:
            stamps = pd.to_datetime(text, format=known, errors="coerce")
            decided = known == "%Y%m%d" or (stamps.min() >= EARLIEST and stamps.max() <= LATEST)
            found += [known] if stamps.notna().all() and decided else []
    if low >= 20_000 and high <= 80_000:
        found.append(EXCEL)
    for name, unit in UNITS.items():
        if _at(float(low), unit) >= EARLIEST and _at(float(high), unit) <= LATEST:
            found.append(name)
    return found


def _at(number: float, unit: str) -> pd.Timestamp:
    try:
        return pd.Timestamp(int(number), unit=unit)
    except (OverflowError, ValueError):  # beyond what nanoseconds reach
        return pd.Timestamp.min


def of_numbers(numbers: pd.Series, given: str) -> pd.Series:
    """The stamps that numbers are in a format. Raises ValueError where they are none."""
    if given == EXCEL:
        return pd.to_datetime(numbers, unit="D", origin="1899-12-30").dt.round("s")
    if given in UNITS:
        return pd.to_datetime(numbers, unit=UNITS[given])
    if (numbers % 1 != 0).any():
        raise ValueError("no whole numbers")
    return pd.to_datetime(numbers.astype("int64").astype(str), format=given)


def as_numbers(stamps: pd.DatetimeIndex, given: str) -> np.ndarray:
    """Stamps as the numbers of which `of_numbers` makes them."""
    if given not in (*UNITS, EXCEL):
        return stamps.strftime(given).astype("int64").to_numpy()
    plain = stamps.tz_convert("UTC").tz_localize(None) if stamps.tz is not None else stamps
    if given == EXCEL:
        return ((plain - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1)).to_numpy()
    return ((plain - pd.Timestamp(0)) // pd.Timedelta(1, UNITS[given])).to_numpy()


def implausible(stamps: pd.Series) -> bool:
    """Whether stamps from numbers lie where no series does, as those of another unit would."""
    years = pd.DatetimeIndex(stamps).year
    return bool((years < PLAUSIBLE[0]).any() or (years > PLAUSIBLE[1]).any() or (years == 1970).all())


def check_format(given: str) -> None:
    """Raises QuintetError for a format of stamps that `datetime.strptime` does not know."""
    if given in (*UNITS, EXCEL):
        return
    try:
        datetime.datetime.strptime("", given)
    except ValueError as error:
        if "does not match" not in str(error):
            others = ", ".join((*UNITS, EXCEL))
            raise QuintetError(
                f"data.time_format: '{given}' is no format ({error}); e.g. %d.%m.%Y %H:%M, or {others} of numbers"
            ) from None


def orders(text: pd.Series) -> dict[str, pd.Series] | None:
    """Of dates whose year stands last: each format in which all are dates, with what they then are.

    None where the text is of another kind. Formats that give the same dates are one.
    """
    dates = text.drop_duplicates()
    parts = dates.str.extract(PARTS)
    if parts[0].isna().any():
        return None
    separator, rest = parts.iloc[0][1], parts.iloc[0][4]
    short = parts[3].str.len() == 2
    clock = re.sub(r"\d+", "%M", re.sub(r"\d+", "%H", rest, count=1), count=1)
    clock = re.sub(r"(?<=[:])\d+", "%S", clock, count=1)
    named = {order.format(separator) + ("y" if short.all() else "Y") + clock: at for order, at in ORDERS.items()}
    if short.all():
        named[f"%y{separator}%m{separator}%d{clock}"] = (2, 1, 0)
    found: dict[str, pd.Series] = {}
    for name, (day, month, year) in named.items():
        columns = parts[[(0, 2, 3)[at] for at in (day, month, year)]].astype(int)
        columns.columns = ["day", "month", "year"]
        columns["year"] += 2000 * (columns["year"] < 100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stamps = pd.to_datetime(columns, errors="coerce")
        if stamps.notna().all() and not any(stamps.equals(other) for other in found.values()):
            found[name] = stamps
    return found
