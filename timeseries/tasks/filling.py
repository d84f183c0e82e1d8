"""The user's table with its gaps filled: every original cell untouched, every filled one flagged."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from ...core.errors import QuintetError
from ..data.csv_files import header_of, text_of
from ..data.examine import time_columns
from ..data.files import Source, format_of
from ..data.gaps import ImputationData
from ..data.stamp_formats import EXCEL, UNITS, as_numbers
from ..data.stamps import PARTS, parse_stamps
from . import tables

FLAG = "_filled"
DIGITS = 7  # what float32 says of a filled value


@dataclass
class FilledWindows:
    """What one batch of windows is taken to be, in the user's own units, where each begins, and what it shows.

    Fields: series, numbers of the series; starts, first rows; values (B, T, C); counted (B, C), True where a window
    shows anything of a channel.
    """

    series: list[int]
    starts: list[int]
    values: Float[Tensor, "batch time channels"]
    counted: Bool[Tensor, "batch channels"]


def merged(data: ImputationData, results: Sequence[FilledWindows]) -> list[np.ndarray]:
    """Each series (T, C) as the mean of the windows over it, of those that see something of a channel."""
    sums = [np.zeros_like(series.values) for series in data.usable().series]
    counts = [np.zeros_like(one) for one in sums]
    for result in results:
        windows = zip(result.series, result.starts, result.values.numpy(), result.counted.numpy(), strict=True)
        for number, start, values, counted in windows:
            rows = slice(start, start + len(values))
            sums[number][rows] += np.where(counted, values, 0.0)
            counts[number][rows] += counted
    return [total / np.where(count > 0, count, np.nan) for total, count in zip(sums, counts, strict=True)]


def write(path: Path, data: ImputationData, filled: Sequence[np.ndarray]) -> None:
    """Writes the user's table with its gaps filled as .csv, .parquet or .nc.

    Rows put in for absent stamps stand where they belong. Raises QuintetError where a column of flags would take the
    name of one of the user's.
    """
    source, found = data.source(), data.usable()
    for channel in found.channels:
        if channel + FLAG in source.frame:
            raise QuintetError(f"{source.where} has a column '{channel}{FLAG}' already; rename it")
    if source.labels is not None or path.suffix == ".nc":
        frame = _on_grid(data, filled)
    else:
        frame = _in_place(data, source, filled, path.suffix == ".csv")
    if path.suffix == ".nc":
        tables.write_dataset(path, _dataset(data, source, frame))
    else:
        # The user's own table, to the letter.
        tables.write_frame(path, frame, as_given=True)


def _on_grid(data: ImputationData, filled: Sequence[np.ndarray]) -> pd.DataFrame:
    """Series after series on the grid of their stamps: names, stamps, channels and flags."""
    found, blocks = data.usable(), []
    for number, (series, own) in enumerate(zip(found.series, filled, strict=True)):
        columns = {name: found.labels[name].iloc[number] for name in found.labels}
        columns[found.time] = series.stamps
        empty = np.isnan(series.values)
        whole = np.where(empty, own, series.values)
        columns |= dict(zip(found.channels, whole.T, strict=True))
        columns |= {channel + FLAG: flags for channel, flags in zip(found.channels, empty.T, strict=True)}
        blocks.append(pd.DataFrame(columns))
    return pd.concat(blocks, ignore_index=True)


def _dataset(data: ImputationData, source: Source, frame: pd.DataFrame) -> xr.Dataset:
    """The same as labelled arrays, with the units and attributes that were read; stamps in UTC."""
    found = data.usable()
    if getattr(frame[found.time].dtype, "tz", None) is not None:
        frame[found.time] = frame[found.time].dt.tz_convert("UTC").dt.tz_localize(None)
    dataset = frame.set_index([*found.labels, found.time]).to_xarray()
    for channel in found.channels:
        # A point of a grid that a series does not reach was neither observed nor filled.
        dataset[channel + FLAG] = dataset[channel + FLAG].fillna(False).astype(bool)
    for name in dataset.variables:
        if source.labels is not None:
            dataset[name].attrs |= source.labels.attributes.get(str(name), {})
        elif source.units.get(str(name)):
            dataset[name].attrs["units"] = source.units[str(name)]
    return dataset


def _in_place(data: ImputationData, source: Source, filled: Sequence[np.ndarray], as_text: bool) -> pd.DataFrame:
    """The user's rows in their order, empty cells filled, and rows for absent stamps; in a CSV as the text it was."""
    found, reading = data.usable(), data.reading
    typed, frame = source.frame, source.frame.copy()
    text = as_text and isinstance(data.path, Path) and (format_of(data.path) or "").startswith(".csv")
    if text:
        frame = _text_of(data.path, typed)
    time = time_columns(source, reading)
    names = list(found.labels)
    number = typed.groupby(names, sort=False).ngroup().to_numpy() if names else np.zeros(len(typed), dtype=int)
    if time:
        stamps, _ = parse_stamps(source, time, reading.time_format, reading.time_zone)
        place = np.zeros(len(typed), dtype=int)
        for which, series in enumerate(found.series):
            place[number == which] = series.stamps.get_indexer(stamps[number == which])
    else:
        place = pd.Series(number).groupby(number).cumcount().to_numpy()
    flags = {}
    for at, channel in enumerate(found.channels):
        empty = typed[channel].isna().to_numpy()
        values = np.array([filled[which][row, at] for which, row in zip(number[empty], place[empty], strict=True)])
        flags[channel + FLAG] = empty.copy()
        if empty.any():
            frame[channel] = frame[channel].astype(object) if text else pd.to_numeric(frame[channel]).astype(float)
            frame.loc[empty, channel] = [f"{value:.{DIGITS}g}" for value in values] if text else values
    frame = frame.assign(**flags)
    absent = _absent_rows(data, filled, number, place, time, typed, text)
    if absent is None:
        return frame
    frame["\0series"], frame["\0place"] = number, place
    whole = pd.concat([frame, absent], ignore_index=True)
    whole = whole.sort_values(["\0series", "\0place"], kind="stable", ignore_index=True)
    return whole.drop(columns=["\0series", "\0place"])


