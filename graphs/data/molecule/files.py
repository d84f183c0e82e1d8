"""The user's tables of molecules as they were written: every cell is text, every row knows its line.

CSV with any separator (also .gz), .smi (SMILES and a name, without a header), parquet, SDF, and what pandas holds.
"""

import csv
import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pyarrow.parquet import ParquetFile

from ....core.errors import QuintetError, first_line
from ..files.tables import exists
from .sdf import read_sdf
from .smiles import Unreadable, read_smiles

TABLES = (".csv", ".tsv", ".tab", ".txt", ".smi", ".smiles", ".cxsmiles")
OWN_FORMATS = (".smi", ".smiles", ".cxsmiles", ".sdf", ".sd")  # in which nothing but molecules is kept
FORMATS = (*TABLES, ".parquet", ".sdf", ".sd")
SEPARATORS = ",;\t|"
LONGEST_LINE = 1_000_000  # characters
MOST_TEXT = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16  # bytes: a table takes a multiple of them
CHUNK = 5000  # rows that are taken in at a time
MOST_COLUMNS = 5000
Given = str | Path | pd.DataFrame | list[str]


class Line(NamedTuple):
    """A row of a table: the line it begins in as a person counts, its cells, and what is wrong with it."""

    number: int
    cells: list[str]
    fault: str = ""


@dataclass
class MoleculeTable:
    """A table as it was read, before anything in it is judged.

    Args:
        where: what to call it in a message.
        frame: its rows, all cells text without blanks around them.
        numbers: of each row, as a person counts: the line of a file, the record of an SDF.
        faults: what is wrong with the form of a row, by its position.
        unit: what a row is called.
        lines: of an SDF, the line in which each record begins.
        smiles: the column of the molecules, where the format says which.
        id: the column that names them, where the format says which.
    """

    where: str
    frame: pd.DataFrame
    numbers: np.ndarray
    faults: dict[int, str] = field(default_factory=dict)
    unit: str = "row"
    lines: np.ndarray | None = None
    smiles: str | None = None
    id: str | None = None

    def row(self, position: int) -> str:
        """How to name a row in a message."""
        line = "" if self.lines is None else f" (line {self.lines[position]})"
        return f"{self.where} {self.unit} {self.numbers[position]}{line}"


def format_of(path: Path) -> str | None:
    """The ending of a file that can be read, None for any other."""
    name = path.name.lower().removesuffix(".gz")
    return next((ending for ending in FORMATS if name.endswith(ending)), None)


def read_table(given: Given, most_rows: int | None = None) -> MoleculeTable:
    """Reads a file or an object. Raises QuintetError for one that is absent, damaged or empty.

    Args:
        given: path of a file, a DataFrame, or a list of SMILES.
        most_rows: of a file of text or parquet; None for all.
    """
    if isinstance(given, pd.DataFrame):
        table = _from_frame(given, "the DataFrame")
    elif isinstance(given, list):
        table = _from_frame(pd.DataFrame({"smiles": pd.Series(given, dtype=object)}), "the list")
    else:
        table = _read_file(Path(given), most_rows)
    if not len(table.frame):
        raise QuintetError(f"{table.where} has no rows")
    return table


def _read_file(path: Path, most_rows: int | None) -> MoleculeTable:
    ending = format_of(path)
    if not exists(path):
        raise QuintetError(f"no file {path}")
    if ending is None or not path.is_file():
        what = "is in no format that is read here" if path.is_file() else "is no regular file"
        raise QuintetError(f"{path} {what}; give {', '.join(FORMATS)}")
    if ending == ".parquet":
        return _read_parquet(path, most_rows)
    if ending in (".sdf", ".sd"):
        records = read_sdf(path, lines_of(path))
        table = MoleculeTable(str(path), records.frame, records.numbers, records.faults, "record", records.lines)
        table.smiles, table.id = records.smiles, records.id
        return table
    return _read_lines(path, most_rows)


