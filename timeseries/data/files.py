"""The user's files and objects as tables: CSV, parquet, NetCDF, Zarr, folders of them, and what pandas and xarray hold.

One row is an observation in time, of one series. Labelled arrays keep what they say beside their numbers (`Labels`), so
that forecasts can be written the way the data were.
"""

import re
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pyarrow.parquet import read_metadata

from ...core.errors import QuintetError
from .arrays import open_arrays, refuse_oversize
from .csv_files import read_csv

FORMATS = (".csv", ".csv.gz", ".parquet", ".nc", ".zarr")
BESIDE = (".txt", ".md", ".json", "")  # files that may lie in a folder of series without being any
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
FILE = "file"  # the column that tells the files of a folder apart

Given = str | Path | pd.DataFrame | xr.DataArray | xr.Dataset


@dataclass
class Labels:
    """What labelled arrays say beside their numbers.

    Args:
        time: what the time axis is called.
        coordinates: all that do not run along time, in the order of the dimensions.
        attributes: of each variable and coordinate by name, and of the whole under "".
    """

    time: str
    coordinates: xr.Dataset
    attributes: dict[str, dict[str, Any]]


@dataclass
class Source:
    """A table as it was read, before anything in it is judged.

    Args:
        where: what to call it in a message.
        frame: its rows.
        first_row: number a person would give the first row: 2 in a CSV, below its header.
        units: of columns, where the file says them.
        time: column of the stamps, where the format says which.
        series: columns that name the series, where the format says which.
        labels: of labelled arrays.
        remarks: what was not read.
        parts: of a folder, the first position of each file and what to call it.
    """

    where: str
    frame: pd.DataFrame
    first_row: int = 1
    units: dict[str, str] = field(default_factory=dict)
    time: str | None = None
    series: list[str] = field(default_factory=list)
    labels: Labels | None = None
    remarks: list[str] = field(default_factory=list)
    parts: list[tuple[int, str]] = field(default_factory=list)

    def row(self, position: int) -> str:
        """How to name a row in a message."""
        if not self.parts:
            return f"{self.where} row {position + self.first_row}"
        begin, where = self.parts[bisect_right([begin for begin, _ in self.parts], position) - 1]
        return f"{where} row {position - begin + self.first_row}"


def format_of(path: Path) -> str | None:
    """The ending of a file that can be read, None for any other."""
    return next((ending for ending in FORMATS if path.name.lower().endswith(ending)), None)


@dataclass
class Wanted:
    """What is to be read of labelled arrays.

    Args:
        time: the time dimension, where there are several.
        series: the dimensions along which several series are kept; empty for all but time.
        columns: variables along time; None for all.
        static: variables without time.
    """

    time: str | None = None
    series: Sequence[str] = ()
    columns: Sequence[str] | None = None
    static: Sequence[str] = ()


def read(given: Given, wanted: Wanted | None = None) -> Source:
    """Reads a file, a folder or an object. Raises QuintetError for one that is absent, damaged, empty or no series.

    Args:
        given: path of a file, of a folder of files or of a Zarr store; a DataFrame, DataArray or Dataset.
        wanted: of labelled arrays; None for all that runs along time.
    """
    wanted = wanted or Wanted()
    if isinstance(given, pd.DataFrame):
        source = Source("the DataFrame", _plain(given))
    elif isinstance(given, xr.DataArray | xr.Dataset):
        dataset = given if isinstance(given, xr.Dataset) else given.to_dataset(name=given.name or "values")
        source = _from_dataset(dataset, f"the {type(given).__name__}", wanted)
    elif Path(given).is_dir() and format_of(Path(given)) is None:
        source = _read_folder(Path(given), wanted)
    else:
        source = _read_file(Path(given), wanted)
    if source.frame.empty:
        raise QuintetError(f"{source.where} has no rows")
    if (repeated := source.frame.columns.duplicated()).any():
        raise QuintetError(f"{source.where} has several columns called '{source.frame.columns[repeated.argmax()]}'")
    return source


def files_in(folder: Path) -> list[Path]:
    """The files of series in a folder, in the order of their names; empty where it holds anything else."""
    found = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "_"))]
    series = [path for path in found if format_of(path)]
    others = [path for path in found if not format_of(path)]
    return [] if any(path.is_dir() or path.suffix.lower() not in BESIDE for path in others) else series


def names_pictures(frame: pd.DataFrame) -> bool:
    """Whether a column holds names of image files: a list of photographs may have dates and numbers too."""
    words = [frame[name].dropna().astype(str).iloc[:20] for name in frame if frame[name].dtype.kind == "O"]
    return any(len(cells) and cells.str.lower().str.endswith(PICTURES).mean() > 0.5 for cells in words)


