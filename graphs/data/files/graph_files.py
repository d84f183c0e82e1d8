"""Which reader reads a file or a folder of the user's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ....core.errors import QuintetError
from . import planetoid, pyg_files, tu_files
from .edge_lists import is_edge_list, read_edge_list
from .graph_tables import GraphTables
from .named_sets import is_named, read_named
from .networkx_files import is_xml_graph, read_xml_graph
from .table_graphs import Reading as Reading
from .table_graphs import read_tables, tables_in
from .tables import exists

FORMS = "nodes.csv + edges.csv (+ graphs.csv), GraphML, GEXF, an edge list, Planetoid's or TU's files, PyG's Data (.pt)"


@dataclass(frozen=True)
class Form:
    """A form of files.

    Args:
        holds: whether a path is of it.
        read: its graphs, of a path, the name of one of several, and how tables are read.
        many: whether a path of it holds many graphs; None where only reading tells.
    """

    holds: Callable[[Path], bool]
    read: Callable[[Path, str | None, Reading], GraphTables]
    many: Callable[[Path], bool | None]


FORMS_READ = (
    Form(
        lambda path: path.is_dir() and bool(planetoid.names_in(path)),
        lambda path, name, _: planetoid.read_planetoid(path, _named(path, name, planetoid.names_in(path))),
        lambda _: False,
    ),
    Form(
        lambda path: path.is_dir() and bool(tu_files.names_in(path)),
        lambda path, name, _: tu_files.read_tu(path, _named(path, name, tu_files.names_in(path))),
        lambda _: True,
    ),
    Form(
        lambda path: path.is_dir() and "edges" in tables_in(path),
        lambda path, _, reading: read_tables(tables_in(path), reading),
        lambda path: True if "graphs" in tables_in(path) else None,
    ),
    Form(
        lambda path: path.is_file() and is_xml_graph(path),
        lambda path, _, reading: read_xml_graph(path, reading),
        lambda _: False,
    ),
    Form(
        lambda path: path.is_file() and is_edge_list(path),
        lambda path, _, reading: read_edge_list(path, reading),
        lambda _: False,
    ),
    Form(
        lambda path: path.is_file() and pyg_files.is_pyg_file(path),
        lambda path, *_: pyg_files.read_pyg_file(path),
        lambda _: None,
    ),
)


def form_of(path: Path) -> Form | None:
    """How a path is read; None where it is of no form that is read here."""
    return next((form for form in FORMS_READ if form.holds(path)), None)


def read_graphs(root: str, name: str | None, reading: Reading) -> GraphTables:
    """The graphs of a file or folder, or of a published set by its name.

    Args:
        root: what the user gave.
        name: which of several graphs of a folder.
        reading: how tables are read.

    Raises:
        QuintetError: where there is nothing there, or it is in no form that is read here.
    """
    path = Path(root)
    there = exists(path)
    if is_named(root) and not there:
        return read_named(root, read_graphs, reading)
    if not there:
        raise QuintetError(f"no file or folder {path}")
    if form := form_of(path):
        return form.read(path, name, reading)
    if path.name.lower().endswith(pyg_files.ENDINGS):
        return pyg_files.read_pyg_file(path)  # which says what is wrong with it
    if path.is_dir() and (files := tables_in(path)):
        names = ", ".join(file.name for file in files.values())
        raise QuintetError(f"{path} has {names} and no table of edges; add edges.csv with the columns source, target")
    if path.is_dir() and (lists := sorted(path.glob("*_A.txt"))):
        owner = lists[0].name.removesuffix("_A.txt") + "_graph_indicator.txt"
        raise QuintetError(f"{path} has {lists[0].name} and no {owner}, which says of which graph each node is; add it")
    raise QuintetError(f"{path} holds no graphs in a form that is read here: {FORMS}")


def holds_one_graph(path: Path) -> bool:
    """Whether a path surely holds one graph, as tables without graphs.csv do unless nodes.csv tells graphs apart."""
    form = form_of(path)
    return form is not None and not _many(form, path)


def holds_many_graphs(path: Path) -> bool:
    """Whether a path holds many graphs."""
    form = form_of(path)
    return form is not None and _many(form, path)


def _many(form: Form, path: Path) -> bool:
    many = form.many(path)
    return len(form.read(path, None, Reading()).graphs) > 1 if many is None else many


def _named(folder: Path, name: str | None, names: list[str]) -> str:
    if name is None and len(names) > 1:
        raise QuintetError(f"{folder} holds several graphs; choose one with data.name: {', '.join(names)}")
    alike = {known.lower(): known for known in names}
    if name is not None and name.lower() not in alike:
        raise QuintetError(f"{folder} holds no graph called {name}; it has {', '.join(names)}")
    return names[0] if name is None else alike[name.lower()]
