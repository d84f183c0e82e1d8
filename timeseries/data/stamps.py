"""Stamps: which columns hold them, what they say, and the regular grid of time they lie on."""

import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from ...core.data import Fault
from ...core.errors import QuintetError, nearest
from .files import Source

DATE_NAMES = ("date", "datetime", "timestamp", "time", "ds", "stamp", "day", "week", "month", "year")
PARTS = ("year", "quarter", "month", "day", "hour", "minute", "second")
OFFSET = r"(Z|[+-]\d\d:?\d\d)$"  # how a stamp ends that names its offset from UTC
PROBED = 20  # rows by which a column is recognised

# Steps of a frequency in the season that people expect of it.
SEASONS = {"h": 24, "D": 7, "B": 5, "W": 52, "M": 12, "Q": 4, "Y": 1}

CALENDAR = {
    "minute": lambda stamps: stamps.minute / 59 - 0.5,
    "hour": lambda stamps: stamps.hour / 23 - 0.5,
    "weekday": lambda stamps: stamps.dayofweek / 6 - 0.5,
    "day": lambda stamps: (stamps.day - 1) / 30 - 0.5,
    "yearday": lambda stamps: (stamps.dayofyear - 1) / 365 - 0.5,
    "month": lambda stamps: (stamps.month - 1) / 11 - 0.5,
}


def find_time(frame: pd.DataFrame, given: str | Sequence[str] | None) -> list[str]:
    """The column of stamps, or several that make one up (year, month, ...); empty where there is none."""
    if given is not None:
        columns = [given] if isinstance(given, str) else list(given)
        for name in columns:
            if name not in frame:
                raise QuintetError(f"data.time: no column '{name}'; {nearest(name, map(str, frame.columns))}")
        return columns
    lowered = {str(name).strip().lower(): name for name in frame.columns}
    if "year" in lowered and {"month", "quarter"} & lowered.keys():
        return [lowered[part] for part in PARTS if part in lowered]
    named = [lowered[name] for name in DATE_NAMES if name in lowered]
    others = [name for name in frame.columns if name not in named and not pd.api.types.is_numeric_dtype(frame[name])]
    return next(([name] for name in [*named, *others] if _looks_like_dates(frame[name])), [])


