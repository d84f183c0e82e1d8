"""The user's files as tables: CSV, parquet, NetCDF and Zarr, read with their units, one row an observation in time."""

import gzip
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import xarray as xr

from ...core.errors import QuintetError

FORMATS = (".csv", ".csv.gz", ".parquet", ".nc", ".zarr")


@dataclass
class Source:
    """A table as it was read, before anything in it is judged.

    Args:
        where: what to call it in a message.
        frame: its rows.
        first_row: number a person would give the first row: 2 in a CSV, below its header.
        units: of columns, where the file says them.
        time: column of the stamps, where the format says which.
        series: column of the series' names, where the format says which.
        remarks: what was not read.
    """

    where: str
    frame: pd.DataFrame
    first_row: int = 1
    units: dict[str, str] = field(default_factory=dict)
    time: str | None = None
    series: str | None = None
    remarks: list[str] = field(default_factory=list)

    def row(self, position: int) -> str:
        """How to name a row in a message."""
        return f"{self.where} row {position + self.first_row}"


def format_of(path: Path) -> str | None:
    """The ending of a file that can be read, None for any other."""
    return next((ending for ending in FORMATS if path.name.lower().endswith(ending)), None)


def read(path: Path, time: str | None = None, series: str | None = None) -> Source:
    """Reads a file. Raises QuintetError for one that is absent, damaged, empty or in another format.

    Args:
        path: of the file, or of the folder of a Zarr store.
        time: the time dimension of a NetCDF file or Zarr store that has several.
        series: the dimension along which such a file keeps several series.
    """
    ending = format_of(path)
    if not path.exists():
        raise QuintetError(f"no file {path}")
    if ending is None:
        raise QuintetError(f"{path} is in no format that is read here; give {', '.join(FORMATS)}")
    try:
        if ending in (".nc", ".zarr"):
            with xr.open_dataset(path, engine="zarr" if ending == ".zarr" else None) as dataset:
                source = _from_dataset(dataset.load(), path, time, series)
        elif ending == ".parquet":
            source = Source(str(path), _plain(pd.read_parquet(path)))
        else:
            source = Source(str(path), _read_csv(path), first_row=2)
    except (OSError, ValueError, KeyError, pd.errors.ParserError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise QuintetError(f"{path} cannot be read: {first}") from None
    if source.frame.empty:
        raise QuintetError(f"{path} has no rows")
    return source


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV with the separator its header shows."""
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rt", encoding="utf-8-sig") as file:
        header = file.readline()
    separator = max(",;\t", key=header.count)
    return pd.read_csv(path, sep=separator if separator in header else ",", low_memory=False, skipinitialspace=True)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with a meaningful index, such as pandas writes into parquet, as columns."""
    return frame if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None else frame.reset_index()


def _from_dataset(dataset: xr.Dataset, path: Path, time: str | None, series: str | None) -> Source:
    """The variables that run along the time dimension, and along at most one other: that of the series."""
    dated = [name for name in dataset.dims if name in dataset.coords and dataset[name].dtype.kind == "M"]
    dimension = time or next(iter([name for name in dated if name == "time"] or dated), None)
    if dimension not in dataset.dims:
        raise QuintetError(
            f"{path} has no time dimension{f' {time!r}' if time else ' with dates'}; its dimensions are "
            f"{', '.join(map(str, dataset.dims)) or 'none'}: name one with data.time"
        )
    names = [name for name, variable in dataset.data_vars.items() if dimension in variable.dims]
    others: set[Hashable] = {name for variable in names for name in dataset[variable].dims} - {dimension}
    if series is not None and others != {series}:
        raise QuintetError(f"{path}: data.id={series} is not the one other dimension; it has {_listed(others)}")
    if len(others) > 1:
        raise QuintetError(
            f"{path} has the dimensions {_listed(others)} beside {dimension}; one at most, that of the series, is "
            "read: select a point or stack them first"
        )
    axis = next(iter(others), None)
    frame = dataset[names].reset_coords(drop=True).to_dataframe().reset_index()
    units = {str(name): str(dataset[name].attrs["units"]) for name in names if "units" in dataset[name].attrs}
    static = [str(name) for name in dataset.data_vars if name not in names]
    remarks = [f"not read, as without {dimension}: {', '.join(static)}"] if static else []
    return Source(
        str(path), frame, units=units, time=str(dimension), series=None if axis is None else str(axis), remarks=remarks
    )


def _listed(names: set[Hashable]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
