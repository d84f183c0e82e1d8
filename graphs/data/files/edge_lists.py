"""Edge lists: a line for each edge with two ids, and a number where edges have one."""

from pathlib import Path

import numpy as np
import pandas as pd

from ....core.errors import QuintetError
from .graph_tables import GraphTables
from .table_graphs import Reading, graph_of_sheets
from .tables import Sheet, text_of

ENDINGS = (".edgelist", ".edgelist.gz", ".edges", ".edges.gz", ".el")
COLUMNS = ("source", "target", "weight")


def is_edge_list(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def read_edge_list(path: Path, reading: Reading) -> GraphTables:
    """The graph of the edges; its nodes are those that edges name. Lines of # and % are comments.

    Raises QuintetError where a line has fewer or more columns than the first.
    """
    rows, numbers = [], []
    for number, line in enumerate(text_of(path).splitlines(), 1):
        cells = line.replace(",", " ").split()
        if not cells or cells[0].startswith(("#", "%")):
            continue
        rows.append(cells)
        numbers.append(number)
    if not rows:
        raise QuintetError(f"{path} has no edges")
    width = len(rows[0])
    if not 2 <= width <= len(COLUMNS):
        what = f"has {width} columns: an edge list has two ids, and a number where edges have one"
        raise QuintetError(f"{path} row {numbers[0]} {what}; write other tables as edges.csv with a header")
    for number, cells in zip(numbers, rows, strict=True):
        if len(cells) != width:
            raise QuintetError(f"{path} row {number} has {len(cells)} columns, the first {width}; write them alike")
    frame = pd.DataFrame(rows, columns=list(COLUMNS[:width]), dtype=object)
    return graph_of_sheets({"edges": Sheet(path, frame, np.array(numbers))}, Reading(ignore=reading.ignore))
