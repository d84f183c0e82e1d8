"""Cells of a table as numbers, yes and no, or words; and what is wrong with those that are none."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ..files.tables import LARGEST, NUMBER, written_otherwise
from .smiles import quoted

# What people and programs write where nothing was measured.
MISSING = frozenset(["", "-", "NA", "N/A", "n/a", "na", "NaN", "nan", "NAN", "-nan", "NULL", "null", "None", "none"])
MISSING |= {"<NA>", "#N/A", "#NA", "?"}
YES = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
MOST_CLASSES = 100  # of a column of words that is taken for classes without being named

CellKind = Literal["numbers", "labels", "words", "empty"]


@dataclass
class Cells:
    """A column, looked at once.

    Args:
        text: as it was written.
        missing: cells in which nothing was measured.
        values: cells that are numbers, NaN where they are not.
        kind: what most of its cells are: numbers, labels (0 and 1 alone), words, or nothing.
    """

    text: np.ndarray
    missing: np.ndarray
    values: np.ndarray
    kind: CellKind

    @property
    def words(self) -> list[str]:
        """Its distinct words."""
        return sorted(set(self.text[~self.missing]))

    @property
    def otherwise(self) -> str | None:
        """How its numbers are written, where they are not written as numbers."""
        return written_otherwise(list(self.text[~self.missing]))

    @property
    def classes(self) -> np.ndarray:
        """Its words as names of classes: 1.0 is the class 1, which other rows and other files may write without."""
        return np.array([re.sub(r"^(\d+)\.0*$", r"\1", str(word)) for word in self.text], dtype=object)


def cells_of(column: pd.Series) -> Cells:
    """Looks at a column of text."""
    text = column.to_numpy(object)
    missing = column.isin(MISSING).to_numpy()
    values = pd.to_numeric(column.where(~missing), errors="coerce").to_numpy(np.float64)
    observed = text[~missing]
    if len(observed) and np.isnan(values[~missing]).all() and {word.lower() for word in observed[:1000]} <= set(YES):
        values = np.array([YES.get(word.lower(), np.nan) for word in text])
    return Cells(text, missing, values, _kind(values[~missing]))


def _kind(values: np.ndarray) -> CellKind:
    if not len(values):
        return "empty"
    numbers = ~np.isnan(values)
    # Where half of the cells are numbers, the others are mistakes; "1e5" and "inf" are numbers, and looked at below.
    if numbers.mean() < 0.5:
        return "words"
    return "labels" if numbers.all() and np.isin(values, (0, 1)).all() else "numbers"


def wrong_numbers(cells: Cells, name: str) -> Iterator[tuple[int, str]]:
    """Positions of cells that are no finite numbers in a column of numbers, and what they are instead."""
    for position in np.flatnonzero(~cells.missing & ~(np.abs(cells.values) <= LARGEST)):
        text = str(cells.text[position])
        yield int(position), f"has {quoted(text)} in the column '{name}', {_instead(text)}"


def _instead(text: str) -> str:
    if told := written_otherwise([text]):
        return told
    if re.fullmatch(NUMBER, text):
        return f"a number beyond {LARGEST:g}"
    return "an infinite number" if "inf" in text.lower() else "no number"


def wrong_labels(cells: Cells, name: str) -> Iterator[tuple[int, str]]:
    """Positions of cells that are neither 0 nor 1 in a column of labels."""
    wrong = ~cells.missing & ~np.isin(cells.values, (0, 1))
    for position in np.flatnonzero(wrong):
        yield int(position), f"has {quoted(str(cells.text[position]))} in the column '{name}', where 0 or 1 is meant"