def _read_file(path: Path, wanted: Wanted) -> Source:
    ending = format_of(path)
    if not path.exists():
        raise QuintetError(f"no file {path}")
    if ending is None:
        raise QuintetError(f"{path} is in no format that is read here; give {', '.join(FORMATS)}")
    if not path.is_file() and (ending != ".zarr" or not path.is_dir()):
        what = "a folder" if path.is_dir() else "no regular file"
        raise QuintetError(f"{path} is {what}; its name says {ending}")
    try:
        if ending in (".nc", ".zarr"):
            return _from_dataset(open_arrays(path), str(path), wanted)
        if ending == ".parquet":
            about = read_metadata(path)
            refuse_oversize(str(path), 8 * about.num_rows * about.num_columns)
            return Source(str(path), _plain(pd.read_parquet(path)))
        return Source(str(path), read_csv(path), first_row=2)
    except QuintetError:
        raise
    # Whatever the libraries raise that read these formats: a file can be damaged in more ways than they foresee.
    except Exception as error:
        raise QuintetError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What a library says of a file it cannot read, in one line."""
    if isinstance(error, MemoryError):
        return "it says it holds more than fits into memory"
    if re.search(r"cftime|calendar '(?!standard|gregorian|proleptic)", str(error)):
        return "its stamps are of a calendar of models, which has no dates; use dataset.convert_calendar('standard')"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first.removeprefix("Error tokenizing data. C error: ")[:160]


def _read_folder(folder: Path, wanted: Wanted) -> Source:
    """Files of one shape: each is a series called after it, unless its columns or dimensions name the series."""
    paths = [path for path in sorted(folder.iterdir()) if format_of(path)]
    if not paths:
        raise QuintetError(f"{folder} holds no file in a format that is read here: {', '.join(FORMATS)}")
    sources = [_read_file(path, wanted) for path in paths]
    first = sources[0]
    for source in sources[1:]:
        if set(source.frame.columns) != set(first.frame.columns):
            other = sorted(set(source.frame.columns) ^ set(first.frame.columns))[0]
            raise QuintetError(
                f"{source.where} and {first.where} differ in the column '{other}'; a folder holds files of one shape"
            )
    names = [path.name.removesuffix(format_of(path)) for path in paths]
    counts = [len(source.frame) for source in sources]
    frame = pd.concat([source.frame for source in sources], ignore_index=True)
    found = [name for name in wanted.series if name in frame] or first.series
    if not found:
        if FILE in frame:
            raise QuintetError(f"{first.where} has a column '{FILE}', the name of the one to be added; rename it")
        frame.insert(0, FILE, np.repeat(names, counts))
    begins = np.cumsum([0, *counts[:-1]]).tolist()
    return Source(
        str(folder),
        frame,
        first.first_row,
        units=first.units,
        time=first.time,
        series=found or [FILE],
        labels=first.labels if found and len(sources) == 1 else None,
        remarks=list(dict.fromkeys(remark for source in sources for remark in source.remarks)),
        parts=list(zip(begins, (source.where for source in sources), strict=True)),
    )


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with a meaningful index, such as pandas writes into parquet, as columns."""
    index = frame.index
    if index.nlevels == 1 and index.name is None:
        numbered = pd.api.types.is_integer_dtype(index.dtype)
        frame = frame.reset_index(drop=True) if numbered else frame.rename_axis(index="time").reset_index()
    else:
        frame = frame.reset_index()
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    spans = {
        name: frame[name].dt.to_timestamp()
        for name in frame.columns[frame.columns.duplicated(keep=False) == 0]
        if isinstance(frame[name].dtype, pd.PeriodDtype)
    }
    return frame.assign(**spans)  # a month or quarter stands at its begin


def _from_dataset(dataset: xr.Dataset, where: str, wanted: Wanted) -> Source:
    """The variables that run along the time dimension; each point of the other dimensions is a series."""
    dated = [name for name in dataset.dims if name in dataset.coords and dataset[name].dtype.kind == "M"]
    time = wanted.time
    dimension = time or next(iter([name for name in dated if name == "time"] or dated), None)
    if dimension not in dataset.dims:
        raise QuintetError(
            f"{where} has no time dimension{f' {time!r}' if time else ' with dates'}; its dimensions are "
            f"{_listed(dataset.dims)}: name one with data.time"
        )
    along = [name for name, variable in dataset.data_vars.items() if dimension in variable.dims]
    names = along if wanted.columns is None else [name for name in along if name in wanted.columns]
    others = _one_shape(dataset, names, dimension, where)
    if wanted.series and set(wanted.series) != set(others):
        given = ", ".join(wanted.series)
        raise QuintetError(f"{where}: data.id={given} is not what tells its series apart; it has {_listed(others)}")
    still = [name for name, variable in dataset.data_vars.items() if dimension not in variable.dims]
    static = [name for name in still if name in wanted.static and set(dataset[name].dims) <= set(others)]
    unread = [str(name) for name in still if name not in static]
    table = dataset[[*names, *static]].reset_coords(drop=True)
    frame = table.to_dataframe(dim_order=[*others, dimension]).reset_index()
    kept = dataset.drop_vars([*along, *still]).drop_dims(dimension)
    attributes = {str(name): dict(variable.attrs) for name, variable in dataset.variables.items()}
    return Source(
        where,
        frame.set_axis([str(name) for name in frame.columns], axis=1),
        units={str(name): str(dataset[name].attrs["units"]) for name in names if "units" in dataset[name].attrs},
        time=str(dimension),
        series=[str(name) for name in others],
        labels=Labels(str(dimension), kept, attributes | {"": dict(dataset.attrs)}),
        remarks=[f"not read, as without {dimension}: {', '.join(unread)}"] if unread else [],
    )


def _one_shape(dataset: xr.Dataset, names: list[Hashable], dimension: Hashable, where: str) -> list[Hashable]:
    """The dimensions beside time, which all variables that are read must share."""
    shapes = {name: [axis for axis in dataset[name].dims if axis != dimension] for name in names}
    for name, axes in shapes.items():
        if set(axes) != set(shapes[names[0]]):
            raise QuintetError(
                f"{where}: '{names[0]}' runs along {_listed(shapes[names[0]])} beside {dimension} and '{name}' along "
                f"{_listed(axes)}; choose variables of one shape with data.target"
            )
    return shapes[names[0]] if names else []


def _listed(names: Iterable[Hashable]) -> str:
    return ", ".join(sorted(map(str, names))) or "nothing"
