"""Predictions of nodes as files people open: a table with one row for each node, and a map."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core.pictures.embeddings import projection
from ...core.writing.cells import text_cell, write_table
from ...core.writing.files import refuse_existing, written_whole
from ..data.rows import Row
from .predictions import prediction_table

if TYPE_CHECKING:
    from .nodes import NodeClassifier


class NodePredictions(NamedTuple):
    """What some nodes were taken for: their numbers in the files, probabilities, and what the head read of them."""

    rows: Int[Tensor, " nodes"]
    values: Float[Tensor, "nodes labels"]
    vectors: Float[Tensor, "nodes dim"]

    similarity = None

    @classmethod
    def together(cls, parts: Sequence["NodePredictions"]) -> "NodePredictions":
        """All batches as one."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))


def write_node_files(
    task: "NodeClassifier", predictions: NodePredictions, rows: Sequence[Row], folder: Path
) -> list[Path]:
    """Writes predictions.csv and predictions.png.

    Args:
        task: that predicted.
        predictions: of nodes.
        rows: all nodes of the files, in their order.
        folder: to write into.

    Raises QuintetError where one of them exists already.
    """
    table, picture = folder / "predictions.csv", folder / "predictions.png"
    for path in (table, picture):
        refuse_existing(path, "folder")
    frame = prediction_table(predictions, task.columns_of, rows)
    cells = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    write_table(table, [str(name) for name in frame.columns], cells)
    told = frame.columns[frame.columns.get_loc("problem") - len(task.labels) - 1]
    labels = [frame[told].iloc[row] or "none" for row in predictions.rows.tolist()]
    title = (
        f"{len(labels):,} nodes as {task.backbone_name} sees them, by predicted {'labels' if task.several else 'class'}"
    )
    figure = projection(predictions.vectors.numpy(), labels, title, what="node")
    with written_whole(picture, remedy="give another folder") as partial:
        figure.savefig(partial, dpi=120)
    return [table, picture]


def _cell(value: object) -> object:
    if value is None or value != value:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else text_cell(value) if isinstance(value, str) else value
