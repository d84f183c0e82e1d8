"""Cells of tables that programs for spreadsheets open: text that comes from data and files is never a formula.

Such programs run a cell whose text begins with `=`, `+`, `-` or `@`, or with a tab or the end of a line before them. A
path gets `./` in front, which names the same file; any other text an apostrophe, the mark such programs have for text.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .files import written_whole

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four full width
_BEFORE_ONE = ("\t", "\r", "\n")


def text_cell(text: str) -> str:
    """Text as it may stand in a table: an apostrophe before what would be a formula; numbers stay as they are."""
    # A bare carriage return begins a new row for those who read the file, and is not put into quotes.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if _is_formula(text) else text


def path_cell(path: str | Path) -> str:
    """A path as it may stand in a table: the same file, and never a formula."""
    return f"./{path}" if _is_formula(str(path)) else str(path)


def _is_formula(text: str) -> bool:
    if not text.lstrip().startswith(_FORMULA) and not text.startswith(_BEFORE_ONE):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], remedy: str = "give another folder"
) -> None:
    """A CSV of UTF-8 with one row below the header for each of `rows`, whole or not at all.

    Cells are written as they are: what comes from data passes through `text_cell` or `path_cell` before.

    Raises QuintetError where the file exists or cannot be written.
    """
    # Names of files may hold bytes that are no text; they are written out, as \udcff.
    text = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with written_whole(path, remedy=remedy) as partial, partial.open("w", **text) as file:
        writer = csv.writer(file)
        writer.writerow([text_cell(name) for name in header])
        writer.writerows(rows)
