"""What a table of observations holds, looked through before training: series, channels, gaps, and what is wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from ...core.data.faults import Fault
from ...core.errors import QuintetError, nearest
from ..models.covariates import ROLES
from .doubts import doubtful_numbers, unread_time
from .files import Source
from .stamps import find_time, grid_of, infer_frequency, parse_stamps, shown

SERIES_NAMES = ("unique_id", "item_id", "series_id", "ts_id", "series")
# Names of columns that, where they rise by one step from row to row, only number the rows.
COUNTERS = {
    "",
    "index",
    "row",
    "row_id",
    "row_number",
    "rownum",
    "id",
    "no",
    "no.",
    "nr",
    "nr.",
    "#",
    "obs",
    "t",
    "step",
}
COUNTERS |= {"time", "timestamp", "seconds"}
SPARSEST = 20  # a grid with more stamps than this times the rows is a mistaken frequency

Duplicates = Literal["raise", "first", "last", "mean"]


@dataclass
class Reading:
    """How a table is to be read; see `SeriesData` for what the fields mean."""

    time: str | list[str] | None = None
    id: str | list[str] | None = None
    target: list[str] | None = None
    past: list[str] = field(default_factory=list)
    future: list[str] = field(default_factory=list)
    static: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    frequency: str | None = None
    time_format: str | None = None
    time_zone: str | None = None
    sort: bool = False
    duplicates: Duplicates = "raise"

    @property
    def ids(self) -> list[str]:
        """The columns that name the series, where the user says them."""
        return [self.id] if isinstance(self.id, str) else list(self.id or [])

    @property
    def covariates(self) -> list[str]:
        """The columns that are read but not forecast."""
        return [*self.past, *self.future, *self.static]


@dataclass(eq=False)
class Series:
    """One series on its regular grid, up to the last row with a target.

    Args:
        name: of the series, "" where there is one.
        stamps: of the rows (T).
        values: the targets (T, C), NaN where nothing was observed.
        gaps: rows put in for absent stamps.
        columns: covariates by name, numbers of categories for those that hold words; past (T), future (T or more: what
            is known after the last target), static (1).
    """

    name: str
    stamps: pd.Index
    values: np.ndarray
    gaps: int = 0
    columns: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Examination:
    """What was found in a table; `series` is empty where a fault stood in the way.

    `labels` has a row for each series: what the columns that name it say. `categories` are the words of each covariate
    that holds words.
    """

    where: str
    rows: int
    series: list[Series] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    time: str = ""
    id: str = ""
    frequency: str = ""
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    categories: dict[str, list[str]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)  # columns of words that are not read


def examine(source: Source, reading: Reading, demanded: bool = False) -> Examination:
    """Looks a table through; faults are listed, not raised.

    Args:
        source: the table.
        reading: how the user wants it read.
        demanded: a trained model needs the columns of `reading`: one that is absent is a fault of the table.

    Raises QuintetError for an option that names what is not there.
    """
    frame = source.frame
    found = Examination(source.where, len(frame), remarks=list(source.remarks))
    identifiers = _find_series(source, reading.ids)
    time = time_columns(source, reading)
    found.id = ", ".join(identifiers)
    # One column keeps its name; several that make a stamp up, or none, become "time" or "row".
    found.time = str(time[0]) if len(time) == 1 else "time" if time else "row"
    taken = {*time, *(name for name in identifiers if name not in reading.static)}
    covariates = _find_covariates(source, reading, taken, found, demanded)
    names = _find_channels(source, reading.target, {*taken, *identifiers, *covariates}, found, demanded)
    found.channels = [str(name) for name in names]
    found.units = [source.units.get(name, "") for name in found.channels]
    table = Table(
        np.concatenate(
            [_numbers(source, names, found), _features(source, covariates, reading, found, demanded)], axis=1
        ),
        found.channels,
        covariates,
    )
    if time:
        table.stamps, faults = parse_stamps(source, time, reading.time_format, reading.time_zone)
        found.faults += faults
    else:
        refuse_unused(reading)
        if reading.target is None and (doubt := unread_time(source)):
            found.faults.append(doubt)
        found.remarks.append("no column holds dates: rows are numbered in their order (data.time names one)")
    groups = _groups(source, identifiers, found)
    if found.faults or not names:
        return found
    found.frequency = _frequency(table.stamps, groups, reading)
    for name, rows in groups.items():
        if one := _on_grid(source, name, rows, table, reading, found):
            found.series.append(one)
    _leave_out_empty(source, found)
    _remark(found, reading)
    return found


def time_columns(source: Source, reading: Reading) -> list[str]:
    """The column of stamps, or several that make one up; empty where there is none."""
    if source.time and reading.time is None:
        return [source.time]
    return find_time(source.frame, reading.time, reading.time_format)


def refuse_unused(reading: Reading) -> None:
    """Raises QuintetError for options of stamps where no column holds any."""
    for option in ("time_format", "time_zone", "frequency"):
        if (value := getattr(reading, option)) is not None:
            raise QuintetError(
                f"data.{option}={value}: no column holds dates that it could be of; name one with data.time"
            )


@dataclass
class Table:
    """The rows of a table as numbers: targets, then covariates, and when they were; and the grid laid out last."""

    numbers: np.ndarray
    channels: list[str]
    covariates: list[str]
    stamps: pd.DatetimeIndex | None = None
    last: tuple[pd.DatetimeIndex, pd.DatetimeIndex, np.ndarray] | None = None


def _find_series(source: Source, given: Sequence[str]) -> list[str]:
    if not given:
        lowered = {str(name).strip().lower(): name for name in source.frame.columns}
        return source.series or [lowered[name] for name in SERIES_NAMES if name in lowered][:1]
    for name in given:
        if name not in source.frame:
            raise QuintetError(f"data.id: no column '{name}'; {nearest(name, map(str, source.frame.columns))}")
    return list(given)


def _groups(source: Source, identifiers: list[str], found: Examination) -> dict[str, np.ndarray]:
    """The rows of each series by its name, in the order in which they first appear."""
    frame = source.frame
    if not identifiers:
        return {"": np.arange(len(frame))}
    for name in identifiers:
        if frame[name].isna().any():
            at = int(frame[name].isna().argmax())
            found.faults.append(Fault(source.row(at), f"has no name in '{name}'", "add it"))
            return {}
    numbers = frame.groupby(identifiers, sort=False).ngroup().to_numpy()
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    found.labels = frame[identifiers].iloc[[rows[0] for rows in groups]].reset_index(drop=True)
    if len(identifiers) == 1:
        names = [str(label) for label in found.labels[identifiers[0]]]
    else:
        parts = [[f"{name}={label}" for label in found.labels[name]] for name in identifiers]
        names = [", ".join(together) for together in zip(*parts, strict=True)]
    return dict(zip(names, groups, strict=True))


def _absent(
    source: Source, option: str, names: Sequence[str], taken: set, found: Examination, demanded: bool
) -> list[str]:
    """Those of the names that are columns; for another raises QuintetError, or lists the fault where it is demanded."""
    missing = [name for name in names if name not in source.frame]
    if not missing:
        return list(names)
    close = nearest(missing[0], [str(name) for name in source.frame.columns if name not in taken])
    if not demanded:
        raise QuintetError(f"data.{option}: no column '{missing[0]}'; {close}")
    found.faults.append(Fault(source.where, f"has no column '{missing[0]}'", f"the model needs it; {close}"))
    return []


def _find_covariates(source: Source, reading: Reading, taken: set, found: Examination, demanded: bool) -> list[str]:
    """The columns of every role, each in one alone."""
    names = []
    for role in ROLES:
        for name in _absent(source, role, getattr(reading, role), taken, found, demanded):
            other = [*names, *taken, *(reading.target or [])]
            if name in other:
                raise QuintetError(f"data.{role}: '{name}' has another role already; a column has one")
            names.append(name)
    if not demanded and (unknown := [name for name in reading.categorical if name not in names]):
        raise QuintetError(
            f"data.categorical: '{unknown[0]}' is none of the covariates; {nearest(unknown[0], map(str, names))}"
        )
    return names


def _find_channels(
    source: Source, wanted: Sequence[str] | None, taken: set, found: Examination, demanded: bool
) -> list[str]:
    """Columns to forecast: those asked for, or all that hold numbers."""
    frame = source.frame
    if wanted is not None:
        return _absent(source, "target", wanted, taken, found, demanded)
    names = []
    for name in frame.columns:
        if name in taken:
            continue
        if _numbers_rows(name, frame[name]):
            found.remarks.append(f"column '{name}' numbers the rows and is not read (data.target would name it)")
            continue
        filled = frame[name].dropna()
        dated = filled.dtype.kind == "M" or isinstance(filled.dtype, pd.DatetimeTZDtype)
        if dated or pd.to_numeric(filled, errors="coerce").isna().mean() > 0.5:
            found.remarks.append(f"column '{name}' holds no numbers and is not read")
            if not dated:
                found.words.append(str(name))
        else:
            names.append(name)
    if not names:
        remedy = "name the columns to forecast with data.target, the column of series' names with data.id"
        found.faults.append(Fault(source.where, "has no column of numbers beside its stamps", remedy))
    return names


def _numbers_rows(name: str, column: pd.Series) -> bool:
    """Whether a column is called like a row's number and rises by one step, but where it begins again."""
    if str(name).strip().lower() not in COUNTERS and not str(name).startswith("Unnamed: "):
        return False
    if column.dtype.kind not in "iuf" or len(column) < 2 or column.isna().any():
        return False
    values = column.to_numpy(dtype=np.float64)
    steps, again = np.diff(values), values[1:] == values[0]
    return bool(steps[0] > 0 and (np.isclose(steps, steps[0]) | again).all())


