"""Tables of text as they were written: no column shifted, no name taken for a number or a gap."""

import csv
import gzip
import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from ...core.errors import QuintetError

SEPARATORS = ",;\t"
# What people and programs write into a column of numbers where nothing was observed. In a column of words they are
# words: Namibia's code is NA.
MISSING = frozenset(
    ["#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL"]
)
MISSING |= {"NaN", "NAN", "None", "n/a", "nan", "null"}
NUMBER = r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?"
DATE = r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ]\d{1,2}:\d\d.*)?"
THREES = r"[+-]?[1-9]\d{0,2}\.\d{3}"  # 1.234, which is also how 1234 is written where cells are parted by ;
# Bytes: a table takes several times as many as its text.
MOST_TEXT = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16
PADDED = r'(?:^|[{separator}"])\s*0\d+(?=[{separator}"\r]|$)'  # a whole number that begins with 0
# Before pandas 3.1 its usual converter of numbers was off by the last bit; from then on it has no other.
_VERSION = tuple(int(part) for part in pd.__version__.split(".")[:2])
EXACT: dict[str, Any] = {} if _VERSION >= (3, 1) else {"float_precision": "round_trip"}


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV, also .gz, with the separator its header shows.

    Columns of numbers are read as numbers; whole numbers of which one begins with a 0 are names and stay text, and so
    do all words, whatever they are. Raises QuintetError for two columns of one name, rows longer than the header, a
    decimal comma, points that may part thousands; pandas' own errors for what it cannot parse.
    """
    text = text_of(path)
    names, separator = header_of(text)
    _refuse_repeated(path, names)
    _refuse_no_header(path, names)
    options = {"sep": separator, "skipinitialspace": True, "keep_default_na": False, "na_values": [""]}
    with warnings.catch_warnings():
        # Said of cells that stand behind the last column of the header and would be dropped.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(io.StringIO(text), low_memory=False, index_col=False, **EXACT, **options)
        except (pd.errors.ParserWarning, pd.errors.ParserError) as error:
            if text.startswith("#"):
                what = "begins with a comment ('#'), not with its header; remove it"
            elif isinstance(error, pd.errors.ParserWarning):
                what = (
                    f"has rows with more cells than the {len(names)} columns of its header; name them all in the first "
                )
                what += "line, or remove what stands behind the last"
            else:
                raise
            raise QuintetError(f"{path} {what}") from error
    if re.search(PADDED.format(separator=separator), text, flags=re.MULTILINE):
        whole = [name for name in frame if pd.api.types.is_integer_dtype(frame[name])]
        written = pd.read_csv(io.StringIO(text), usecols=whole, dtype=str, index_col=False, **options) if whole else {}
        padded = {name: written[name] for name in whole if written[name].str.fullmatch(r"0\d+").any()}
        frame = frame.assign(**padded)
    if separator != ",":
        _refuse_thousands(path, text, [name for name in frame if frame[name].dtype.kind not in "iub"], options)
    # A comma behind the last cell of every row.
    blank = [name for name in frame if str(name).startswith("Unnamed: ") and frame[name].isna().all()]
    frame = frame.drop(columns=blank).rename(columns=lambda name: str(name).strip())
    for name in frame:
        if pd.api.types.is_string_dtype(frame[name]) or frame[name].dtype == object:
            frame[name] = _without_marks(frame[name])
            _refuse_decimal_comma(path, name, frame[name])
    return frame


def _refuse_thousands(path: Path, text: str, names: list[str], options: dict[str, Any]) -> None:
    """Raises QuintetError where all points of a column may part thousands; any other number proves that they do not."""
    if not names or not re.search(rf"(?<![\d.]){THREES}(?![\d.])", text):
        return
    written = pd.read_csv(io.StringIO(text), usecols=names, dtype=str, index_col=False, **options)
    for name in names:
        cells = written[name].dropna().str.strip()
        pointed = cells.str.contains(".", regex=False)
        small = cells.str.fullmatch(r"[+-]?\d{1,3}") | cells.isin(MISSING)
        if pointed.any() and (cells.str.fullmatch(THREES) | small).all():
            raise QuintetError(
                f"{path} column '{str(name).strip()}' writes numbers that may have decimals or thousands "
                f"('{cells[pointed].iloc[0]}'); part its cells by commas if the point begins decimals, or write "
                "thousands without points"
            )


def text_of(path: Path) -> str:
    """The text of a file, unpacked where it is .gz. Raises QuintetError where it is damaged or not UTF-8."""
    try:
        with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
            content = file.read(MOST_TEXT + 1)
    except EOFError:
        raise QuintetError(f"{path} ends in the middle of what was packed; copy it again") from None
    if len(content) > MOST_TEXT:
        raise QuintetError(
            f"{path} holds more than {MOST_TEXT >> 20:,} MiB of text, for which this machine has too little memory; "
            "write the part that is needed into a file of its own, or as .parquet"
        )
    if b"\0" in content[:4096]:
        raise QuintetError(f"{path} is no text: it holds zeros; export it as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise QuintetError(
            f"{path} line {line} is not UTF-8; save the file as 'CSV UTF-8', or convert it: iconv -f WINDOWS-1252"
        ) from None


def header_of(text: str) -> tuple[list[str], str]:
    """The names in the first line, and what separates them."""
    line = text.lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    separator = max(SEPARATORS, key=line.count)
    separator = separator if separator in line else ","
    names = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return [name.strip() for name in names], separator


def _refuse_repeated(path: Path, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            raise QuintetError(f"{path} has several columns called '{name}'; give each a name of its own")
        seen.add(name)


def _refuse_no_header(path: Path, names: list[str]) -> None:
    """Raises QuintetError where the first line is a row: a date beside a number, or numbers with a point alone."""
    numbers = [name for name in names if re.fullmatch(NUMBER, name)]
    dated = any(re.fullmatch(DATE, name) for name in names)
    if numbers and (dated or (len(numbers) == len(names) and any("." in name for name in names))):
        raise QuintetError(
            f"{path} has no header: its first line is '{', '.join(names[:4])}', a row of values; name the columns there"
        )


def _without_marks(column: pd.Series) -> pd.Series:
    """A column of text whose cells are numbers but for marks of what is missing, as numbers; any other as it is."""
    marked = column.isin(MISSING)
    if not marked.any():
        return column
    cells = column.mask(marked)
    filled = cells.dropna()
    numbers = pd.to_numeric(filled, errors="coerce")
    if not len(filled):
        return column if len(column.dropna().unique()) > 1 else cells.astype(float)
    if numbers.isna().mean() > 0.5:
        return column
    return cells if numbers.isna().any() else pd.to_numeric(cells)


def _refuse_decimal_comma(path: Path, name: str, column: pd.Series) -> None:
    """Raises QuintetError where most cells are numbers written with a comma."""
    probed = column.dropna().astype(str).iloc[:100]
    if len(probed) and probed.str.fullmatch(r"\s*[+-]?\d+,\d+\s*").mean() > 0.5:
        raise QuintetError(
            f"{path} column '{name}' writes numbers with a comma ('{probed.iloc[0]}'); write them with a point, e.g. "
            "export from the spreadsheet in English"
        )