def _looks_like_dates(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        return True
    probed = column.dropna().iloc[:PROBED]
    if pd.api.types.is_numeric_dtype(column):
        return len(probed) > 0 and _format_of_numbers(probed) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats that differ from row to row
        parsed = pd.to_datetime(probed, errors="coerce", utc=True)
    return len(probed) > 0 and bool(parsed.notna().mean() > 0.5)


def _format_of_numbers(numbers: pd.Series) -> str | None:
    """The date format of numbers that are years or read as yyyymmdd."""
    if (numbers % 1 != 0).any():
        return None
    if numbers.between(1000, 3000).all():
        return "%Y"
    return "%Y%m%d" if numbers.between(10_000_000, 99_991_231).all() else None


def parse_stamps(
    source: Source, columns: Sequence[str], time_format: str | None, zone: str | None
) -> tuple[pd.DatetimeIndex | None, list[Fault]]:
    """The stamps of all rows, or what is wrong with them.

    Args:
        source: the table.
        columns: one column, or several that make a stamp up.
        time_format: of the stamps, as `datetime.strptime` takes it, or "unix" for seconds since 1970.
        zone: time zone to which stamps with an offset are brought, and which those without are in.
    """
    if len(columns) > 1:
        return _composed(source, columns)
    column, name = source.frame[columns[0]], columns[0]
    if column.isna().any():
        return None, [Fault(source.row(int(column.isna().argmax())), f"has no stamp in '{name}'", "add it")]
    text = None
    try:
        if pd.api.types.is_numeric_dtype(column) and time_format == "unix":
            stamps = pd.to_datetime(column, unit="s")
        elif pd.api.types.is_numeric_dtype(column):
            known = time_format or _format_of_numbers(column)
            if known is None:
                remedy = "give data.time_format=unix for seconds since 1970, or data.time of another column"
                what = f"is {column.iloc[0]}, neither a year nor yyyymmdd"
                return None, [Fault(f"{source.where} column '{name}'", what, remedy)]
            stamps = pd.to_datetime(column.astype("int64").astype(str), format=known)
        elif column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
            stamps = column
        else:
            text = column.astype(str).str.strip()
            if fault := _mixed_zones(source, name, text, zone):
                return None, [fault]
            stamps = _read_text(text, time_format)
    except (ValueError, OverflowError):
        return None, [_unreadable(source, name, column.astype(str) if text is None else text, time_format)]
    stamps = pd.DatetimeIndex(stamps)
    if zone:
        try:
            stamps = (
                stamps.tz_convert(zone) if stamps.tz else stamps.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
            )
        except (KeyError, ValueError):  # what the zone database raises for a name it does not have
            raise QuintetError(f"data.time_zone: no time zone is called '{zone}'; e.g. UTC, Europe/Vienna") from None
        if stamps.hasnans:
            at = int(stamps.isna().argmax())
            remedy = "write the offset beside each stamp, e.g. +01:00"
            what = f"has the stamp {column.iloc[at]}, which {zone} has twice or never (clocks change)"
            return None, [Fault(source.row(at), what, remedy)]
    return stamps, []


def _read_text(text: pd.Series, time_format: str | None) -> pd.Series:
    several = text.str.extract(OFFSET)[0].where(text.str.len() > 10).nunique() > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pd.to_datetime(text, format=time_format, utc=True if several else None)


def _mixed_zones(source: Source, name: str, text: pd.Series, zone: str | None) -> Fault | None:
    """Stamps some of which name an offset and others do not, or name different ones though no zone was chosen."""
    offsets = text.str.extract(OFFSET)[0].where(text.str.len() > 10)
    if offsets.isna().all():
        return None
    if offsets.isna().any():
        at = int((offsets.isna() != offsets.isna().iloc[0]).argmax())
        what = f"mixes stamps with and without an offset from UTC in '{name}' ({text.iloc[0]}, {text.iloc[at]})"
        return Fault(source.row(at), what, "write the offset beside each stamp")
    if offsets.nunique() == 1 or zone:
        return None
    at = int((offsets != offsets.iloc[0]).argmax())
    what = f"mixes time zones in '{name}' ({offsets.iloc[0]} above, {offsets.iloc[at]} here)"
    return Fault(source.row(at), what, "choose one with data.time_zone, e.g. UTC")


def _unreadable(source: Source, name: str, text: pd.Series, time_format: str | None) -> Fault:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad = pd.to_datetime(text, format=time_format, errors="coerce", utc=True).isna()
    at = int(bad.argmax())
    remedy = "correct it, or give the format of all as data.time_format, e.g. %d.%m.%Y"
    return Fault(source.row(at), f"has '{text.iloc[at]}' in '{name}', which is no date like those above it", remedy)


def _composed(source: Source, columns: Sequence[str]) -> tuple[pd.DatetimeIndex | None, list[Fault]]:
    """Stamps from columns named after their parts."""
    lowered = {str(name).strip().lower(): name for name in columns}
    if unknown := [name for part, name in lowered.items() if part not in PARTS]:
        raise QuintetError(f"data.time: '{unknown[0]}' is no part of a date; {nearest(unknown[0], PARTS)}")
    if "year" not in lowered:
        raise QuintetError(f"data.time: {', '.join(columns)} make no stamp without a column called year")
    parts = {part: pd.to_numeric(source.frame[name], errors="coerce") for part, name in lowered.items()}
    if "quarter" in parts:
        parts["month"] = 3 * parts.pop("quarter") - 2
    whole = pd.DataFrame({"month": 1, "day": 1} | parts)
    stamps = pd.to_datetime(whole, errors="coerce")
    if stamps.isna().any():
        at = int(stamps.isna().argmax())
        shown = ", ".join(str(source.frame[name].iloc[at]) for name in columns)
        return None, [Fault(source.row(at), f"has no date in {', '.join(columns)} ({shown})", "correct it")]
    return pd.DatetimeIndex(stamps), []


def infer_frequency(stamps: pd.DatetimeIndex) -> str | None:
    """The pandas frequency most stretches of sorted, unique stamps agree on; None for fewer than three stamps."""
    if len(stamps) < 3:
        return None
    if whole := pd.infer_freq(stamps):
        return whole
    span = min(len(stamps), 12)
    starts = np.unique(np.linspace(0, len(stamps) - span, 50).astype(int))
    votes = Counter(pd.infer_freq(stamps[start : start + span]) for start in starts)
    votes.pop(None, None)
    if votes:
        return votes.most_common(1)[0][0]
    steps = Counter(later - earlier for earlier, later in pairwise(stamps))
    return pd.tseries.frequencies.to_offset(steps.most_common(1)[0][0]).freqstr


def grid_of(stamps: pd.DatetimeIndex, frequency: str) -> pd.DatetimeIndex:
    """Every stamp of a frequency from the first to the last."""
    return pd.date_range(stamps[0], stamps[-1], freq=frequency)


def same_step(stamps: pd.Index, frequency: str, other: str) -> bool:
    """Whether stamps on the grid of one frequency lie on that of another, e.g. of QS-JAN on that of QS-OCT."""
    if frequency == other or not (frequency and other):
        return frequency == other
    return stamps.equals(pd.date_range(stamps[0], periods=len(stamps), freq=other))


def extended(stamps: pd.Index, frequency: str, steps: int) -> pd.Index:
    """The stamps and `steps` more; row numbers where there is no frequency."""
    if not frequency:
        return pd.RangeIndex(stamps[0], stamps[-1] + 1 + steps)
    return stamps.append(pd.date_range(stamps[-1], periods=steps + 1, freq=frequency)[1:])


def season_of(frequency: str) -> int:
    """Steps in the season of a frequency: 24 of hours, 7 of days, 12 of months; 1 where none is known."""
    if not frequency:
        return 1
    offset = pd.tseries.frequencies.to_offset(frequency)
    if isinstance(offset, pd.tseries.offsets.Tick) and not frequency.endswith("D"):
        day = pd.Timedelta(days=1) / pd.Timedelta(offset)
        return int(day) if day >= 2 and day == int(day) else 1
    kind = offset.name.split("-")[0].removesuffix("S").removesuffix("E")
    season = SEASONS.get(kind.removeprefix("B") or "B", 1)
    return season // offset.n if season % offset.n == 0 else 1


def calendar_of(stamps: pd.Index, names: Sequence[str]) -> np.ndarray:
    """Calendar features between -0.5 and 0.5, one column a name. Raises QuintetError without dates."""
    for name in names:
        if name not in CALENDAR:
            raise QuintetError(f"data.calendar: no feature is called '{name}'; {nearest(name, CALENDAR)}")
    if names and not isinstance(stamps, pd.DatetimeIndex):
        raise QuintetError("data.calendar needs dates, and these rows have none; leave it out")
    columns = [np.asarray(CALENDAR[name](stamps), dtype=np.float32) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(stamps), 0), dtype=np.float32)


def shown(stamp: object) -> str:
    """A stamp as a person writes it: without a time of day that is midnight."""
    return str(stamp).removesuffix(" 00:00:00")