# Text


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file, unpacked where it is .gz, never more than one in memory.

    Raises QuintetError where it is damaged, no text, or larger than a machine bears.
    """
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    total, number = 0, 0
    try:
        with opened(path, "rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                number, total = number + 1, total + len(line)
                if len(line) > LONGEST_LINE:
                    raise QuintetError(f"{path} line {number} is longer than {LONGEST_LINE:,} bytes; is it a table?")
                if total > MOST_TEXT:
                    raise QuintetError(
                        f"{path} holds more than {MOST_TEXT >> 20:,} MiB of text, for which this machine has too "
                        "little memory; give it in parts"
                    )
                yield _decoded(path, number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = "ends in the middle of what was packed" if isinstance(error, EOFError) else "is damaged or not packed"
        raise QuintetError(f"{path} {what}; copy it again") from None
    except OSError as error:
        raise QuintetError(f"{path} cannot be read: {first_line(error)}") from None


def _decoded(path: Path, number: int, line: bytes) -> str:
    if number == 1 and b"\r" in line.rstrip(b"\r\n"):
        raise QuintetError(
            f"{path} ends its lines with carriage returns alone; save it with line ends of Windows or Unix"
        )
    if b"\0" in line:
        raise QuintetError(f"{path} line {number} holds a zero byte: it is no text; export it as CSV in UTF-8")
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise QuintetError(f"{path} line {number} is not in UTF-8; save the file in UTF-8") from None


def _read_lines(path: Path, most_rows: int | None) -> MoleculeTable:
    lines = lines_of(path)
    at, first = next(((at, line) for at, line in enumerate(lines, 1) if line.strip()), (0, ""))
    if not first:
        raise QuintetError(f"{path} is empty")
    separator = max(SEPARATORS, key=_outside_extensions(first).count)
    if path.name.lower().removesuffix(".gz").endswith((".smi", ".smiles", ".cxsmiles")) and separator != "\t":
        separator = " "
    elif separator not in _outside_extensions(first):
        separator = " " if len(first.split()) > 1 and _is_molecule(first.split()[0]) else ","
    try:
        header = _cells(first, separator)
    except csv.Error as error:
        raise QuintetError(f"{path} line {at} is no header of a table ({error}); correct it") from None
    rows = _rows(path, lines, separator, at + 1)
    if _is_molecule(header[0]) and (separator in " \t"):
        header = ["smiles", *(["name"] if len(header) > 1 else []), *(f"column {n}" for n in range(3, len(header) + 1))]
        rows = chain([Line(at, _cells(first, separator))], rows)
    _check_header(path, header)
    frame, numbers, faults = _collected(header, islice(rows, most_rows))
    if len(header) == 1 and len(faults) > len(numbers) / 2:
        raise QuintetError(
            f"{path} line {at} is '{first.strip()[:60]}', which names one column, and {faults[next(iter(faults))]}"
            " in most rows; remove the lines before the header"
        )
    return MoleculeTable(str(path), frame, numbers, faults)


def _outside_extensions(line: str) -> str:
    """A line without quoted cells and extensions of SMILES, whose bars and commas part nothing."""
    return re.sub(r'"[^"]*"|\s\|[^|]*\|', "", line)


def _cells(line: str, separator: str) -> list[str]:
    if separator == " ":
        molecule, *rest = line.split(maxsplit=1)
        if rest and rest[0].startswith("|") and (end := rest[0].find("|", 1)) > 0:
            molecule, rest = f"{molecule} {rest[0][: end + 1]}", [rest[0][end + 1 :]]
        return [molecule, *(cell.strip() for cell in rest if cell.strip())]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]


def _rows(path: Path, lines: Iterator[str], separator: str, first: int) -> Iterator[Line]:
    """Rows below the header, from the line `first` on; a quoted cell may hold the ends of lines."""
    if separator == " ":
        yield from (Line(number, _cells(line, " ")) for number, line in enumerate(lines, first) if line.strip())
        return
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    begin = first
    try:
        while (cells := _next_row(reader)) is not None:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                yield Line(begin, cells)
            begin = reader.line_num + first
    except csv.Error as error:
        raise QuintetError(f"{path} line {begin} is no row of a table ({error}); correct it") from None


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    # The limit of a cell is one of the process, so that it stands for a row at a time alone.
    before = csv.field_size_limit(LONGEST_LINE)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _check_header(path: Path, header: Sequence[str]) -> None:
    """Raises QuintetError for names that are not told apart, and where the first line is a row."""
    if len(header) > MOST_COLUMNS:
        raise QuintetError(f"{path} has {len(header):,} columns, of at most {MOST_COLUMNS:,}")
    named = [name for name in header if name]
    if twice := next((name for name in named if named.count(name) > 1), None):
        raise QuintetError(f"{path} has several columns called '{twice}'; give each a name of its own")
    numbers = [name for name in named if re.fullmatch(r"[+-]?\d*\.?\d+([eE][+-]?\d+)?", name)]
    if any(len(name) > 5 and _is_molecule(name) for name in named) and (numbers or len(named) == 1):
        raise QuintetError(
            f"{path} has no header: its first line is '{', '.join(named[:3])[:80]}', a row; name the columns there"
        )


def _is_molecule(cell: str) -> bool:
    try:
        return read_smiles(cell) is not None
    except Unreadable:
        return False


def _collected(header: Sequence[str], rows: Iterable[Line]) -> tuple[pd.DataFrame, np.ndarray, dict[int, str]]:
    """Rows as a frame, chunk by chunk, in which text takes little more than its letters."""
    names = [name or f"column {number}" for number, name in enumerate(header, 1)]
    rows, frames, numbers, faults = iter(rows), [], [], {}
    while chunk := list(islice(rows, CHUNK)):
        for line in chunk:
            extra = len(line.cells) - len(names)
            if any(line.cells[len(names) :]) or extra < 0:
                faults[len(numbers)] = f"has {len(line.cells)} cells and the header {len(names)}"
            numbers.append(line.number)
        padded = [(line.cells + [""] * len(names))[: len(names)] for line in chunk]
        columns = zip(*padded, strict=True)
        frames.append(pd.DataFrame({name: pd.array(column, "str") for name, column in zip(names, columns)}))
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=names, dtype="str")
    blank = [name for name, given in zip(names, header) if not given and not frame[name].str.len().any()]
    return frame.drop(columns=blank), np.array(numbers, np.int64), faults


# Parquet and pandas


def _read_parquet(path: Path, most_rows: int | None) -> MoleculeTable:
    try:
        file = ParquetFile(path)
        if file.metadata.num_rows * file.metadata.num_columns > MOST_TEXT:
            raise QuintetError(f"{path} says it holds more than fits into memory; give it in parts")
        frames = [
            _as_text(_with_index(batch.to_pandas())) for batch in islice(file.iter_batches(CHUNK), most_rows and 1)
        ]
    except QuintetError:
        raise
    # Whatever pyarrow raises: a file can be damaged in more ways than it foresees.
    except Exception as error:
        raise QuintetError(f"{path} cannot be read: {first_line(error, 160)}") from error
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return MoleculeTable(str(path), frame, np.arange(1, len(frame) + 1))


def _from_frame(frame: pd.DataFrame, where: str) -> MoleculeTable:
    frame = _with_index(frame)
    names = [str(name).strip() for name in frame.columns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise QuintetError(f"{where} has several columns called '{twice}'; give each a name of its own")
    return MoleculeTable(where, _as_text(frame.set_axis(names, axis=1)), np.arange(1, len(frame) + 1))


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its index as a column, where that is more than numbers of rows."""
    index = frame.index
    if index.name is not None or (index.nlevels == 1 and not pd.api.types.is_integer_dtype(index.dtype)):
        return frame.rename_axis(index=index.name or "name").reset_index()
    return frame


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """All cells as text, numbers as exactly as they can be read again, "" where nothing is."""
    columns = {}
    for name in frame:
        column = frame[name].reset_index(drop=True)
        text = [_text(value) for value in column.astype(object).where(column.notna(), None)]
        columns[str(name).strip()] = pd.array(text, "str")
    return pd.DataFrame(columns)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return str(int(value)) if value == value and abs(value) < 2**53 and value == int(value) else repr(float(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return str(value).strip()
