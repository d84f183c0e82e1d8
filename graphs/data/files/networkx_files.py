"""GraphML and GEXF, which networkx parses: text of UTF-8 without a document type, so that it can name no other file."""

import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pandas as pd

from ....core.data.faults import Fault
from ....core.errors import QuintetError, first_line
from .graph_tables import GraphTables, Level, one_graph
from .table_graphs import Reading
from .tables import Sheet, ids_of, text_of, typed

ENDINGS = (".graphml", ".graphml.gz", ".gexf", ".gexf.gz")
_DECLARED = re.compile(r"""^\s*<\?xml[^>]*encoding\s*=\s*["']([\w.-]+)["']""")


def is_xml_graph(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def read_xml_graph(path: Path, reading: Reading) -> GraphTables:
    """The graph of a GraphML or GEXF file; attributes of its nodes and edges become columns.

    Raises QuintetError where it is damaged, declares a document type or entities, or another encoding than UTF-8.
    """
    text = _harmless(path)
    # The declaration says an encoding, which text that is decoded already no longer has.
    body = re.sub(r"^\s*<\?xml[^>]*\?>", "", text).strip()
    if not body:
        raise QuintetError(f"{path} is empty")
    if (count := len(re.findall(r"<graph[\s/>]", body))) > 1:
        raise QuintetError(f"{path} holds {count} graphs; write each into a file of its own")
    try:
        graph = nx.parse_graphml(body) if ".graphml" in path.name.lower() else _gexf(body)
    # Whatever the parsers raise: a file can be damaged in more ways than they foresee.
    except Exception as error:
        raise QuintetError(f"{path} cannot be read: {first_line(error)}") from error
    _check_declared(path, body)
    return tables_of(graph, path, reading)


def _check_declared(path: Path, body: str) -> None:
    """Raises QuintetError for a node that stands twice, and an edge to one that stands nowhere.

    networkx makes one of the former and a node of the latter.
    """
    declared: set[str] = set()
    edges: list[tuple[str, str]] = []
    for _, element in ElementTree.iterparse(io.BytesIO(body.encode())):
        tag = element.tag.rpartition("}")[2]
        if tag == "node":
            name = element.get("id", "")
            if name in declared:
                raise QuintetError(f"{path} names the node '{name[:40]}' twice; name each once")
            declared.add(name)
        elif tag == "edge":
            edges.append((element.get("source", ""), element.get("target", "")))
        element.clear()
    for source, target in edges:
        for name in (source, target):
            if name not in declared:
                raise QuintetError(
                    f"{path} has an edge from '{source[:40]}' to '{target[:40]}' and no node '{name[:40]}'; "
                    "add the node, or remove the edge"
                )


def _harmless(path: Path) -> str:
    text = text_of(path)
    declared = _DECLARED.match(text)
    if declared and declared[1].lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise QuintetError(f"{path} is written as {declared[1]}; save it as UTF-8")
    for mark in ("<!DOCTYPE", "<!ENTITY"):
        if mark in text.upper():
            raise QuintetError(f"{path} was refused: it declares {mark}, which may stand for other files; remove it")
    return text


def _gexf(body: str) -> nx.Graph:
    return nx.read_gexf(io.BytesIO(body.encode()))


def tables_of(graph: nx.Graph, path: Path, reading: Reading) -> GraphTables:
    """A graph of networkx as tables."""
    faults: list[Fault] = []
    if not graph.number_of_nodes():
        raise QuintetError(f"{path} has no nodes")
    names = [str(node) for node in graph]
    number = {node: place for place, node in enumerate(graph)}
    nodes = _columns(path, [attributes for _, attributes in graph.nodes(data=True)], "node", names, reading, faults)
    listed = list(graph.edges(data=True))
    ends = np.array([[number[source], number[target]] for source, target, _ in listed], dtype=np.int64).reshape(-1, 2).T
    told = [f"{names[source]} - {names[target]}" for source, target in ends.T]
    edges = _columns(path, [attributes for _, _, attributes in listed], "edge", told, reading, faults)
    graphs, graph_of = one_graph(len(names), str(path))
    said = "directed" if graph.is_directed() else "undirected"
    return GraphTables(
        where=str(path),
        nodes=nodes,
        edges=edges,
        ends=ends,
        graphs=graphs,
        graph_of=graph_of,
        remarks=[f"{path.name} calls its edges {said}"],
        faults=faults,
    )


def _columns(
    path: Path, rows: list[dict[str, Any]], what: str, names: list[str], reading: Reading, faults: list[Fault]
) -> Level:
    """Attributes as columns: words, and numbers; whatever else an attribute holds is left to its text."""
    frame = pd.DataFrame(rows, index=range(len(rows)), dtype=object).rename(columns=str)
    frame = frame.drop(columns=[name for name in frame if name in ("id", "viz", *reading.ignore)])
    sheet = _Named(path, frame.map(_cell), np.arange(len(rows)), what, names)
    if what == "node":
        ids_of(_Named(path, pd.DataFrame({"id": names}, dtype=object), sheet.rows, what, names), "id", faults)
    return Level(typed(sheet, list(frame.columns), reading.words, faults), names if what == "node" else (), sheet.place)


def _cell(value: Any) -> Any:
    missing = value is None or (isinstance(value, float) and np.isnan(value))
    return None if missing else str(value)


class _Named(Sheet):
    """Rows that are named by what they are, since the file has no rows."""

    def __init__(self, path: Path, frame: pd.DataFrame, rows: np.ndarray, what: str, names: list[str]) -> None:
        super().__init__(path, frame, rows)
        self.what, self.names = what, names

    def place(self, row: int | np.integer) -> str:
        return f"{self.path} {self.what} '{self.names[row]}'"
