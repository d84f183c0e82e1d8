"""Graphs from tables of one's own: nodes.csv beside edges.csv, and graphs.csv where there are many."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ....core.data.faults import Fault
from ....core.errors import QuintetError
from .graph_tables import GraphTables, Level, one_graph
from .tables import Sheet, ending_of, ids_of, read_sheet, typed

STEMS = {
    "nodes": ("nodes", "node", "vertices"),
    "edges": ("edges", "edge", "links", "edgelist", "edge_list"),
    "graphs": ("graphs", "graph"),
}
ID = ("id", "node", "node_id", "nodeid", "node id", "vertex")
GRAPH = ("graph", "graph_id", "graphid", "graph id")
SOURCE = ("source", "src", "from", "source_id", "node1", "u", "start")
TARGET = ("target", "dst", "to", "target_id", "node2", "v", "end", "destination")


@dataclass(frozen=True)
class Reading:
    """How tables are read.

    Args:
        id: column of nodes.csv that names each node; None finds one called id, node or the like.
        graph: column that names the graph; None finds one called graph or graph_id.
        edge_source: column of edges.csv with the node an edge leads from; None finds source, src, from.
        edge_target: to which it leads; None finds target, dst, to.
        words: columns whose numbers are codes, not quantities.
        ignore: columns that are not read.
    """

    id: str | None = None
    graph: str | None = None
    edge_source: str | None = None
    edge_target: str | None = None
    words: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


def tables_in(folder: Path) -> dict[str, Path]:
    """The tables of nodes, edges and graphs in a folder. Raises QuintetError where there are two of a kind."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = ending_of(path)
        stem = path.name[: -len(ending)].lower() if ending else ""
        for level, stems in STEMS.items():
            if stem in stems or stem.endswith(tuple(f"_{name}" for name in stems)):
                if level in found:
                    raise QuintetError(f"{folder} has two tables of {level}: {found[level].name} and {path.name}")
                found[level] = path
    return found


def read_tables(files: dict[str, Path], reading: Reading) -> GraphTables:
    """Graphs of nodes and edges; without a table of nodes those that the edges name, in order of their first mention.

    Raises QuintetError where a table is absent or lacks a column without which it says nothing.
    """
    return graph_of_sheets({level: read_sheet(path) for level, path in files.items()}, reading)


def graph_of_sheets(sheets: dict[str, Sheet], reading: Reading) -> GraphTables:
    """`read_tables` of tables that are read."""
    graphs = _many(sheets, reading) if _has_many(sheets, reading) else _one(sheets, reading)
    return replace(graphs, where=str(sheets["edges"].path))


def _has_many(sheets: dict[str, Sheet], reading: Reading) -> bool:
    if "graphs" in sheets:
        return True
    return "nodes" in sheets and sheets["nodes"].find(reading.graph, GRAPH, "graph") is not None


def ends_columns(sheet: Sheet, reading: Reading) -> tuple[str, str]:
    """The two columns of edges that say which nodes they join. Raises QuintetError where they are unknown."""
    source = sheet.find(reading.edge_source, SOURCE, "edge_source")
    target = sheet.find(reading.edge_target, TARGET, "edge_target")
    if source and target:
        return source, target
    names = list(sheet.frame.columns)
    if len(names) == 2 and not source and not target:
        return names[0], names[1]
    raise QuintetError(
        f"{sheet.path} has no columns that say which nodes an edge joins, such as source and target; name them with "
        f"data.edge_source and data.edge_target, among: {', '.join(names[:8])}"
    )


def _rest(sheet: Sheet, used: tuple[str | None, ...], reading: Reading, faults: list[Fault]) -> pd.DataFrame:
    names = [name for name in sheet.frame if name not in used and name not in reading.ignore]
    return typed(sheet, names, reading.words, faults)


def _unique(sheet: Sheet, keys: pd.Index, what: str, faults: list[Fault]) -> None:
    first: dict[object, int] = {}
    for row in np.flatnonzero(keys.duplicated(keep=False)):
        if keys[row] in first:
            other = sheet.rows[first[keys[row]]]
            name = keys[row] if isinstance(keys[row], str) else keys[row][-1]
            faults.append(Fault(sheet.place(row), f"names the {what} '{name}' again (row {other})", "name each once"))
        first.setdefault(keys[row], row)


def _id_column(sheet: Sheet, given: str | None, usual: tuple[str, ...], option: str, what: str) -> str:
    name = sheet.find(given, usual, option)
    if name is None:
        columns = ", ".join(map(str, sheet.frame.columns[:8]))
        raise QuintetError(
            f"{sheet.path} has no column that names its {what}, such as {usual[0]}; name one with data.{option}, "
            f"among: {columns}"
        )
    return name


def _one(sheets: dict[str, Sheet], reading: Reading) -> GraphTables:
    faults: list[Fault] = []
    edges = sheets["edges"]
    ends_names = ends_columns(edges, reading)
    named = [ids_of(edges, name, faults) for name in ends_names]
    edge_columns = _rest(edges, ends_names, reading, faults)
    if "nodes" in sheets:
        sheet = sheets["nodes"]
        id_name = _id_column(sheet, reading.id, ID, "id", "nodes")
        names = ids_of(sheet, id_name, faults)
        _unique(sheet, pd.Index(names), "node", faults)
        nodes = Level(_rest(sheet, (id_name,), reading, faults), names, sheet.place)
    else:
        mentioned = np.stack(named, axis=1).ravel()
        names = pd.unique(mentioned[~pd.isna(mentioned)])
        nodes = Level(pd.DataFrame(index=range(len(names))), names, lambda row: f"node '{names[row]}'")
    ends, kept = _positions(edges, ends_names, named, pd.Index(names), sheets.get("nodes"), faults)
    graphs, graph_of = one_graph(len(nodes))
    level = Level(edge_columns.iloc[kept].reset_index(drop=True), place=lambda row: edges.place(kept[row]))
    return GraphTables("", nodes, level, ends, graphs, graph_of, faults=faults)


