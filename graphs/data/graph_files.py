"""Which reader reads a file or a folder of the user's."""

from pathlib import Path

from ...core.errors import QuintetError
from .graph_tables import GraphTables
from .planetoid import names_in, read_planetoid
from .table_graphs import Reading as Reading
from .table_graphs import read_tables, tables_in

FORMS = "nodes.csv + edges.csv (+ graphs.csv), Planetoid's ind.NAME.*"


def form_of(path: Path) -> str | None:
    """What a path holds: "planetoid", "tables"; None for anything else."""
    if path.is_dir():
        if names_in(path):
            return "planetoid"
        return "tables" if "edges" in tables_in(path) else None
    return None


def read_graphs(root: str | Path, name: str | None, reading: Reading) -> GraphTables:
    """The graphs of a file or folder.

    Args:
        root: what the user gave.
        name: which of several graphs of a folder.
        reading: how tables are read.

    Raises:
        QuintetError: where there is nothing there, or it is in no form that is read here.
    """
    path = Path(root)
    if not path.exists():
        raise QuintetError(f"no file or folder {path}")
    form = form_of(path)
    if form == "planetoid":
        return read_planetoid(path, _named(path, name))
    if form == "tables":
        return read_tables(tables_in(path), reading)
    raise QuintetError(f"{path} holds no graphs in a form that is read here: {FORMS}")


def _named(folder: Path, name: str | None) -> str:
    names = names_in(folder)
    if name is None and len(names) > 1:
        raise QuintetError(f"{folder} holds several graphs; choose one with data.name: {', '.join(names)}")
    if name is not None and name.lower() not in names:
        raise QuintetError(f"{folder} holds no graph called {name}; it has {', '.join(names)}")
    return names[0] if name is None else name.lower()


def holds_one_graph(path: Path) -> bool:
    """Whether a path holds one graph. Raises QuintetError where it is of a form that is read here and cannot be."""
    form = form_of(path)
    return form == "planetoid" or (form == "tables" and "graphs" not in tables_in(path))
