"""Tables of nodes, edges or graphs as they were written: ids stay text, words stay words, numbers become numbers."""

import csv
import gzip
import io
import os
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int
from pyarrow.parquet import read_metadata

from ....core.data.faults import Fault
from ....core.errors import QuintetError, first_line, nearest

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
SEPARATORS = ",;\t"
MISSING = ("NA", "N/A", "n/a", "NaN", "NAN", "nan", "NULL", "null", "None", "<NA>", "#N/A")
NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
PADDED = r"[+-]?0\d+"  # a whole number that begins with 0 is a name
MOST_TEXT = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16  # a table takes several times as many bytes


@dataclass
class Sheet:
    """A table whose cells are as written: text from a CSV, the types of a parquet file.

    Args:
        path: where it was read.
        frame: its rows; empty cells are None or NaN.
        rows: number a person would give each row.
    """

    path: Path
    frame: pd.DataFrame
    rows: Int[np.ndarray, " rows"]

    def place(self, row: int | np.integer) -> str:
        return f"{self.path} row {self.rows[row]}"

    def find(self, given: str | None, usual: Collection[str], option: str) -> str | None:
        """The column an option names, else the first with a usual name. Raises QuintetError where it is absent."""
        if given is not None and given not in self.frame:
            known = nearest(given, list(self.frame.columns))
            raise QuintetError(f"{self.path} has no column '{given}' (data.{option}); {known}")
        return given or next((name for name in self.frame if name.strip().lower() in usual), None)


def exists(path: Path) -> bool:
    """Whether there is anything at a path; at one that no system could have, there is nothing."""
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def ending_of(path: Path) -> str | None:
    """The ending of a table that can be read; None for any other file."""
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)


def read_sheet(path: Path) -> Sheet:
    """A table. Raises QuintetError for one that is absent, empty, damaged, without header or with ragged rows."""
    if not path.is_file():
        raise QuintetError(f"no file {path}")
    try:
        frame = _parquet(path) if path.name.lower().endswith(".parquet") else _text_table(path)
    except QuintetError:
        raise
    # Whatever the libraries raise that read these formats: a file can be damaged in more ways than they foresee.
    except Exception as error:
        raise QuintetError(f"{path} cannot be read: {first_line(error)}") from error
    first = 1 if path.name.lower().endswith(".parquet") else 2
    rows = np.flatnonzero(frame.notna().any(axis=1)) if len(frame.columns) else np.zeros(0, dtype=np.int64)
    if not len(rows):
        raise QuintetError(f"{path} has no rows")
    return Sheet(path, frame.iloc[rows].reset_index(drop=True), rows + first)


