"""Forecasts as files people open: CSV, parquet and NetCDF, in the columns, stamps and units of what was read."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from ...core.errors import QuintetError
from ..data import SeriesDescription


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raises QuintetError where a file would be overwritten, or a folder for one is absent."""
    for path in paths:
        if path.exists():
            raise QuintetError(f"{path} exists and is not overwritten; give another output or remove it")
        if not path.parent.is_dir():
            raise QuintetError(f"no folder {path.parent} for {path.name}; make it or give another output")


def quantile_name(level: float) -> str:
    """The column of a quantile: quantile_0.1."""
    return f"quantile_{level:g}"


def write_forecast(
    path: Path,
    description: SeriesDescription,
    names: Sequence[str],
    stamps: Sequence[pd.Index],
    values: np.ndarray,
    levels: Sequence[float],
) -> None:
    """Writes forecasts as a table like the one that was read: a column of stamps, one of names, one a channel.

    Quantiles are columns named after channel and level; in NetCDF they are a dimension, and units are attributes.

    Args:
        path: ends in .csv, .parquet or .nc.
        description: names and units.
        names: of the series.
        stamps: of each series, all of one length.
        values: (series, horizon, channels, outputs).
        levels: of the outputs; none for a point.

    """
    if path.suffix == ".nc":
        dataset_of(description, names, stamps, values, levels).to_netcdf(path, engine="h5netcdf")
        return
    blocks = []
    for name, own, block in zip(names, stamps, values, strict=True):
        columns = {description.series: name} if description.series else {}
        columns[description.time] = own
        for number, channel in enumerate(description.channels):
            if levels:
                columns |= {f"{channel} {quantile_name(q)}": block[:, number, at] for at, q in enumerate(levels)}
            else:
                columns[channel] = block[:, number, 0]
        blocks.append(pd.DataFrame(columns))
    write_frame(path, pd.concat(blocks, ignore_index=True))


def dataset_of(
    description: SeriesDescription,
    names: Sequence[str],
    stamps: Sequence[pd.Index],
    values: np.ndarray,
    levels: Sequence[float],
) -> xr.Dataset:
    """Forecasts with their labels: one variable a channel, over (series,) time (, quantile).

    Series that end at different stamps have a dimension `step` instead of time, and stamps over (series, step). Stamps
    are in UTC where they had a time zone, of which NetCDF knows none.
    """
    known, coordinates = description, {}
    stamps = [own.tz_convert("UTC").tz_localize(None) if getattr(own, "tz", None) else own for own in stamps]
    together = all(own.equals(stamps[0]) for own in stamps)
    dimensions = [known.time if together else "step"]
    coordinates[known.time] = stamps[0] if together else ((known.series, "step"), np.stack(stamps))
    if known.series:
        dimensions.insert(0, known.series)
        coordinates[known.series] = list(names)
    if levels:
        dimensions.append("quantile")
        coordinates["quantile"] = list(levels)
    variables = {}
    for number, (channel, unit) in enumerate(zip(known.channels, known.units, strict=True)):
        block = values[:, :, number] if levels else values[:, :, number, 0]
        attributes = {"units": unit} if unit else {}
        variables[channel] = (dimensions, block if known.series else block[0], attributes)
    return xr.Dataset(variables, coordinates)


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Writes a table as .parquet, or else as CSV."""
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Raises QuintetError for a file that could not be written."""
    if path.suffix not in endings:
        raise QuintetError(f"output={path}: give a file that ends in {', '.join(endings)}")
