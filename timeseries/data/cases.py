"""Labelled series as people keep them: .ts files of the archives, one long table, folders with a file a series."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ...core.data.faults import Fault
from ...core.errors import QuintetError, nearest
from .examine import SERIES_NAMES, Reading, examine
from .files import FORMATS, Source, Wanted, format_of, read
from .stamps import find_time
from .ts_files import Case, read_ts

LABEL_NAMES = ("label", "class", "target_class", "activity")
ORDER_NAMES = ("time", "timestamp", "t", "step", "index", "position")
PARTS = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


@dataclass
class Columns:
    """Columns of a table of labelled series; see `LabelledSeries` for what they mean."""

    id: str | None = None
    time: str | None = None
    label: str | None = None
    group: str | None = None
    target: list[str] | None = None


@dataclass
class Cases:
    """What was found: series with their classes, names of their channels, faults and remarks."""

    where: str
    cases: list[Case] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def archive_files(path: Path) -> list[tuple[Path, str | None]]:
    """The .ts files that a path means, with their parts; none where it means no .ts files.

    Raises QuintetError for a folder of several problems.
    """
    if path.is_dir():
        files = sorted(path.glob("*.ts"))
        problems = {_problem(file) for file in files}
        if len(problems) > 1:
            raise QuintetError(f"{path} holds several problems ({', '.join(sorted(problems)[:3])}, ...); give one file")
        return [(file, _part_of(file)) for file in files]
    if path.suffix.lower() != ".ts":
        return []
    if _part_of(path) == "train":
        partner = path.with_name(path.name.replace("_TRAIN", "_TEST"))
        return [(path, "train"), *([(partner, "test")] if partner.is_file() else [])]
    return [(path, None)]


def _part_of(path: Path) -> str | None:
    return PARTS.get(path.stem.rsplit("_", 1)[-1].lower())


def _problem(path: Path) -> str:
    return path.stem.rsplit("_", 1)[0] if _part_of(path) else path.stem


def read_cases(path: Path, columns: Columns, channels: Sequence[str] | None = None, labelled: bool = True) -> Cases:
    """Everything at a path; faults are listed, not raised.

    Args:
        path: a .ts file or a folder of a problem's, a table, or a folder of tables.
        columns: of the tables.
        channels: those a trained model needs, in its order; None reads what the files say.
        labelled: whether classes are needed.

    Raises QuintetError where there is nothing to read and for an option that names what is not there.
    """
    if not path.exists():
        raise QuintetError(f"no file or folder {path}")
    found = Cases(str(path))
    if files := archive_files(path):
        for file, part in files:
            cases, faults = read_ts(file, part)
            found.cases += cases
            found.faults += faults
        width = found.cases[0].values.shape[1] if found.cases else 0
        found.channels = [f"channel_{number}" for number in range(1, width + 1)]
        for case in found.cases:
            if case.values.shape[1] != width:
                what = f"has {case.values.shape[1]} channels, {found.cases[0].where} has {width}"
                found.faults.append(Fault(case.where, what, "give all series the same channels"))
        if channels is not None and found.channels != list(channels):
            what = f"has {width} channels, the model was trained on {len(channels)}: {', '.join(channels[:4])}"
            found.faults.append(Fault(found.where, what, "give series of the same channels"))
    elif path.is_dir() and format_of(path) is None:
        _read_folder(path, columns, channels, labelled, found)
    else:
        source = read(path, Wanted(columns.time))
        _read_table(source, columns, channels, labelled, found)
    found.units = found.units or [""] * len(found.channels)
    for case in found.cases:
        if not case.values.size or np.isnan(case.values).all():
            found.faults.append(Fault(case.where, "holds no number", "leave the series out"))
        elif np.isinf(case.values).any():
            found.faults.append(Fault(case.where, "holds an infinite number", "correct it or empty it"))
        if labelled and case.label is None:
            found.faults.append(Fault(case.where, "has no class", "add it"))
    return found


def _read_table(source: Source, columns: Columns, channels: Sequence[str] | None, labelled: bool, found: Cases) -> None:
    """The series of one long table: a column that names them, one of their classes, columns of numbers."""
    frame = source.frame
    lowered = {str(name).strip().lower(): name for name in frame.columns}
    label = _column(frame, "label", columns.label, next((lowered[n] for n in LABEL_NAMES if n in lowered), None))
    group = _column(frame, "group", columns.group, None)
    named = [*source.series, *(lowered[name] for name in SERIES_NAMES if name in lowered)]
    identifier = _column(frame, "id", columns.id, next(iter(named), None))
    if labelled and label is None:
        raise QuintetError(f"{source.where} has no column of classes; name it with data.label")
    if labelled and identifier is None:
        raise QuintetError(f"{source.where} has no column that names the series; name it with data.id")
    order = _order_column(frame, columns.time, lowered)
    rest = frame.drop(columns=[name for name in {label, group, order} if name is not None])
    fault = _out_of_order(source, frame, identifier, order) if order is not None else None
    if fault:
        found.faults.append(fault)
        return
    table = replace(source, frame=rest)
    time = None if order is not None else columns.time
    target = columns.target if channels is None else list(channels)
    examination = examine(table, Reading(time=time, id=identifier, target=target), demanded=channels is not None)
    found.faults += examination.faults
    found.remarks += [
        remark for remark in examination.remarks if order is None or "no column holds dates" not in remark
    ]
    found.channels, found.units = examination.channels, examination.units
    if examination.faults:
        return
    rows = {"": np.arange(len(frame))}
    if identifier is not None:
        rows = {str(name): places for name, places in frame.groupby(identifier, sort=False).indices.items()}
    for series in examination.series:
        own = rows[series.name]
        case = Case(series.name or Path(source.where).stem, series.values, where=source.row(int(own[0])))
        for name, kind in ((label, "class"), (group, "group")):
            if name is None:
                continue
            column = frame[name].iloc[own]
            if column.isna().any() or column.nunique() > 1:
                at = own[int((column.isna() | (column != column.iloc[0])).to_numpy().argmax())]
                what = f"gives series '{case.name}' another {kind} in '{name}' ({frame[name].iloc[at]}) than above"
                if column.isna().any():
                    what = f"has no {kind} in '{name}' (series '{case.name}')"
                found.faults.append(Fault(source.row(int(at)), what, f"give each series one {kind} in all its rows"))
                break
            setattr(case, "label" if kind == "class" else "group", _named(column.iloc[0]))
        found.cases.append(case)


def _named(value: object) -> str:
    """A class as a person writes it: 3 where pandas made 3.0 of it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _column(frame: pd.DataFrame, option: str, given: str | None, otherwise: str | None) -> str | None:
    if given is not None and given not in frame:
        raise QuintetError(f"data.{option}: no column '{given}'; {nearest(given, map(str, frame.columns))}")
    return given or otherwise


