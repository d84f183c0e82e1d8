"""Predictions as a table with one row for each row of the input, in its order, and what that table looks like."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core.data.module import DataModule
from ...core.writing.cells import text_cell, write_table
from ...core.writing.files import refuse_existing, written_whole
from ..data.rows import Row
from ..pictures.predicted import predicted_sheet


class GraphPredictions(NamedTuple):
    """What some graphs were predicted to be: rows of the input they came from, values and, where they are, deviations.

    `similarity` is that of each molecule to the most similar training molecule.
    """

    rows: Int[Tensor, " graphs"]
    values: Float[Tensor, "graphs outputs"]
    deviations: Float[Tensor, "graphs outputs"] | None = None
    similarity: Float[Tensor, " graphs"] | None = None

    @classmethod
    def together(cls, parts: Sequence["GraphPredictions"]) -> "GraphPredictions | None":
        """All batches as one; None of none."""
        if not parts:
            return None
        columns = (
            None if column[0] is None else torch.cat([value.cpu() for value in column]) for column in zip(*parts)
        )
        return cls(*columns)


def prediction_table(
    predictions: GraphPredictions | None,
    columns_of: Callable[[GraphPredictions], dict[str, list[Any]]],
    rows: Sequence[Row],
) -> pd.DataFrame:
    """The user's columns that name a row, then what was predicted of it, then what kept it from being read.

    Args:
        predictions: of the rows that could be read.
        columns_of: what they say, by column.
        rows: all of the input.
    """
    table = pd.DataFrame([row.named for row in rows])
    found = predictions
    told: dict[str, list[Any]] = {} if found is None else columns_of(found)
    if found is not None and found.similarity is not None:
        told["similarity_to_training"] = found.similarity.tolist()
    place = {} if found is None else {row: at for at, row in enumerate(found.rows.tolist())}
    order = [place.get(number) for number in range(len(rows))]
    for name, values in told.items():
        table[name if name not in table else f"{name}_predicted"] = [None if at is None else values[at] for at in order]
    table["problem"] = [row.reason or "" for row in rows]
    return table


def write_prediction_files(table: pd.DataFrame, data: DataModule, told: Sequence[str], folder: Path) -> list[Path]:
    """predictions.csv, in which no cell is a formula, and predictions.png with the first graphs.

    Args:
        table: with one row for each row of the data.
        data: that was predicted for.
        told: columns of the table that captions of the picture say.
        folder: to write into.

    Raises QuintetError where one of them exists already.
    """
    paths = folder / "predictions.csv", folder / "predictions.png"
    for path in paths:
        refuse_existing(path, "folder")
    cells = ([_cell(value) for value in row] for row in table.itertuples(index=False))
    write_table(paths[0], [str(name) for name in table.columns], cells)
    figure = predicted_sheet(data, table, told)
    if figure is None:
        return [paths[0]]
    with written_whole(paths[1], remedy="give another folder") as partial:
        figure.savefig(partial, dpi=120)
    return list(paths)


def _cell(value: Any) -> str:
    """A cell: numbers with seven digits, nothing for what is not known, text that is no formula."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.7g}"
    return text_cell(str(value))