def _parquet(path: Path) -> pd.DataFrame:
    about = read_metadata(path)
    if 8 * about.num_rows * about.num_columns > 4 * MOST_TEXT:
        raise QuintetError(f"{path} holds {about.num_rows:,} rows, for which this machine has too little memory")
    frame = pd.read_parquet(path)
    frame = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def _text_table(path: Path) -> pd.DataFrame:
    text = text_of(path)
    line = text.lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    if not line.strip():
        raise QuintetError(f"{path} is empty; it needs a first line that names its columns")
    separator = max(SEPARATORS, key=line.count)
    names = [name.strip() for name in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
    _check_header(path, names)
    with warnings.catch_warnings():
        # Said of cells that stand behind the last column of the header and would be dropped.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            options = {"sep": separator, "skipinitialspace": True, "keep_default_na": False, "na_values": [""]}
            frame = pd.read_csv(
                io.StringIO(text), dtype=object, index_col=False, skip_blank_lines=False, low_memory=False, **options
            )
        except pd.errors.ParserWarning as error:
            raise QuintetError(
                f"{path} has rows with more cells than the {len(names)} columns of its header"
            ) from error
    frame.columns = names
    return frame.drop(columns=[name for name in names if not name])


def _check_header(path: Path, names: Sequence[str]) -> None:
    repeated = next((name for number, name in enumerate(names) if name and name in names[:number]), None)
    if repeated:
        raise QuintetError(f"{path} has several columns called '{repeated}'; give each a name of its own")
    if all(re.fullmatch(NUMBER, name) for name in names):
        row = ", ".join(names[:4])
        raise QuintetError(f"{path} has no header: its first line is '{row}', a row of values; name the columns there")


def text_of(path: Path) -> str:
    """The text of a file, unpacked where it is .gz. Raises QuintetError where it is damaged, too large or not UTF-8."""
    try:
        with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
            content = file.read(MOST_TEXT + 1)
    except (EOFError, OSError) as error:
        raise QuintetError(f"{path} cannot be read: {first_line(error)}") from error
    if len(content) > MOST_TEXT:
        raise QuintetError(f"{path} holds more than {MOST_TEXT >> 20:,} MiB of text; write it as .parquet")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise QuintetError(f"{path} line {line} is not UTF-8; save the file as 'CSV UTF-8'") from None
    if "\0" in text:
        raise QuintetError(f"{path} is no text: it holds zeros; export it as CSV in UTF-8")
    return text


def text_column(column: pd.Series) -> pd.Series:
    """Cells as text, None where they are empty; whole numbers are written without a point."""
    if column.dtype.kind == "f" and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    text = column.astype(object).map(lambda cell: str(cell).strip(), na_action="ignore")
    return text.where(text.notna() & (text != ""), None).astype(object)


def typed(sheet: Sheet, names: Sequence[str], words: Collection[str], faults: list[Fault]) -> pd.DataFrame:
    """Columns as numbers (float64) or words (text), and what is wrong with their cells added to `faults`.

    A column is of numbers where more than half of its cells are; then others are faults, but for marks such as NA.
    """
    return pd.DataFrame(
        {name: _typed(sheet, name, name in words, faults) for name in names}, index=range(len(sheet.frame))
    )


def _typed(sheet: Sheet, name: str, is_words: bool, faults: list[Fault]) -> pd.Series:
    column = sheet.frame[name]
    if column.dtype.kind in "iuf" and not is_words:
        return _finite(sheet, name, column.astype(np.float64), faults)
    text = text_column(column)
    if is_words or column.dtype.kind == "b":
        return text
    cells = text.dropna()
    numeric = cells.str.fullmatch(NUMBER).astype(bool)
    gaps = cells.isin(MISSING)
    if not len(cells):
        return pd.Series(np.nan, index=text.index)
    if numeric.sum() * 2 <= (~gaps).sum() or cells[numeric].str.fullmatch(PADDED).any():
        return text
    for row in cells.index[~numeric & ~gaps]:
        what = f"has '{cells[row][:40]}' in the column '{name}', whose other cells are numbers"
        faults.append(Fault(sheet.place(row), what, f"correct it, or take all for words: data.words=[{name}]"))
    return _finite(sheet, name, pd.to_numeric(text.where(text.index.isin(cells.index[numeric]))).astype(float), faults)


def _finite(sheet: Sheet, name: str, column: pd.Series, faults: list[Fault]) -> pd.Series:
    for row in np.flatnonzero(np.isinf(column)):
        faults.append(Fault(sheet.place(row), f"has an infinite number in the column '{name}'", "correct it"))
    return column


def ids_of(sheet: Sheet, name: str, faults: list[Fault]) -> np.ndarray:
    """A column of ids as text; empty, negative and broken ones are faults.

    Ids are what is written: 001 is not 1. A number with a sign or a point is no id: programs write -1 and NaN for
    what is missing, and 7.0 for 7 beside it.
    """
    column = sheet.frame[name]
    if column.dtype.kind == "f":  # of a parquet file; text_column would hide the point
        column = column.map(str, na_action="ignore")
    text = text_column(column)
    for row in np.flatnonzero(text.isna()):
        faults.append(Fault(sheet.place(row), f"has no '{name}'", "write the id, or remove the row"))
    cells = text.dropna()
    for row in cells.index[cells.str.fullmatch(NUMBER) & ~cells.str.fullmatch(r"\d+")]:
        kind = "a negative number" if cells[row].startswith("-") else "a number with a point or a sign"
        what = f"has '{cells[row]}' in the column '{name}', {kind}"
        faults.append(Fault(sheet.place(row), what, "ids are names or whole numbers from 0"))
    return text.to_numpy(dtype=object)