def _order_column(frame: pd.DataFrame, given: str | None, lowered: dict[str, str]) -> str | None:
    """A column of plain numbers that only says in which order rows come; None where stamps are dates, or absent."""
    if given is None and find_time(frame, None, doubtful=False):
        return None
    name = given or next((lowered[name] for name in ORDER_NAMES if name in lowered), None)
    if name is None or name not in frame or not pd.api.types.is_numeric_dtype(frame[name]):
        return None
    return None if find_time(frame[[name]], None, doubtful=False) else name


def _out_of_order(source: Source, frame: pd.DataFrame, identifier: str | None, order: str) -> Fault | None:
    """What is wrong with numbered rows: they fall, repeat or are empty within a series."""
    column = frame[order]
    if column.isna().any():
        return Fault(source.row(int(column.isna().argmax())), f"has no number in '{order}'", "add it")
    steps = column.diff() if identifier is None else column.groupby(frame[identifier], sort=False).diff()
    if (steps <= 0).any():
        at = int((steps <= 0).argmax())
        return Fault(
            source.row(at), f"does not come after the row before it in '{order}'", "sort the rows of each series"
        )
    return None


def _read_folder(path: Path, columns: Columns, channels: Sequence[str] | None, labelled: bool, found: Cases) -> None:
    """One table a series: root/CLASS/*, root/{train,val,test}/CLASS/*, or without classes root/*."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and format_of(file) in FORMATS)
    if not files:
        raise QuintetError(f"{path} holds no series; it needs CLASS/*.csv, *_TRAIN.ts, or give one table")
    skipped = sum(1 for file in path.rglob("*") if file.is_file()) - len(files)
    if skipped:
        found.remarks.append(f"{skipped:,} files in no format that is read ({', '.join(FORMATS)})")
    for file in files:
        folders = list(file.relative_to(path).parts[:-1])
        split = PARTS.get(folders[0].lower()) if folders else None
        folders = folders[1:] if split else folders
        if labelled and not folders:
            what = "lies in no folder of a class"
            found.faults.append(Fault(str(file), what, f"move it into {path.name}/CLASS/"))
            continue
        source = read(file, Wanted(columns.time))
        inner = Columns(time=columns.time, target=columns.target)
        before, known = len(found.cases), channels or found.channels or None
        # Names and units are those of the first file; the others need its columns.
        names, units = found.channels, found.units
        _read_table(source, inner, known, False, found)
        found.channels, found.units = names or found.channels, units or found.units
        for case in found.cases[before:]:
            case.name, case.where = str(file.relative_to(path)), str(file)
            case.label, case.split = (folders[0] if folders else None), split
    found.remarks = list(dict.fromkeys(found.remarks))
