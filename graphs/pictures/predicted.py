"""Graphs with what was predicted of them: the first of new files, and the worst, median and best of a test."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from ...core.data.module import DataModule
from ...core.pictures.charts import shortened
from ..data.store import GraphStore
from .drawing import Drawn, graph_sheet

EACH = 5  # worst, median and best ones: a row of a sheet each
SHOWN = 12  # graphs of new files


def drawn_graph(data: DataModule, store: GraphStore, index: int, caption: str = "") -> Drawn:
    """A graph of a store as it is drawn: a molecule where it is one."""
    graph = store.graph(index)
    if data.description().source == "molecules":
        (molecule,) = data.molecules_of([int(graph.row[0])])
        return Drawn(caption, molecule)
    codes = getattr(graph, "node_categories", None)
    categories = codes[:, 0] if codes is not None and codes.shape[1] else graph.edge_index.new_zeros(graph.num_nodes)
    return Drawn(caption, None, graph.edge_index, categories)


def extremes(errors: Sequence[float]) -> list[int]:
    """Which are the worst, those in the middle and the best, five each, from the worst on; none of too few."""
    ordered = sorted((at for at, error in enumerate(errors) if error == error), key=lambda at: -errors[at])
    if len(ordered) < 3 * EACH:
        return []
    middle = (len(ordered) - EACH) // 2
    return [*ordered[:EACH], *ordered[middle : middle + EACH], *ordered[-EACH:]]


def extremes_sheet(data: DataModule, store: GraphStore, indices: Sequence[int], captions: Sequence[str]) -> Figure:
    """A row each of the worst, the median and the best graphs of a test."""
    items = [drawn_graph(data, store, at, caption) for at, caption in zip(indices, captions, strict=True)]
    return graph_sheet(items, "test graphs by how far they were missed", EACH, ("worst", "median", "best"))


def predicted_sheet(data: DataModule, table: pd.DataFrame, told: Sequence[str]) -> Figure | None:
    """The first graphs of new files over the first things said of each; None where none could be read.

    Args:
        data: that was predicted for.
        table: with one row for each row of the data.
        told: columns of the table that captions say.
    """
    store: Any = data.datasets.get("predict")
    if not store:
        return None
    rows: Tensor = store.graphs["row"][:SHOWN]
    items = []
    for index, row in enumerate(rows.tolist()):
        lines = [f"{shortened(name.removeprefix('predicted_'), 18)} {_said(table[name][row])}" for name in told]
        items.append(drawn_graph(data, store, index, "\n".join([f"row {row + 1}", *lines])))
    count = len(store)
    title = f"{count} graphs" if count == len(items) else f"the first {len(items)} of {count:,} graphs"
    return graph_sheet(items, title, 4)


def _said(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else shortened(str(value), 18)
