"""Graphs in the form of Cora and PubMed: the raw files ind.NAME.{x, tx, allx, y, ty, ally, graph, test.index}.

Rows of `allx` are nodes 0, 1, ...; those of `tx` are the nodes that test.index lists, in its order. Nodes between the
lowest and the highest test node that it does not list (CiteSeer has 15) have no features, no class and no part. The
public split trains on the rows of `x`, validates on the 500 after them and tests on test.index.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ....core.data.faults import Fault
from ....core.errors import QuintetError
from .graph_tables import GraphTables, Level, one_graph
from .pickled_arrays import lists_of, matrix_of
from .unpickling import Refused, read_pickle

PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
VALIDATION = 500  # nodes after those of training, as published


def names_in(folder: Path) -> list[str]:
    """Which graphs lie in a folder in this form: each NAME of ind.NAME.graph."""
    return sorted(file.name.split(".", 1)[1].removesuffix(".graph") for file in folder.glob("ind.*.graph"))


def read_planetoid(folder: Path, name: str) -> GraphTables:
    """The graph NAME of a folder. Raises QuintetError where a file is missing, refused or damaged."""
    files = {part: folder / f"ind.{name}.{part}" for part in PARTS}
    for path in files.values():
        if not path.is_file():
            raise QuintetError(f"no file {path}; the raw files of one graph are ind.{name}.{{{', '.join(PARTS)}}}")
    tested = _numbers(files["test.index"])
    tables = {part: _matrix(files[part]) for part in ("x", "tx", "allx", "ty", "ally")}
    known = len(tables["allx"])
    total = max(known + len(tested), int(tested.max(initial=-1)) + 1)
    _check(files, tables, tested, known)
    features = np.zeros((total, tables["allx"].shape[1]), dtype=np.float32)
    classes = np.full(total, -1)
    for rows, part in ((slice(0, known), "all"), (tested, "t")):
        features[rows] = tables[f"{part}x"]
        told = tables[f"{part}y"]
        classes[rows] = np.where(told.any(axis=1), told.argmax(axis=1), -1)
    parts = np.full(total, None, dtype=object)
    trained = len(tables["x"])
    parts[:trained], parts[trained : min(trained + VALIDATION, known)], parts[tested] = "train", "val", "test"
    return _tables(files["graph"], features, classes, parts)


def _tables(graph: Path, features: np.ndarray, classes: np.ndarray, parts: np.ndarray) -> GraphTables:
    total, faults = len(features), []
    ends, repeated, loops = _edges(graph, total, faults)
    columns = pd.DataFrame(features, columns=[f"word {number}" for number in range(features.shape[1])])
    labels = pd.Series([None if code < 0 else str(code) for code in classes], dtype=object)
    columns = columns.assign(label=labels, split=pd.Series(parts, dtype=object))
    graphs, graph_of = one_graph(total, str(graph.parent))
    unknown = int((classes < 0).sum())
    remarks = [f"{unknown} nodes have no features and no class; they are in no part"] if unknown else []
    if repeated or loops:
        remarks.append(
            f"left out, as published results do: {repeated} edges listed again, {loops} from a node to itself"
        )
    return GraphTables(
        where=str(graph).removesuffix(".graph"),
        nodes=Level(columns, [str(number) for number in range(total)], lambda row: f"node {row} of {graph.name}"),
        edges=Level(pd.DataFrame(index=range(ends.shape[1])), place=lambda row: f"edge {row} of {graph.name}"),
        ends=ends,
        graphs=graphs,
        graph_of=graph_of,
        bag_of_words=True,
        suggested={"label": ["label"], "split": ["split"]},
        remarks=remarks,
        faults=faults,
    )


def _edges(graph: Path, total: int, faults: list[Fault]) -> tuple[np.ndarray, int, int]:
    """Source and target of each edge once, how many were listed again, and how many lead from a node to itself."""
    sources, targets = [], []
    try:
        for node, neighbours in lists_of(read_pickle(graph), graph.stat().st_size):
            sources += [node] * len(neighbours)
            targets += neighbours
    except Refused as error:
        raise QuintetError(f"{graph} was refused: {error}") from None
    try:
        listed = np.array([sources, targets], dtype=np.int64).reshape(2, -1)
    except OverflowError:
        raise QuintetError(f"{graph} is damaged: the number of a node has more digits than there are nodes") from None
    wrong = (listed < 0) | (listed >= total)
    for column in np.flatnonzero(wrong.any(axis=0)):
        node, other = listed[:, column].tolist()
        what = f"leads from node {node} to node {other}; the nodes are 0 to {total - 1}"
        faults.append(Fault(f"{graph} edge {column}", what, "correct the number"))
    listed = listed[:, ~wrong.any(axis=0)]
    apart = listed[:, listed[0] != listed[1]]
    once = np.unique(apart, axis=1)
    return once, apart.shape[1] - once.shape[1], listed.shape[1] - apart.shape[1]


def _matrix(path: Path) -> np.ndarray:
    try:
        return matrix_of(read_pickle(path))
    except Refused as error:
        raise QuintetError(f"{path} was refused: {error}") from None


def _numbers(path: Path) -> np.ndarray:
    """The whole numbers of a file, one a line."""
    lines = path.read_text(encoding="utf-8", errors="replace").split()
    for number, cell in enumerate(lines, 1):
        if not (cell.isascii() and cell.isdigit() and len(cell) < 10):
            raise QuintetError(f"{path} row {number} is '{cell[:20]}', not the number of a node; write one a line")
    return np.array(lines, dtype=np.int64)


def _check(files: dict[str, Path], tables: dict[str, np.ndarray], tested: np.ndarray, known: int) -> None:
    """Raises QuintetError where the parts are not of one graph."""
    pairs = (("allx", "ally", known), ("tx", "ty", len(tested)))
    for features, labels, rows in pairs:
        if not len(tables[features]) == len(tables[labels]) == rows:
            counts = f"{len(tables[features])} and {len(tables[labels])} rows for {rows} nodes"
            raise QuintetError(f"{files[features]} and {files[labels].name} have {counts}; take files of one graph")
    for one, other in (("tx", "allx"), ("ty", "ally"), ("x", "allx")):
        if tables[one].shape[1] != tables[other].shape[1]:
            raise QuintetError(f"{files[one]} and {files[other].name} differ in their columns; take files of one graph")
    if len(np.unique(tested)) != len(tested):
        raise QuintetError(f"{files['test.index']} lists a node twice; list each once")
    # One far number would ask for as many rows.
    if len(tested) and (tested.min() < known or tested.max() >= known + 10 * len(tested) + 1000):
        what = f"nodes {tested.min()} to {tested.max()}; those after the {known} of allx are meant"
        raise QuintetError(f"{files['test.index']} lists {what}")
