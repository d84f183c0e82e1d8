"""Folders of the TU collection, such as MUTAG: NAME_A.txt, NAME_graph_indicator.txt and what belongs to them."""

from pathlib import Path

import numpy as np
import pandas as pd

from ....core.data.faults import Fault
from ....core.errors import QuintetError
from .graph_tables import GraphTables, Level
from .tables import text_of

LARGEST = 2**53  # number of a node or graph, up to which float64 holds each
# What belongs to which level: codes become words, measurements numbers.
FILES = {
    "nodes": ("node_labels", "node_attributes"),
    "edges": ("edge_labels", "edge_attributes"),
    "graphs": ("graph_labels", "graph_attributes"),
}


def names_in(folder: Path) -> list[str]:
    """Which collections lie in a folder: each NAME of NAME_A.txt beside NAME_graph_indicator.txt."""
    found = (file.name.removesuffix("_A.txt") for file in folder.glob("*_A.txt"))
    return sorted(name for name in found if (folder / f"{name}_graph_indicator.txt").is_file())


def read_tu(folder: Path, name: str) -> GraphTables:
    """The graphs of NAME. Raises QuintetError where a file is missing or its rows do not agree with the others."""
    listed, owner = folder / f"{name}_A.txt", folder / f"{name}_graph_indicator.txt"
    faults: list[Fault] = []
    graph_of = _whole(owner, 1).ravel() - 1
    if (graph_of < 0).any():
        row = int(np.flatnonzero(graph_of < 0)[0])
        raise QuintetError(f"{owner} row {row + 1} has the graph {graph_of[row] + 1}; graphs are numbered from 1")
    # Graphs without a node are faults; one far number would ask for as many.
    if graph_of.max() >= 10 * len(graph_of) + 1000:
        row = int(graph_of.argmax())
        raise QuintetError(
            f"{owner} row {row + 1} has the graph {graph_of[row] + 1}, and there are {len(graph_of)} nodes"
        )
    labelled = [folder / f"{name}_{part}.txt" for part in FILES["graphs"] if (folder / f"{name}_{part}.txt").is_file()]
    count = len(_lines(labelled[0])) if labelled else int(graph_of.max()) + 1
    if graph_of.max() >= count:
        row = int(np.flatnonzero(graph_of >= count)[0])
        what = f"has the graph {graph_of[row] + 1}; {labelled[0].name} has {count} rows"
        raise QuintetError(f"{owner} row {row + 1} {what}")
    for graph in np.flatnonzero(np.bincount(graph_of, minlength=count) == 0):
        faults.append(Fault(f"graph {graph + 1} of {owner}", "has no node", "add its nodes, or remove its rows"))
    order = np.argsort(graph_of, kind="stable")
    nodes = _level(folder, name, "nodes", len(graph_of))
    ends, kept = _ends(listed, graph_of, faults)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    edges = _level(folder, name, "edges", len(_lines(listed)))
    graphs = _level(folder, name, "graphs", count)
    graphs.names = [str(number + 1) for number in range(count)]
    predicted = [column for column in graphs.columns if column != "graph_labels"]
    suggested = {"label": ["graph_labels"]} if "graph_labels" in graphs.columns else {"targets": predicted}
    return GraphTables(
        where=str(folder),
        nodes=Level(
            nodes.columns.iloc[order].reset_index(drop=True),
            [str(number + 1) for number in order],
            lambda row: f"node {order[row] + 1} of {owner.name}",
        ),
        edges=Level(edges.columns.iloc[kept].reset_index(drop=True), place=lambda row: f"{listed} row {kept[row] + 1}"),
        ends=place[ends],
        graphs=graphs,
        graph_of=graph_of[order],
        suggested=suggested if graphs.columns.shape[1] else {},
        faults=faults,
    )


def _ends(listed: Path, graph_of: np.ndarray, faults: list[Fault]) -> tuple[np.ndarray, np.ndarray]:
    ends = _whole(listed, 2).T - 1
    missing = ((ends < 0) | (ends >= len(graph_of))).any(axis=0)
    for row in np.flatnonzero(missing):
        what = f"joins nodes {ends[0, row] + 1} and {ends[1, row] + 1}; nodes are 1 to {len(graph_of)}"
        faults.append(Fault(f"{listed} row {row + 1}", what, "correct the numbers"))
    kept = np.flatnonzero(~missing)
    crossing = graph_of[ends[0, kept]] != graph_of[ends[1, kept]]
    for row in kept[crossing]:
        faults.append(Fault(f"{listed} row {row + 1}", "joins nodes of two graphs", "an edge lies within one graph"))
    kept = kept[~crossing]
    return ends[:, kept], kept


def _level(folder: Path, name: str, level: str, count: int) -> Level:
    """The columns of a level, from the files that are there."""
    columns: dict[str, pd.Series] = {}
    for part in FILES[level]:
        path = folder / f"{name}_{part}.txt"
        if not path.is_file():
            continue
        values = _numbers(path)
        if len(values) != count:
            raise QuintetError(f"{path} has {len(values):,} rows for {count:,} {level}")
        for number, column in enumerate(values.T):
            title = part if values.shape[1] == 1 else f"{part} {number + 1}"
            codes = part.endswith("labels")
            columns[title] = pd.Series([_code(code) for code in column], dtype=object) if codes else pd.Series(column)
    return Level(pd.DataFrame(columns, index=range(count)), place=lambda row: f"{level[:-1]} {row + 1} of {folder}")


def _code(number: float) -> str:
    return str(int(number)) if number % 1 == 0 else repr(float(number))


def _lines(path: Path) -> list[str]:
    lines = text_of(path).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise QuintetError(f"{path} is empty")
    return lines


def _numbers(path: Path) -> np.ndarray:
    """Rows of numbers parted by commas, float64."""
    lines = _lines(path)
    width = lines[0].count(",")
    try:
        values = np.array(",".join(lines).split(","), dtype=np.float64)
        if len(values) == len(lines) * (width + 1) and np.isfinite(values).all():
            return values.reshape(len(lines), width + 1)
    except ValueError:
        pass
    for number, line in enumerate(lines, 1):
        cells = line.split(",")
        if len(cells) != width + 1:
            raise QuintetError(f"{path} row {number} has {len(cells)} columns, the first row {width + 1}")
        for cell in cells:
            _check_number(path, number, cell)
    raise QuintetError(f"{path} cannot be read")


def _check_number(path: Path, row: int, cell: str) -> None:
    try:
        finite = np.isfinite(float(cell))
    except ValueError:
        finite = False
    if not finite:
        raise QuintetError(f"{path} row {row} has '{cell.strip()[:20]}', which is no number")


def _whole(path: Path, width: int) -> np.ndarray:
    values = _numbers(path)
    if values.shape[1] != width:
        raise QuintetError(f"{path} has {values.shape[1]} columns; {width} are meant")
    if (broken := np.flatnonzero((values % 1 != 0).any(axis=1))).size:
        raise QuintetError(f"{path} row {broken[0] + 1} is no whole number")
    if (broken := np.flatnonzero((np.abs(values) > LARGEST).any(axis=1))).size:
        raise QuintetError(f"{path} row {broken[0] + 1} has a number beyond {LARGEST:,}; correct it")
    return values.astype(np.int64)
