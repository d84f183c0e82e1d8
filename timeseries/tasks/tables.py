"""Forecasts as files people open, in the columns, coordinates, stamps, units and attributes of what was read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from ...core.errors import QuintetError
from ...core.writing.cells import text_cell
from ...core.writing.files import refuse_existing, written_whole
from ..data import SeriesData
from ..data.files import Labels

TABLES = (".csv", ".parquet")
ARRAYS = (".nc", ".zarr")  # formats of labelled arrays


def check_targets(paths: Iterable[Path]) -> None:
    """Raises QuintetError where a file would be overwritten, or a folder for one is absent."""
    for path in paths:
        refuse_existing(path, "output")
        if not path.parent.is_dir():
            raise QuintetError(f"no folder {path.parent} for {path.name}; make it or give another output")


def quantile_name(level: float) -> str:
    """The column of a quantile: quantile_0.1."""
    return f"quantile_{level:g}"


@dataclass
class Layout:
    """How the data were laid out that forecasts are written like.

    Args:
        time: what the time axis is called.
        channels: names of the columns that are forecast.
        units: of each, "" where unknown.
        labels: a row for each series, what its columns of names say; without columns where there is one series.
        arrays: what labelled arrays said beside their numbers; None of a table.
    """

    time: str
    channels: Sequence[str]
    units: Sequence[str]
    labels: pd.DataFrame
    arrays: Labels | None = None


def layout_of(data: SeriesData, numbers: Sequence[int]) -> Layout:
    """How the data are laid out, of the series of these numbers."""
    known, (labels, arrays) = data.description(), data.labels()
    rows = labels.iloc[list(numbers)] if len(labels.columns) else labels
    return Layout(known.time, known.channels, data.units(), rows, arrays)


def refuse_taken(layout: Layout, own: Iterable[str]) -> None:
    """Raises QuintetError where two columns of a table would have one name.

    Args:
        layout: of the data, whose columns of names and stamps the table has.
        own: columns that the table has of itself.
    """
    seen: set[str] = set()
    for name in [*layout.labels, layout.time, *own]:
        if name in seen:
            raise QuintetError(
                f"the data have a column called '{name}', which the table to be written has of its own; rename it in "
                "the data (data.time and data.id name the stamps and the series)"
            )
        seen.add(name)


def write_forecast(
    path: Path, layout: Layout, stamps: Sequence[pd.Index], values: np.ndarray, levels: Sequence[float]
) -> None:
    """Writes forecasts like the data that were read: a column of stamps, those that name the series, one a channel.

    Quantiles are columns named after channel and level; in labelled arrays they are a dimension, and units are
    attributes.

    Args:
        path: ends in .csv, .parquet, .nc or .zarr.
        layout: of the data.
        stamps: of each series, all of one length.
        values: (series, horizon, channels, outputs).
        levels: of the outputs; none for a point.
    """
    if path.suffix in ARRAYS:
        write_dataset(path, dataset_of(layout, stamps, values, levels))
        return
    blocks = []
    for number, (own, block) in enumerate(zip(stamps, values, strict=True)):
        columns = {name: layout.labels[name].iloc[number] for name in layout.labels}
        columns[layout.time] = own
        for at, channel in enumerate(layout.channels):
            if levels:
                columns |= {f"{channel} {quantile_name(q)}": block[:, at, output] for output, q in enumerate(levels)}
            else:
                columns[channel] = block[:, at, 0]
        blocks.append(pd.DataFrame(columns))
    write_frame(path, pd.concat(blocks, ignore_index=True))


def dataset_of(layout: Layout, stamps: Sequence[pd.Index], values: np.ndarray, levels: Sequence[float]) -> xr.Dataset:
    """Forecasts with their labels: one variable a channel, over what tells the series apart, time (and quantile).

    Coordinates and attributes are those of the arrays that were read. Series that end at different stamps have a
    dimension `step` instead of time, and stamps over series and step. Stamps are in UTC where they had a time zone, of
    which NetCDF knows none.
    """
    stamps = [own.tz_convert("UTC").tz_localize(None) if getattr(own, "tz", None) else own for own in stamps]
    together = all(own.equals(stamps[0]) for own in stamps)
    axes = {name: _axis(layout, name) for name in layout.labels}
    shape = [len(axis) for axis in axes.values()]
    places = tuple(axis.get_indexer(layout.labels[name]) for name, axis in axes.items())

    def spread(block: np.ndarray, nothing: object) -> np.ndarray:
        """One entry a series (series, ...) at its point of the grid; `nothing` where no series is."""
        if not axes:
            return block[0]
        whole = np.full((*shape, *block.shape[1:]), nothing, dtype=block.dtype)
        whole[places] = block
        return whole

    coordinates: dict[str, Any] = {name: (name, axis.to_numpy()) for name, axis in axes.items()}
    if together:
        coordinates[layout.time] = stamps[0]
    else:
        own = np.stack(stamps)
        coordinates[layout.time] = ((*axes, "step"), spread(own, np.datetime64("NaT") if own.dtype.kind == "M" else -1))
    if levels:
        coordinates["quantile"] = list(levels)
    dimensions = (*axes, layout.time if together else "step", *(["quantile"] if levels else []))
    variables = {}
    for number, (channel, unit) in enumerate(zip(layout.channels, layout.units, strict=True)):
        block = values[:, :, number] if levels else values[:, :, number, 0]
        variables[channel] = (dimensions, spread(block, np.nan), {"units": unit} if unit else {})
    return attach_labels(xr.Dataset(variables, coordinates), layout)


def attach_labels(dataset: xr.Dataset, layout: Layout) -> xr.Dataset:
    """The dataset with the coordinates and attributes of the arrays that were read, those of its own kept."""
    if layout.arrays is None:
        return dataset
    axes = {name: _axis(layout, name) for name in layout.labels}
    further = {str(name): one for name, one in layout.arrays.coordinates.coords.items() if set(one.dims) <= set(axes)}
    found = dataset.reindex(axes).assign_coords(further)
    for name in found.variables:
        found[name].attrs = dict(layout.arrays.attributes.get(str(name), {})) | dict(found[name].attrs)
    found.attrs = dict(layout.arrays.attributes.get("", {}))
    return found


def _axis(layout: Layout, name: str) -> pd.Index:
    """The coordinate along which a column of names runs: as it was read, or what the column shows."""
    if layout.arrays is not None and name in layout.arrays.coordinates.coords:
        return layout.arrays.coordinates[name].to_index()
    return pd.Index(layout.labels[name].unique(), name=name)


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """Writes labelled arrays as .zarr, or else as NetCDF.

    NetCDF is made in memory: HDF5 ends the process where the disk is full.
    """
    with written_whole(path) as partial:
        if path.suffix == ".zarr":
            dataset.to_zarr(partial, consolidated=False)  # the current format has no consolidated metadata
        else:
            partial.write_bytes(dataset.to_netcdf(engine="h5netcdf"))


def write_frame(path: Path, frame: pd.DataFrame, float_format: str | None = None, as_given: bool = False) -> None:
    """Writes a table as .parquet, or else as CSV, in which no name becomes a formula unless it is kept `as_given`."""
    with written_whole(path) as partial:
        if path.suffix == ".parquet":
            frame.to_parquet(partial, index=False)
        else:
            (frame if as_given else without_formulas(frame)).to_csv(partial, index=False, float_format=float_format)


def without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with names and words that a spreadsheet would take for formulas behind an apostrophe."""
    words = [at for at, kind in enumerate(frame.dtypes) if kind.kind == "O"]
    columns = {at: [text_cell(cell) if isinstance(cell, str) else cell for cell in frame.iloc[:, at]] for at in words}
    found = frame.copy(deep=False)
    for at, cells in columns.items():
        found.isetitem(at, pd.Series(cells, index=frame.index, dtype=object))
    return found.set_axis([text_cell(str(name)) for name in frame.columns], axis=1)


def write_picture(path: Path, figure: Figure) -> None:
    """Writes a figure as .png."""
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=120)


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Raises QuintetError for a file that could not be written."""
    if path.suffix not in endings:
        raise QuintetError(f"output={path}: give a file that ends in {', '.join(endings)}")
