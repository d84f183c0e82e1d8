"""Rows of the user's CSV: UTF-8, with the separator of its header, and no row of more fields than the header has."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...core.data.faults import Fault
from ...core.errors import QuintetError
from .files import text_of


class Row(NamedTuple):
    """A row below the header: where it is, its fields by lower-case name, and what is wrong with it, if anything."""

    where: str
    fields: dict[str, str]
    fault: Fault | None


def is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv", ".txt")


def header_of(path: Path) -> list[str]:
    """The names in the first row, as they are written."""
    return next(_lines(path, text_of(path).split("\n", 1)[0]), (0, []))[1]


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a CSV. Raises QuintetError for text that is no CSV, and where two columns have one name."""
    text = text_of(path)
    lines = _lines(path, text)
    header = [name.lower() for name in next(lines, (0, []))[1]]
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise QuintetError(f"{path} has two columns called {twice[0]}; rename one of them")
    for number, values in lines:
        where, fault = f"{path.name} row {number}", None
        if any(values[len(header) :]):
            what = f"has {len(values)} fields and the header {len(header)}"
            fault = Fault(where, what, "write what holds the separator in quotes, or correct the row")
        if values:
            yield Row(where, dict.fromkeys(header, "") | dict(zip(header, values)), fault)


def first_row(path: Path) -> dict[str, str]:
    """The fields of the first row below the header by lower-case name; empty where there is none."""
    return next((row.fields for row in rows_of(path)), {})


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of stripped fields, each with the number of its last line."""
    first = text.split("\n", 1)[0]
    # A comma, or what spreadsheets of other countries write.
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for values in rows:
            yield rows.line_num, [value.strip() for value in values]
    except csv.Error as error:
        raise QuintetError(f"{path} row {rows.line_num} is no row of a CSV ({error}); correct it") from None