def _text_of(path: Path, typed: pd.DataFrame) -> pd.DataFrame:
    """A CSV as the text of its cells. Raises QuintetError where it does not have the rows that were read."""
    text = text_of(path)
    separator = header_of(text)[1]
    options = {"sep": separator, "dtype": str, "keep_default_na": False, "index_col": False}
    frame = pd.read_csv(io.StringIO(text), **options)
    names = pd.read_csv(io.StringIO(text), nrows=0, skipinitialspace=True, **options).columns.str.strip()
    if len(frame) != len(typed) or not set(typed.columns) <= set(names):
        raise QuintetError(f"{path} changed while it was read; run again")
    return frame.set_axis(names, axis=1)[list(typed.columns)]


def _absent_rows(
    data: ImputationData,
    filled: Sequence[np.ndarray],
    number: np.ndarray,
    place: np.ndarray,
    time: Sequence[str],
    typed: pd.DataFrame,
    text: bool,
) -> pd.DataFrame | None:
    """Rows for the stamps of the grid that no row has; None where there are none."""
    found, blocks = data.usable(), []
    for which, (series, own) in enumerate(zip(found.series, filled, strict=True)):
        missing = np.setdiff1d(np.arange(len(series.values)), place[number == which])
        if not len(missing):
            continue
        columns = {name: found.labels[name].iloc[which] for name in found.labels}
        columns |= _stamp_columns(series.stamps[missing], time, typed, data.reading.time_format, text)
        for at, channel in enumerate(found.channels):
            values = own[missing, at]
            columns[channel] = [f"{value:.{DIGITS}g}" for value in values] if text else values
            columns[channel + FLAG] = True
        blocks.append(pd.DataFrame(columns | {"\0series": which, "\0place": missing}))
    return pd.concat(blocks, ignore_index=True) if blocks else None


def _stamp_columns(
    stamps: pd.Index, time: Sequence[str], typed: pd.DataFrame, time_format: str | None, text: bool
) -> dict[str, object]:
    """Stamps written the way those of the table are."""
    if len(time) > 1:
        parts = {str(name).strip().lower(): name for name in time}
        return {name: getattr(stamps, part) for part, name in parts.items() if part in PARTS}
    name, column = time[0], typed[time[0]]
    if pd.api.types.is_datetime64_any_dtype(column) and not text:
        return {name: stamps}
    if time_format in (*UNITS, EXCEL):
        return {name: as_numbers(stamps, time_format).astype(column.dtype)}
    if pd.api.types.is_numeric_dtype(column):  # years, or yyyymmdd
        known = time_format or ("%Y" if column.max() < 10_000 else "%Y%m%d")
        return {name: stamps.strftime(known).astype(column.dtype)}
    example = str(column.iloc[0])
    if time_format is None:
        separator = "T" if len(example) > 10 and example[10] == "T" else " "
        clock = {10: "", 16: f"{separator}%H:%M"}.get(len(example), f"{separator}%H:%M:%S")
        time_format = f"%Y-%m-%d{clock}"
    zone = (
        [f"{stamp:%z}" for stamp in stamps] if stamps.tz is not None and "%z" not in time_format else [""] * len(stamps)
    )
    return {name: [f"{day}{offset}" for day, offset in zip(stamps.strftime(time_format), zone, strict=True)]}
