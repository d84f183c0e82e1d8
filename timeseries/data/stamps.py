"""Stamps: which columns hold them, what they say, and the regular grid of time they lie on."""

import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from ...core.data.faults import Fault
from ...core.errors import QuintetError, nearest
from .files import Source
from .stamp_formats import CERTAIN, EXCEL, UNITS, check_format, implausible, of_numbers, orders, readings

DATE_NAMES = ("date", "datetime", "timestamp", "time", "ds", "stamp", "day", "week", "month", "year")
PARTS = ("year", "quarter", "month", "day", "hour", "minute", "second")
OFFSET = r"(Z|[+-]\d\d:?\d\d)$"  # how a stamp ends that names its offset from UTC
EARLIEST_YEAR = 1000  # of dates in words; an earlier one is a day or a short year that was taken for a year
CLOCK = r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?( ?[AaPp][Mm])?"  # to which pandas adds the day on which it is read
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


def find_time(
    frame: pd.DataFrame, given: str | Sequence[str] | None, time_format: str | None = None, doubtful: bool = True
) -> list[str]:
    """The column of stamps, or several that make one up (year, month, ...); empty where there is none.

    Args:
        frame: the table.
        given: what the user says.
        time_format: of the stamps, where the user says it: a column of their name then is one of stamps.
        doubtful: take numbers that look like stamps, too, though only the user can say how they are read.
    """
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
    if named and time_format is not None:
        return named[:1]
    numeric = [name for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])]
    others = [name for name in frame.columns if name not in [*named, *numeric]]
    if {"year", "week"} <= lowered.keys():
        weeks = [lowered["year"], lowered["week"]]
        if not any(_looks_like_dates(frame[name], time_format) for name in [*named, *others] if name not in weeks):
            return weeks  # of which `parse_stamps` says what is wrong
    certain = (name for name in [*named, *others] if _looks_like_dates(frame[name], time_format))
    if (found := next(certain, None)) is not None or not doubtful:
        return [] if found is None else [found]
    # Numbers since 1970 that rise are stamps whatever they are called; other forms are so by their column's name alone.
    suspected = (
        name
        for name in [*named, *numeric]
        if (known := readings(_numbers(frame[name]).dropna()))
        and (name in named or (known[0].startswith("unix") and frame[name].is_monotonic_increasing))
    )
    return [name for name in (next(suspected, None),) if name is not None]


def _numbers(column: pd.Series) -> pd.Series:
    """A column as numbers, also where they are text of digits alone; empty where it holds anything else."""
    if column.dtype == bool or column.dtype.kind not in "iufO":
        return pd.Series(dtype=float)
    if pd.api.types.is_numeric_dtype(column):
        return column
    text = column.dropna().astype(str)
    return text.astype("int64") if len(text) and text.str.fullmatch(r"\d{4,14}").all() else pd.Series(dtype=float)


def _looks_like_dates(column: pd.Series, time_format: str | None) -> bool:
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        return True
    probed = column.dropna().iloc[:PROBED]
    if len(numbers := _numbers(probed)):
        known = readings(numbers)
        return len(known) == 1 and known[0] in CERTAIN
    if pd.api.types.is_numeric_dtype(column):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats that differ from row to row
        given = time_format if time_format not in (*UNITS, EXCEL) else None
        parsed = pd.to_datetime(probed, format=given, errors="coerce", utc=True)
    return len(probed) > 0 and bool(parsed.notna().mean() > 0.5)


