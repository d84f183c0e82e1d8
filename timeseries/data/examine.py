"""What a table of observations holds, looked through before training: series, channels, gaps, and what is wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from ...core.data import Fault
from ...core.errors import QuintetError, nearest
from .files import Source
from .stamps import find_time, grid_of, infer_frequency, parse_stamps, shown

SERIES_NAMES = ("unique_id", "item_id", "series_id", "ts_id", "series")
SPARSEST = 20  # a grid with more stamps than this times the rows is a mistaken frequency

Duplicates = Literal["raise", "first", "last", "mean"]


@dataclass
class Reading:
    """How a table is to be read; see `SeriesData` for what the fields mean."""

    time: str | list[str] | None = None
    id: str | None = None
    target: list[str] | None = None
    frequency: str | None = None
    time_format: str | None = None
    time_zone: str | None = None
    sort: bool = False
    duplicates: Duplicates = "raise"


@dataclass(eq=False)
class Series:
    """One series on its regular grid: stamps, values (T, C), NaN where nothing was observed; rows put in for gaps."""

    name: str
    stamps: pd.Index
    values: np.ndarray
    gaps: int = 0


@dataclass
class Examination:
    """What was found in a table; `series` is empty where a fault stood in the way."""

    where: str
    rows: int
    series: list[Series] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    time: str = ""
    id: str = ""
    frequency: str = ""
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def examine(source: Source, reading: Reading, channels: Sequence[str] | None = None) -> Examination:
    """Looks a table through; faults are listed, not raised.

    Args:
        source: the table.
        reading: how the user wants it read.
        channels: columns a trained model needs, in its order; None reads what `reading` or the table itself says.

    Raises QuintetError for an option that names what is not there.
    """
    frame = source.frame
    found = Examination(source.where, len(frame), remarks=list(source.remarks))
    identifier = _find_series(source, reading.id)
    time = [source.time] if source.time and reading.time is None else find_time(frame, reading.time)
    found.id = identifier or ""
    # One column keeps its name; several that make a stamp up, or none, become "time" or "row".
    found.time = str(time[0]) if len(time) == 1 else "time" if time else "row"
    names = _find_channels(source, channels or reading.target, {*time, identifier}, found, demanded=bool(channels))
    found.channels = [str(name) for name in names]
    found.units = [source.units.get(name, "") for name in found.channels]
    values = _numbers(source, names, found)
    stamps = None
    if time:
        stamps, faults = parse_stamps(source, time, reading.time_format, reading.time_zone)
        found.faults += faults
    else:
        found.remarks.append("no column holds dates: rows are numbered in their order (data.time names one)")
    if found.faults or not names:
        return found
    groups = {"": np.arange(len(frame))}
    if identifier is not None:
        if frame[identifier].isna().any():
            at = int(frame[identifier].isna().argmax())
            found.faults.append(Fault(source.row(at), f"has no name in '{identifier}'", "add it"))
            return found
        groups = {str(name): rows for name, rows in frame.groupby(identifier, sort=False).indices.items()}
    found.frequency = _frequency(stamps, groups, reading)
    for name, rows in groups.items():
        if one := _on_grid(source, name, rows, stamps, values, reading, found):
            found.series.append(one)
    _remark(found)
    return found


def _find_series(source: Source, given: str | None) -> str | None:
    if given is None:
        lowered = {str(name).strip().lower(): name for name in source.frame.columns}
        return source.series or next((lowered[name] for name in SERIES_NAMES if name in lowered), None)
    if given not in source.frame:
        raise QuintetError(f"data.id: no column '{given}'; {nearest(given, map(str, source.frame.columns))}")
    return given


def _find_channels(
    source: Source, wanted: Sequence[str] | None, taken: set, found: Examination, demanded: bool
) -> list[str]:
    """Columns to forecast: those asked for, or all that hold numbers."""
    frame = source.frame
    if wanted is not None:
        missing = [name for name in wanted if name not in frame]
        free = [str(name) for name in frame.columns if name not in taken]
        if missing and demanded:
            remedy = f"the model needs it; {nearest(missing[0], free)}"
            found.faults.append(Fault(source.where, f"has no column '{missing[0]}'", remedy))
            return []
        if missing:
            raise QuintetError(f"data.target: no column '{missing[0]}'; {nearest(missing[0], free)}")
        return list(wanted)
    names = []
    for name in frame.columns:
        if name in taken:
            continue
        filled = frame[name].dropna()
        dated = filled.dtype.kind == "M" or isinstance(filled.dtype, pd.DatetimeTZDtype)
        if dated or pd.to_numeric(filled, errors="coerce").isna().mean() > 0.5:
            found.remarks.append(f"column '{name}' holds no numbers and is not read")
        else:
            names.append(name)
    if not names:
        remedy = "name the columns to forecast with data.target, the column of series' names with data.id"
        found.faults.append(Fault(source.where, "has no column of numbers beside its stamps", remedy))
    return names


def _numbers(source: Source, names: Iterable[str], found: Examination) -> np.ndarray:
    """The channels as float64 (rows, C); text and infinities among them are faults."""
    columns = []
    for name in names:
        column = source.frame[name]
        numbers = pd.to_numeric(column, errors="coerce")
        if (bad := numbers.isna() & column.notna()).any():
            at, more = int(bad.argmax()), int(bad.sum()) - 1
            what = f"has '{column.iloc[at]}' in '{name}', which is no number" + (f", and {more} more" if more else "")
            found.faults.append(Fault(source.row(at), what, "correct it, or leave it empty where nothing was observed"))
        values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isinf(values).any():
            at = int(np.isinf(values).argmax())
            found.faults.append(Fault(source.row(at), f"has an infinite number in '{name}'", "correct it or empty it"))
        columns.append(values)
    return np.stack(columns, axis=1) if columns else np.zeros((len(source.frame), 0))


def _frequency(stamps: pd.DatetimeIndex | None, groups: dict[str, np.ndarray], reading: Reading) -> str:
    if stamps is None:
        return ""
    if reading.frequency:
        try:
            return pd.tseries.frequencies.to_offset(reading.frequency).freqstr
        except ValueError:
            raise QuintetError(
                f"data.frequency: '{reading.frequency}' is no pandas frequency; e.g. h, 15min, D, W, MS, QS, YS"
            ) from None
    longest = max(groups.values(), key=len)
    return infer_frequency(stamps[longest].unique().sort_values()) or ""


def _on_grid(
    source: Source,
    name: str,
    rows: np.ndarray,
    stamps: pd.DatetimeIndex | None,
    values: np.ndarray,
    reading: Reading,
    found: Examination,
) -> Series | None:
    """One series on the regular grid of its frequency, or None and the fault that stands in the way."""
    if stamps is None:
        return Series(name, pd.RangeIndex(len(rows)), values[rows])
    label = f" of series '{name}'" if name else ""
    several = "" if found.id else "; or data.id to the column that names the series, if there are several"
    own, values = stamps[rows], values[rows]
    if not own.is_monotonic_increasing:
        if not reading.sort:
            at = int((own[1:] < own[:-1]).argmax()) + 1
            what = f"goes back in time{label} ({shown(own[at - 1])}, then {shown(own[at])})"
            found.faults.append(
                Fault(source.row(int(rows[at])), what, f"sort the rows, or set data.sort=true{several}")
            )
            return None
        order = np.argsort(own, kind="stable")
        own, values, rows = own[order], values[order], rows[order]
    if own.has_duplicates:
        repeated = own.duplicated()
        if reading.duplicates == "raise":
            at, count = int(repeated.argmax()), int(repeated.sum())
            remedy = f"set data.duplicates to first, last or mean{several}"
            what = f"repeats the stamp {shown(own[at])}{label}; {count} row{'s do' if count > 1 else ' does'}"
            found.faults.append(Fault(source.row(int(rows[at])), what, remedy))
            return None
        if reading.duplicates == "mean":
            values = pd.DataFrame(values).groupby(own).mean().to_numpy()
            own, rows = own.unique(), rows[~repeated]
        else:
            kept = ~own.duplicated(keep=reading.duplicates)
            own, values, rows = own[kept], values[kept], rows[kept]
        found.remarks.append(f"{int(repeated.sum())} repeated stamps{label}: {reading.duplicates} taken")
    if not found.frequency:
        remedy = "give data.frequency, e.g. h, D, MS"
        found.faults.append(Fault(source.where, f"has too few stamps{label} to tell their frequency", remedy))
        return None
    if pd.Timedelta(own[-1] - own[0]) / _step(own[0], found.frequency) > SPARSEST * len(own):
        what = f"has {len(own)} stamps{label} from {shown(own[0])} to {shown(own[-1])}, far too few for steps of"
        found.faults.append(Fault(source.where, f"{what} {found.frequency}", "give data.frequency"))
        return None
    grid = grid_of(own, found.frequency)
    places = grid.get_indexer(own)
    if (places < 0).any():
        at, count = int((places < 0).argmax()), int((places < 0).sum())
        what = f"has the stamp {shown(own[at])}{label}, off the grid of {found.frequency} as {count} of {len(own)} are"
        remedy = "resample the rows to one step, or give data.frequency"
        found.faults.append(Fault(source.row(int(rows[at])), what, remedy))
        return None
    on_grid = np.full((len(grid), values.shape[1]), np.nan)
    on_grid[places] = values
    return Series(name, grid, on_grid, gaps=len(grid) - len(own))


def _step(start: pd.Timestamp, frequency: str) -> pd.Timedelta:
    return pd.date_range(start, periods=3, freq=frequency)[-1] - pd.date_range(start, periods=3, freq=frequency)[-2]


def _remark(found: Examination) -> None:
    """What is not wrong but worth knowing."""
    if gaps := sum(series.gaps for series in found.series):
        worst = max(found.series, key=lambda series: series.gaps)
        of = f" (most in '{worst.name}': {worst.gaps:,})" if worst.name else ""
        found.remarks.append(f"{gaps:,} stamps are absent{of}; they are masked, not filled")
    if not found.series:
        return
    missing = sum(np.isnan(series.values).sum(0) - series.gaps for series in found.series)
    for name, count in zip(found.channels, missing, strict=True):
        if count:
            found.remarks.append(f"column '{name}' is empty in {int(count):,} rows; they are masked, not filled")
