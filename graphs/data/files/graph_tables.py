"""What the user's files say of graphs, whatever their format: columns of nodes, edges and graphs, and what is wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Int

from ....core.data.faults import Fault
from ..rows import Row

PARTS = ("train", "val", "test")
SPOKEN = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""How people name the parts in a column."""


@dataclass
class Level:
    """The rows of nodes, of edges or of graphs.

    Args:
        columns: float64 for numbers, NaN where a cell is empty; text for words, None where it is empty.
        names: what the files call each row; for edges empty.
        place: how to name a row in a message, by its number.
    """

    columns: pd.DataFrame
    names: Sequence[str] | np.ndarray = ()
    place: Callable[[int], str] = str

    def __len__(self) -> int:
        return len(self.columns)


@dataclass
class GraphTables:
    """Graphs as they were read.

    Args:
        where: what to call them in a message.
        nodes: a row for each node, those of one graph together.
        edges: a row for each edge, as listed.
        ends: source and target of each edge, numbers of nodes among all.
        graphs: a row for each graph; one where the files hold one.
        graph_of: number of the graph of each node, rising.
        bag_of_words: whether the numbers of nodes are such by the format's own rule.
        suggested: columns whose role the format itself says: "label", "targets", "split".
        remarks: what is worth knowing.
        faults: what stands in the way.
    """

    where: str
    nodes: Level
    edges: Level
    ends: Int[np.ndarray, "2 edges"]
    graphs: Level
    graph_of: Int[np.ndarray, " nodes"]
    bag_of_words: bool = False
    suggested: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def edge_graph(self) -> Int[np.ndarray, " edges"]:
        """Number of the graph of each edge."""
        return self.graph_of[self.ends[0]]


def one_graph(count: int, name: str = "the graph") -> tuple[Level, np.ndarray]:
    """The level of graphs and the graph of each node, where there is one graph alone."""
    return Level(pd.DataFrame(index=range(1)), [name], lambda _: name), np.zeros(count, dtype=np.int64)


def part_of(cell: str | None) -> str | None:
    """The part that a cell of a split column names: train, val or test; None for an empty one or another word."""
    return SPOKEN.get(cell.strip().lower()) if isinstance(cell, str) else None


def named_rows(level: Level, what: str, kept: Sequence[str]) -> list[Row]:
    """A row for each of a level, with its id under `what` and the columns that only name it, for tables of outputs."""
    named = pd.DataFrame({what: np.asarray(level.names, dtype=object)})
    for name in kept:
        if name in level.columns and name not in named:
            named[name] = level.columns[name]
    return [Row(number, str(cells[what]), cells) for number, cells in enumerate(named.to_dict("records"))]
