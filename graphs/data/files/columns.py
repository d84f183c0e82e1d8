"""Columns of the user's tables as a network takes them: words as codes, numbers standardised by the training part."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ....core.data.faults import Fault
from .graph_tables import Level

Words = dict[str, list[str]]
Numbers = dict[str, list[float]]
FEWEST = 10  # rows from which on a column with another word in each is taken for a name


def is_number(column: pd.Series) -> bool:
    return column.dtype.kind in "fiub"


def names_each_row(column: pd.Series) -> bool:
    """Whether a column of words has another one in each row: a name, from which nothing can be learnt."""
    return bool(not is_number(column) and len(column) >= FEWEST and column.notna().all() and column.is_unique)


def measure(columns: pd.DataFrame, training: np.ndarray, standardise: bool = True) -> tuple[Words, Numbers]:
    """The words of each column of words and the mean and standard deviation of each of numbers, of training rows.

    A column that training rows fill with 0 and 1 alone stays as it is: (0, 1).

    Args:
        columns: those that describe nodes, edges or graphs.
        training: numbers of the training rows.
        standardise: columns of numbers get their own mean and deviation.
    """
    seen = columns.iloc[training]
    words = {name: sorted(seen[name].dropna().unique()) for name in columns if not is_number(columns[name])}
    names = [name for name in columns if name not in words]
    values = seen[names].to_numpy(np.float64)
    plain = np.isin(values, (0, 1)).all(axis=0) | (not standardise)
    # A column without any number has no mean; it becomes zeros.
    sums, counts = np.nansum(values, axis=0), np.maximum((~np.isnan(values)).sum(axis=0), 1)
    mean = sums / counts
    std = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / counts)
    constant = std <= 1e-12 * np.maximum(1.0, np.abs(mean))
    mean, std = np.where(plain, 0.0, mean), np.where(plain | constant, 1.0, std)
    return words, {name: [float(mean[i]), float(std[i])] for i, name in enumerate(names)}


def codes_of(columns: pd.DataFrame, words: Words) -> Int[Tensor, "rows columns"]:
    """The code of each word, from 1; 0 for a word that training never saw and for an empty cell."""
    codes = [pd.Index(known).get_indexer(columns[name]) + 1 for name, known in words.items()]
    return torch.from_numpy(np.stack(codes, axis=1) if codes else np.zeros((len(columns), 0), dtype=np.int64))


def values_of(columns: pd.DataFrame, numbers: Numbers) -> Float[Tensor, "rows columns"]:
    """Standardised numbers; 0, the training mean, where a cell is empty."""
    moments = np.array(list(numbers.values())).reshape(-1, 2)
    scaled = (columns[list(numbers)].to_numpy(np.float64) - moments[:, 0]) / moments[:, 1]
    return torch.from_numpy(np.nan_to_num(scaled, nan=0.0).astype(np.float32))


def row_shares(values: np.ndarray) -> np.ndarray:
    """Each row divided by its sum, as bags of words are; rows of zeros stay."""
    sums = values.sum(axis=1, keepdims=True)
    return values / np.where(sums == 0, 1.0, sums)


def tensors_of(columns: pd.DataFrame, words: Words, numbers: Numbers, prefix: str) -> dict[str, Tensor]:
    """The fields PREFIX_categories and PREFIX_values, each only where there are columns of its kind."""
    fields = {}
    if words:
        fields[f"{prefix}_categories"] = codes_of(columns, words)
    if numbers:
        fields[f"{prefix}_values"] = values_of(columns, numbers)
    return fields


def mismatches(level: Level, what: str, words: Words, numbers: Numbers) -> list[Fault]:
    """Columns that a trained model reads and new files lack, or hold in another kind."""
    faults = []
    for name, kind in [*((name, "words") for name in words), *((name, "numbers") for name in numbers)]:
        where = level.place(0) if len(level) else what
        if name not in level.columns:
            faults.append(Fault(f"the {what}", f"have no column '{name}', which the model reads", "add it"))
        elif len(level) and is_number(level.columns[name]) != (kind == "numbers"):
            said = "numbers" if kind == "words" else "words"
            text = f"has {said} in the column '{name}', where the model was trained on {kind}"
            faults.append(Fault(where, text, "write it as in training"))
    return faults


def empty_cells(level: Level, numbers: Sequence[str]) -> list[Fault]:
    """Cells without a number."""
    faults = []
    gaps = level.columns[list(numbers)].isna().to_numpy() if numbers else np.zeros((0, 0), dtype=bool)
    for row, column in np.argwhere(gaps):
        what = f"has no number in the column '{numbers[column]}'"
        faults.append(Fault(level.place(int(row)), what, "fill it, or data.gaps=mean takes the training mean for all"))
    return faults


def unseen(columns: pd.DataFrame, words: Mapping[str, list[str]]) -> list[str]:
    """For people: words that training never saw."""
    remarks = []
    for name, known in words.items():
        others = columns[name].dropna()
        others = others[~others.isin(known)]
        if len(others):
            remarks.append(
                f"column '{name}': {len(others):,} cells hold words unknown to training, e.g. {others.iloc[0]!r}"
            )
    return remarks