def _positions(
    edges: Sheet,
    columns: tuple[str, str],
    named: list[np.ndarray],
    keys: pd.Index,
    nodes: Sheet | None,
    faults: list[Fault],
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the nodes that edges join, of those that join nodes there are, and which edges these are."""
    keys = keys if keys.is_unique else keys.drop_duplicates()
    positions = np.stack([keys.get_indexer(pd.Index(names)) for names in named])
    broken = {fault.where for fault in faults}
    for end, row in zip(*np.nonzero(positions < 0), strict=True):
        where, cell = edges.place(row), named[end][row]
        if where not in broken and not pd.isna(cell):
            what = (
                f"has '{cell}' in the column '{columns[end]}', a node that {nodes.path.name if nodes else 'it'} lacks"
            )
            faults.append(Fault(where, what, _near(str(cell), keys)))
    kept = np.flatnonzero((positions >= 0).all(axis=0))
    return positions[:, kept], kept


def _near(cell: str, keys: pd.Index) -> str:
    """What to do about an edge to a missing node."""
    stripped = cell.lstrip("0") or "0"
    alike = next((key for key in keys if isinstance(key, str) and (key.lstrip("0") or "0") == stripped), None)
    if cell.isdigit() and alike is not None:
        return f"the nearest is '{alike}': ids are compared as text, so write the zeros in front alike"
    return "add the node, or remove the edge"


def _many(sheets: dict[str, Sheet], reading: Reading) -> GraphTables:
    if "nodes" not in sheets:
        raise QuintetError(f"{sheets['graphs'].path.parent} has graphs but no table of nodes; add nodes.csv")
    faults: list[Fault] = []
    sheet, edges = sheets["nodes"], sheets["edges"]
    graph_name = _id_column(sheet, reading.graph, GRAPH, "graph", "graphs")
    owner = ids_of(sheet, graph_name, faults)
    graphs = _graphs(sheets.get("graphs"), owner, reading, faults)
    graph_of = pd.Index(graphs.names).drop_duplicates().get_indexer(pd.Index(owner))
    for row in np.flatnonzero(graph_of < 0):
        if owner[row] is not None:
            what = f"is of the graph '{owner[row]}', which {sheets['graphs'].path.name} lacks"
            faults.append(Fault(sheet.place(row), what, "add the graph, or remove the row"))
    for row in np.flatnonzero(np.bincount(graph_of[graph_of >= 0], minlength=len(graphs)) == 0):
        what = f"is the graph '{graphs.names[row]}', of which {sheet.path.name} has no node"
        faults.append(Fault(graphs.place(row), what, "add its nodes, or remove the row"))
    id_name = _id_column(sheet, reading.id, ID, "id", "nodes")
    names = ids_of(sheet, id_name, faults)
    apart = edges.find(reading.graph if reading.graph in edges.frame else None, GRAPH, "graph")
    keys = pd.MultiIndex.from_arrays([owner, names]) if apart else pd.Index(names)
    _unique(sheet, keys, "node", faults)
    # Nodes of one graph stand together from here on, in the order of the graphs.
    order = np.argsort(graph_of, kind="stable")
    order = order[graph_of[order] >= 0]
    nodes = Level(
        _rest(sheet, (id_name, graph_name), reading, faults).iloc[order].reset_index(drop=True),
        names[order],
        lambda row: sheet.place(order[row]),
    )
    ends_names = ends_columns(edges, reading)
    named = [ids_of(edges, name, faults) for name in ends_names]
    edge_columns = _rest(edges, (*ends_names, apart), reading, faults)
    looked_up = keys[order]
    if apart:
        of_edges = ids_of(edges, apart, faults)
        looked_up = _joined(looked_up)
        pairs = [pd.MultiIndex.from_arrays([of_edges, cells]) for cells in named]
        ends, kept = _positions(
            edges, ends_names, [np.asarray(_joined(pair), object) for pair in pairs], looked_up, sheet, faults
        )
    else:
        ends, kept = _positions(edges, ends_names, named, looked_up, sheet, faults)
    crossing = graph_of[order][ends[0]] != graph_of[order][ends[1]]
    for row in np.flatnonzero(crossing):
        faults.append(Fault(edges.place(kept[row]), "joins nodes of two graphs", "an edge lies within one graph"))
    ends, kept = ends[:, ~crossing], kept[~crossing]
    level = Level(edge_columns.iloc[kept].reset_index(drop=True), place=lambda row: edges.place(kept[row]))
    return GraphTables("", nodes, level, ends, graphs, graph_of[order], faults=faults)


def _joined(keys: pd.MultiIndex) -> pd.Index:
    """Pairs of a graph and a node as one text, for people too."""
    return pd.Index([f"{node} of graph {graph}" for graph, node in keys], dtype=object)


def _graphs(sheet: Sheet | None, owner: np.ndarray, reading: Reading, faults: list[Fault]) -> Level:
    if sheet is None:
        names = pd.unique(owner[~pd.isna(owner)])
        return Level(pd.DataFrame(index=range(len(names))), names, lambda row: f"graph '{names[row]}'")
    given = reading.graph if reading.graph in sheet.frame else None
    name = _id_column(sheet, given, (*GRAPH, "id", "name"), "graph", "graphs")
    names = ids_of(sheet, name, faults)
    _unique(sheet, pd.Index(names), "graph", faults)
    return Level(_rest(sheet, (name,), reading, faults), names, sheet.place)
