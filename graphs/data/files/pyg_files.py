"""PyG's Data saved by torch.save: one, a list of them, or what InMemoryDataset saves. Nothing else is made of a file.

Fields that are read: edge_index; x and edge_attr, of floats (numbers) or whole numbers (codes); y; masks of nodes;
num_nodes. Whatever else the files hold is named and not read.
"""

import pickletools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from ....core.data.faults import Fault
from ....core.errors import QuintetError, first_line
from ....core.weights.archives import check_archive, check_pickle
from ....core.weights.safe_classes import safe_classes
from .graph_tables import GraphTables, Level

ENDINGS = (".pt", ".pth")
READ = ("edge_index", "x", "edge_attr", "y", "num_nodes", "train_mask", "val_mask", "test_mask")
NAMES = {
    "torch_geometric.data.data Data",
    "torch_geometric.data.data DataEdgeAttr",
    "torch_geometric.data.data DataTensorAttr",
    "torch_geometric.data.storage GlobalStorage",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor",
    "torch.serialization _get_layout",
    "collections OrderedDict",
    "collections defaultdict",
}
NAMES |= {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char")}
NAMES |= {"torch ByteStorage", "torch BoolStorage"}
CODES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def is_pyg_file(path: Path) -> bool:
    """Whether a file is torch.save's and names PyG's Data."""
    if not path.name.lower().endswith(ENDINGS) or not zipfile.is_zipfile(path):
        return False
    try:
        return any(name.startswith("torch_geometric.data.data Data") for name in _names(path))
    except QuintetError:
        return False


def read_pyg_file(path: Path) -> GraphTables:
    """The graphs of a file.

    Raises QuintetError where it holds anything but tensors and PyG's Data, or these do not agree.
    """
    graphs = [_fields(path, number, item) for number, item in enumerate(_graphs(path, load(path)))]
    return tables_of(graphs, path)


def load(path: Path) -> Any:
    """What torch.load makes of a file whose every name is one of PyG's Data or of a tensor."""
    if not zipfile.is_zipfile(path):
        raise QuintetError(f"{path} is no archive of torch.save; save the list of Data with torch.save(graphs, FILE)")
    check_archive(path)
    check_pickle(path)
    for name in _names(path):
        if name not in NAMES:
            dotted = name.replace(" ", ".")[:80]
            raise QuintetError(f"{path} was refused: it names {dotted}, which is no tensor and no Data of PyG")
    try:
        with safe_classes([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
            return torch.load(path, map_location="cpu", weights_only=True)
    # Whatever torch raises of a damaged file.
    except Exception as error:
        raise QuintetError(f"{path} cannot be read: it is damaged, or no list of PyG's Data") from error


def _names(path: Path) -> set[str]:
    """Every class and function that the pickle of an archive names. Raises QuintetError where it cannot be followed."""
    try:
        with zipfile.ZipFile(path) as archive:
            # Each entry by its own header: a name may stand twice in an archive.
            inside = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
            return {name for entry in inside for name in _named(path, archive.read(entry))}
    except (ValueError, zipfile.BadZipFile, KeyError, IndexError, UnicodeError, OSError, NotImplementedError) as error:
        raise QuintetError(f"{path} is damaged: {first_line(error)}") from None


def _named(path: Path, pickled: bytes) -> Iterator[str]:
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            raise QuintetError(f"{path} was refused: torch.save never writes its instruction {operation.name}")
        if operation.name == "GLOBAL":
            yield str(argument)


def _graphs(path: Path, loaded: Any) -> list[Mapping[str, Any]]:
    """The fields of each graph."""
    if isinstance(loaded, tuple) and len(loaded) in (2, 3) and isinstance(loaded[0], dict | Data):
        return _sliced(path, _mapping(loaded[0]), loaded[1])
    items = loaded if isinstance(loaded, list | tuple) else [loaded]
    if not items:
        raise QuintetError(f"{path} holds an empty list")
    for number, item in enumerate(items):
        if not isinstance(item, Data):
            raise QuintetError(f"{path} graph {number} is a {type(item).__name__}; a list of PyG's Data is meant")
    return [_mapping(item) for item in items]


def _mapping(item: Any) -> Mapping[str, Any]:
    """The fields of a Data, taken as they lie: no method of what a file made is called."""
    if isinstance(item, dict):
        return item
    store = item.__dict__.get("_store")
    fields = store.__dict__.get("_mapping") if type(store) is GlobalStorage else None
    return fields if isinstance(fields, dict) else {}


def _sliced(path: Path, fields: Mapping[str, Any], slices: Any) -> list[Mapping[str, Any]]:
    """The graphs of a dataset that saved them as one, with where each begins."""
    if slices is None:
        return [fields]
    if not isinstance(slices, dict) or not isinstance(slices.get("edge_index"), Tensor):
        raise QuintetError(f"{path} holds a dataset without its slices")
    count = len(slices["edge_index"]) - 1
    graphs: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, borders in slices.items():
        values = fields.get(name)
        if not isinstance(borders, Tensor) or len(borders) != count + 1 or values is None:
            raise QuintetError(f"{path} has slices of '{name}' that do not fit its {count} graphs")
        for number, (begin, end) in enumerate(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)):
            if name == "edge_index":
                graphs[number][name] = values[:, begin:end]
            else:
                graphs[number][name] = values[begin:end] if isinstance(values, Tensor) else values[begin]
    return graphs


def _fields(path: Path, number: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are read, checked. Raises QuintetError for one that is not what it is called."""
    where = f"{path} graph {number}"
    edges = fields.get("edge_index")
    edges = torch.zeros(2, 0, dtype=torch.long) if edges is None else edges
    _check_tensor(where, "edge_index", edges)
    if edges.dim() != 2 or len(edges) != 2 or edges.dtype not in CODES:
        what = f"{tuple(edges.shape)} of {str(edges.dtype).removeprefix('torch.')}"
        raise QuintetError(f"{where} has an edge_index of {what}; (2, edges) of whole numbers is meant")
    nodes = _node_count(where, fields, edges)
    found: dict[str, Any] = {"edge_index": edges.long(), "num_nodes": nodes}
    for name, rows in (("x", nodes), ("edge_attr", edges.shape[1])):
        if (values := fields.get(name)) is None:
            continue
        _check_tensor(where, name, values)
        if values.dim() not in (1, 2) or len(values) != rows:
            raise QuintetError(f"{where} has {name} of {tuple(values.shape)}; {rows} rows of numbers are meant")
        found[name] = values.reshape(rows, -1)
    for name in ("y", "train_mask", "val_mask", "test_mask"):
        if (values := fields.get(name)) is not None:
            values = torch.tensor([values]) if isinstance(values, int | float) else values
            _check_tensor(where, name, values)
            found[name] = values
    found["unread"] = [name for name in fields if name not in READ]
    return found


def _node_count(where: str, fields: Mapping[str, Any], edges: Tensor) -> int:
    count, features = fields.get("num_nodes"), fields.get("x")
    if type(count) is int and 0 <= count < 2**31:
        return count
    if isinstance(features, Tensor) and features.dim():
        return len(features)
    # One far number would ask for as many rows.
    most = int(edges.max()) + 1 if edges.numel() else 0
    if most > 1_000_000 + 100 * edges.numel():
        raise QuintetError(f"{where} has an edge to node {most - 1} and says nothing of its nodes; give num_nodes")
    return max(most, 0)


def _check_tensor(where: str, name: str, values: Any) -> None:
    """Raises QuintetError for anything but numbers that lie in memory one beside the other."""
    plain = type(values) is Tensor and values.layout == torch.strided and values.device.type == "cpu"
    if not plain or values.is_complex():
        raise QuintetError(f"{where} has {name} that is no tensor of numbers")
    if values.numel() * values.element_size() > values.untyped_storage().nbytes():
        raise QuintetError(f"{where} has {name} of {tuple(values.shape)}, more numbers than it stores")


def tables_of(graphs: Sequence[dict[str, Any]], path: Path) -> GraphTables:
    """Checked fields of graphs as tables."""
    counts = [graph["num_nodes"] for graph in graphs]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total, faults = int(starts[-1]), []
    ends, kept, of_edge = _ends(graphs, starts, path, faults)
    nodes = _columns(graphs, "x", "x", total, path)
    edges = _columns(graphs, "edge_attr", "edge", sum(graph["edge_index"].shape[1] for graph in graphs), path)
    level, suggested, columns = _answers(graphs, counts, path)
    tables = {"nodes": nodes, "graphs": pd.DataFrame(index=range(len(graphs)))}
    tables[level] = tables[level].join(columns)
    graph_of = np.repeat(np.arange(len(graphs)), counts)
    unread = sorted({str(name)[:30] for graph in graphs for name in graph["unread"]})
    for number in np.flatnonzero(np.diff(starts) == 0):
        faults.append(Fault(f"{path} graph {number}", "has no node", "leave it out"))
    return GraphTables(
        where=str(path),
        nodes=Level(
            tables["nodes"],
            [str(row - starts[graph_of[row]]) for row in range(total)],
            lambda row: f"{path} graph {graph_of[row]} node {row - starts[graph_of[row]]}",
        ),
        edges=Level(
            edges.iloc[kept].reset_index(drop=True),
            place=lambda row: f"{path} graph {of_edge[kept[row]]} edge {kept[row]}",
        ),
        ends=ends,
        graphs=Level(tables["graphs"], list(map(str, range(len(graphs)))), lambda row: f"{path} graph {row}"),
        graph_of=graph_of,
        suggested=suggested,
        remarks=[f"not read of PyG's Data: {', '.join(unread[:10])}"] if unread else [],
        faults=faults,
    )


def _ends(
    graphs: Sequence[dict[str, Any]], starts: np.ndarray, path: Path, faults: list[Fault]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    of_edge = np.repeat(np.arange(len(graphs)), [graph["edge_index"].shape[1] for graph in graphs])
    local = np.concatenate([graph["edge_index"].numpy() for graph in graphs], axis=1)
    counts = np.diff(starts)[of_edge]
    wrong = ((local < 0) | (local >= counts)).any(axis=0)
    for row in np.flatnonzero(wrong):
        number = of_edge[row]
        what = f"has an edge from {local[0, row]} to {local[1, row]}; its nodes are 0 to {counts[row] - 1}"
        faults.append(Fault(f"{path} graph {number}", what, "correct edge_index"))
    kept = np.flatnonzero(~wrong)
    return (local + starts[of_edge])[:, kept], kept, of_edge


def _columns(graphs: Sequence[dict[str, Any]], name: str, title: str, rows: int, path: Path) -> pd.DataFrame:
    """A field of all graphs as columns: codes become words, floats numbers."""
    having = [number for number, graph in enumerate(graphs) if name in graph]
    if not having:
        return pd.DataFrame(index=range(rows))
    first = graphs[having[0]][name]
    for number, graph in enumerate(graphs):
        if name not in graph:
            raise QuintetError(f"{path} graph {number} has no {name}, graph {having[0]} has; give all the same fields")
        values = graph[name]
        if values.shape[1] != first.shape[1] or values.is_floating_point() != first.is_floating_point():
            told = f"{values.shape[1]} columns of {str(values.dtype).removeprefix('torch.')} in {name}"
            raise QuintetError(f"{path} graph {number} has {told}, other than graph {having[0]}; write them alike")
    values = torch.cat([graph[name] for graph in graphs])
    titles = [f"{title} {number}" for number in range(values.shape[1])]
    if values.is_floating_point():
        return pd.DataFrame(values.double().numpy(), columns=titles)
    return pd.DataFrame(values.numpy(), columns=titles).astype(str).astype(object)


def _answers(
    graphs: Sequence[dict[str, Any]], counts: Sequence[int], path: Path
) -> tuple[str, dict[str, list[str]], pd.DataFrame]:
    """Whose `y` is, what to suggest of it, and it and the masks as columns."""
    level = "nodes" if len(graphs) == 1 and _is_of_nodes(graphs[0], counts[0]) else "graphs"
    rows = counts[0] if level == "nodes" else len(graphs)
    columns: dict[str, Any] = {}
    suggested: dict[str, list[str]] = {}
    answers = [graph.get("y") for graph in graphs]
    if all(answer is not None for answer in answers):
        values = [answer.reshape(rows if level == "nodes" else 1, -1) for answer in answers]
        if len({value.shape[1] for value in values}) > 1:
            raise QuintetError(f"{path} has graphs with several lengths of y; y of one row a graph is meant")
        table = torch.cat(values)
        codes = not table.is_floating_point() and table.shape[1] == 1
        titles = ["y"] if table.shape[1] == 1 else [f"y {number}" for number in range(table.shape[1])]
        for title, column in zip(titles, table.T, strict=True):
            classes = [str(code) if code >= 0 else None for code in column.tolist()]
            columns[title] = pd.Series(classes, dtype=object) if codes else column.double()
        suggested = {"label": titles} if codes else {"targets": titles}
    if level == "nodes" and graphs[0].keys() >= {"train_mask", "val_mask"}:
        columns["split"] = _parts(graphs[0], rows, path)
        suggested["split"] = ["split"]
    return level, suggested, pd.DataFrame(columns, index=range(rows))


def _is_of_nodes(graph: Mapping[str, Any], nodes: int) -> bool:
    answer = graph.get("y")
    return "train_mask" in graph or (answer is not None and answer.dim() > 0 and len(answer) == nodes and nodes > 1)


def _parts(graph: Mapping[str, Any], rows: int, path: Path) -> pd.Series:
    parts = pd.Series([None] * rows, dtype=object)
    for part in ("train", "val", "test"):
        if (mask := graph.get(f"{part}_mask")) is None:
            continue
        mask = mask[:, 0] if mask.dim() == 2 and mask.shape[1] else mask  # the first of several splits
        if mask.dtype != torch.bool or mask.shape != (rows,):
            raise QuintetError(f"{path} has a {part}_mask that is not one truth value for each of {rows} nodes")
        if (taken := parts[mask.numpy()].dropna()).any():
            raise QuintetError(f"{path} has nodes in two of its masks, e.g. node {taken.index[0]}")
        parts[mask.numpy()] = part
    return parts


def tables_of_data(graphs: Sequence[Data], path: Path, parts: Mapping[str, Tensor] | None = None) -> GraphTables:
    """Graphs of PyG as tables, with the rows of each part where they are known.

    Args:
        graphs: in memory.
        path: what to call them in a message.
        parts: numbers of graphs, or of the nodes of one, of "train", "val" and "test".
    """
    tables = tables_of([_fields(path, number, _mapping(graph)) for number, graph in enumerate(graphs)], path)
    if parts:
        level = tables.graphs if len(graphs) > 1 else tables.nodes
        column = pd.Series([None] * len(level), dtype=object)
        for part, rows in parts.items():
            column[rows.numpy()] = part
        level.columns = level.columns.assign(split=column)
        tables.suggested["split"] = ["split"]
    return tables