def parse_stamps(
    source: Source, columns: Sequence[str], time_format: str | None, zone: str | None
) -> tuple[pd.DatetimeIndex | None, list[Fault]]:
    """The stamps of all rows, or what is wrong with them.

    Args:
        source: the table.
        columns: one column, or several that make a stamp up.
        time_format: of the stamps, as `datetime.strptime` takes it; of numbers also "unix" (seconds since 1970),
            "unix_ms", "unix_us", "unix_ns" and "excel".
        zone: time zone to which stamps with an offset are brought, and which those without are in.
    """
    if time_format is not None:
        check_format(time_format)
    if len(columns) > 1:
        if time_format is not None:
            raise QuintetError(f"data.time_format: {', '.join(columns)} make up the stamps; leave the format out")
        return _composed(source, columns)
    column, name = source.frame[columns[0]], columns[0]
    if column.isna().any():
        return None, [Fault(source.row(int(column.isna().argmax())), f"has no stamp in '{name}'", "add it")]
    text, numbers = None, _numbers(column)
    try:
        if column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
            if time_format is not None:
                raise QuintetError(f"data.time_format: '{name}' holds dates already; leave the format out")
            stamps = column
        elif len(numbers):
            stamps, fault = _of_numbers(source, name, numbers, time_format)
            if fault:
                return None, [fault]
        else:
            text = column.astype(str).str.strip()
            if time_format is None and (clock := text.str.fullmatch(CLOCK)).any():
                at = int(clock.argmax())
                what = f"has '{text.iloc[at]}' in '{name}', a time of day without a date"
                return None, [Fault(source.row(at), what, "write the date before it, in the same column")]
            if fault := _mixed_zones(source, name, text, zone) or (
                _several_orders(source, name, text) if time_format is None else None
            ):
                return None, [fault]
            stamps = _read_text(text, time_format)
    except (ValueError, OverflowError, TypeError):
        return None, [_unreadable(source, name, column.astype(str) if text is None else text, time_format)]
    stamps = pd.DatetimeIndex(stamps)
    if text is not None and time_format is None and len(stamps) and stamps.year.min() < EARLIEST_YEAR:
        at = int((stamps.year < EARLIEST_YEAR).argmax())
        what = f"has '{column.iloc[at]}' in '{name}', which would be the year {stamps.year[at]}"
        return None, [Fault(source.row(at), what, "give the format of all as data.time_format, e.g. %b-%y for Jan-24")]
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


def _of_numbers(
    source: Source, name: str, numbers: pd.Series, time_format: str | None
) -> tuple[pd.Series | None, Fault | None]:
    """Stamps of numbers in the format that was given, or the only one they can have if that is beyond doubt."""
    known, where, first = readings(numbers), f"{source.where} column '{name}'", numbers.iloc[0]
    told = " or ".join(
        f"data.time_format={one} ({first} is {shown(of_numbers(numbers.iloc[:1], one).iloc[0])})" for one in known
    )
    if time_format is None:
        if len(known) == 1 and known[0] in CERTAIN:
            return of_numbers(numbers, known[0]), None
        what = f"is {first}, neither a year nor yyyymmdd"
        if known:
            return None, Fault(where, what, f"give {told}; or name the columns to forecast with data.target")
        remedy = (
            "give data.time_format=unix for seconds since 1970 (or unix_ms, excel, ...), or data.time of another column"
        )
        return None, Fault(where, what, remedy)
    stamps = of_numbers(numbers, time_format)
    if known and time_format not in known and implausible(stamps):
        what = f"is {first}, which as {time_format} is {shown(stamps.iloc[0])}"
        return None, Fault(where, what, f"give {told}")
    return stamps, None


def _several_orders(source: Source, name: str, text: pd.Series) -> Fault | None:
    """What to ask where day and month may stand in either order."""
    found = orders(text)
    if found is None or len(found) < 2:
        return None
    differing = list(found.values())
    at = int((differing[0] != differing[1]).to_numpy().argmax())
    row = differing[0].index[at]
    told = " or ".join(f"data.time_format='{one}' ({shown(stamps[row])})" for one, stamps in found.items())
    what = f"has '{text[row]}' in '{name}', of which day and month may stand in either order, as in all rows"
    return Fault(source.row(int(text.index.get_loc(row))), what, f"give {told}")


def _read_text(text: pd.Series, time_format: str | None) -> pd.Series:
    several = text.str.extract(OFFSET)[0].where(text.str.len() > 10).nunique() > 1
    order = next(iter(orders(text) or [""])) if time_format is None else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        day, year = order.startswith("%d"), order.startswith("%y")
        return pd.to_datetime(text, format=time_format, dayfirst=day, yearfirst=year, utc=True if several else None)


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
    known = None if time_format in (*UNITS, EXCEL) else time_format
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad = pd.to_datetime(text, format=known, errors="coerce", utc=True).isna()
    at = int(bad.argmax())
    remedy = "correct it, or give the format of all as data.time_format, e.g. %d.%m.%Y"
    return Fault(source.row(at), f"has '{text.iloc[at]}' in '{name}', which is no date like those above it", remedy)


def _composed(source: Source, columns: Sequence[str]) -> tuple[pd.DatetimeIndex | None, list[Fault]]:
    """Stamps from columns named after their parts."""
    lowered = {str(name).strip().lower(): name for name in columns}
    if {"year", "week"} <= lowered.keys():
        raise QuintetError(
            f"{source.where} has years and weeks, of which calendars begin on different days; write the first day of "
            "each week into one column, e.g. 2024-01-01, and name it with data.time"
        )
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