def _numbers(source: Source, names: Iterable[str], found: Examination) -> np.ndarray:
    """Columns as float64 (rows, C); text and infinities among them are faults."""
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
        found.remarks += doubtful_numbers(name, column, values)
    return np.stack(columns, axis=1) if columns else np.zeros((len(source.frame), 0))


def _features(source: Source, names: Sequence[str], reading: Reading, found: Examination, demanded: bool) -> np.ndarray:
    """Covariates as float64 (rows, n): numbers, or the number of each category where a column holds words."""
    columns = []
    for name in names:
        column = source.frame[name]
        text = not demanded and pd.to_numeric(column.dropna(), errors="coerce").isna().mean() > 0.5
        if name in reading.categorical or text:
            codes, words = pd.factorize(column.map(_word, na_action="ignore"), sort=True)
            found.categories[name] = [str(word) for word in words]
            columns.append(np.where(codes < 0, np.nan, codes.astype(np.float64)))
        else:
            columns.append(_numbers(source, [name], found)[:, 0])
    return np.stack(columns, axis=1) if columns else np.zeros((len(source.frame), 0))


def _word(value: object) -> str:
    """A category as text; whole numbers read the same whether or not a gap made pandas write them as 1.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _frequency(stamps: pd.DatetimeIndex | None, groups: dict[str, np.ndarray], reading: Reading) -> str:
    if stamps is None:
        return ""
    if reading.frequency:
        try:
            offset = pd.tseries.frequencies.to_offset(reading.frequency)
            if offset.n < 1:
                raise ValueError("no step forwards")
            return offset.freqstr
        except (ValueError, AttributeError):
            raise QuintetError(
                f"data.frequency: '{reading.frequency}' is no pandas frequency; e.g. h, 15min, D, W, MS, QS, YS"
            ) from None
    longest = max(groups.values(), key=len)
    return infer_frequency(stamps[longest].unique().sort_values()) or ""


def _on_grid(
    source: Source, name: str, rows: np.ndarray, table: Table, reading: Reading, found: Examination
) -> Series | None:
    """One series on the regular grid of its frequency, or None and the fault that stands in the way."""
    values = table.numbers[rows]
    if table.stamps is None:
        return _series(
            source, name, pd.RangeIndex(len(rows)), np.arange(len(rows)), values, rows, table, reading, found
        )
    label = f" of series '{name}'" if name else ""
    several = "" if found.id else "; or data.id to the column that names the series, if there are several"
    if found.words and not found.id:
        named = found.words[0] if len(found.words) == 1 else f"[{','.join(found.words)}]"
        several = f"; or data.id={named}, if that names the series"
    own = table.stamps[rows]
    # The points of a grid share their stamps, and laying out a calendar takes longer than all else.
    if table.last is not None and own.equals(table.last[0]):
        return _series(source, name, *table.last[1:], values, rows, table, reading, found)
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
            groups = pd.DataFrame(values).groupby(own)
            words = [table.covariates.index(one) + len(table.channels) for one in found.categories]
            values = groups.mean().to_numpy(copy=True)
            values[:, words] = groups[words].first().to_numpy()  # there is no mean of words
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
    table.last = own, grid, places
    return _series(source, name, grid, places, values, rows, table, reading, found)


def _series(
    source: Source,
    name: str,
    grid: pd.Index,
    places: np.ndarray,
    values: np.ndarray,
    rows: np.ndarray,
    table: Table,
    reading: Reading,
    found: Examination,
) -> Series | None:
    """A series of rows that stand at `places` of its grid, cut after its last target where more is known ahead."""
    on_grid = np.full((len(grid), values.shape[1]), np.nan)
    on_grid[places] = values
    targets = len(table.channels)
    end = len(grid)
    if reading.future:
        observed = np.flatnonzero(~np.isnan(on_grid[:, :targets]).all(1))
        end = int(observed[-1]) + 1 if len(observed) else end
    columns = {}
    for number, column in enumerate(table.covariates, start=targets):
        if column in reading.static:
            told = values[~np.isnan(values[:, number]), number]
            if len(told) and (told != told[0]).any():
                at = int(np.flatnonzero(values[:, number] != told[0])[0])
                before = f"the rows of series '{name}'" if name else "the rows"
                what = f"has another '{column}' than {before} before it"
                remedy = "a static covariate has one value a series; name it in data.past or data.future"
                found.faults.append(Fault(source.row(int(rows[at])), what, remedy))
                return None
            columns[column] = told[:1] if len(told) else np.array([np.nan])
        else:
            columns[column] = on_grid[: None if column in reading.future else end, number]
    return Series(name, grid[:end], on_grid[:end, :targets], end - int((places < end).sum()), columns)


def _step(start: pd.Timestamp, frequency: str) -> pd.Timedelta:
    return pd.date_range(start, periods=3, freq=frequency)[-1] - pd.date_range(start, periods=3, freq=frequency)[-2]


def _leave_out_empty(source: Source, found: Examination) -> None:
    """Drops the points of labelled arrays at which nothing is observed, such as those over land."""
    if source.labels is None or len(found.series) != len(found.labels):
        return
    kept = [at for at, one in enumerate(found.series) if not np.isnan(one.values).all()]
    if kept and (empty := len(found.series) - len(kept)):
        found.remarks.append(f"{empty:,} of {len(found.series):,} points of {found.id} hold nothing and are left out")
        found.series = [found.series[at] for at in kept]
        found.labels = found.labels.iloc[kept].reset_index(drop=True)


def _remark(found: Examination, reading: Reading) -> None:
    """What is not wrong but worth knowing."""
    if gaps := sum(series.gaps for series in found.series):
        worst = max(found.series, key=lambda series: series.gaps)
        of = f" (most in '{worst.name}': {worst.gaps:,})" if worst.name else ""
        found.remarks.append(f"{gaps:,} stamps are absent{of}; they are masked, not filled")
    if not found.series:
        return
    if reading.future:
        ahead = [len(series.columns[reading.future[0]]) - len(series.values) for series in found.series]
        steps = f"{min(ahead)}" if min(ahead) == max(ahead) else f"{min(ahead)} to {max(ahead)}"
        found.remarks.append(f"future covariates go on for {steps} steps after the last target")
    missing = sum(np.isnan(series.values).sum(0) - series.gaps for series in found.series)
    for name, count in zip(found.channels, missing, strict=True):
        if count:
            found.remarks.append(f"column '{name}' is empty in {int(count):,} rows; they are masked, not filled")
