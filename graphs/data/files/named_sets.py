"""Published sets by name: planetoid:Cora, tu:MUTAG, ogb:ogbg-molhiv, fetched by PyG or ogb onto the user's machine.

PyG's classes fetch the raw files alone; these are then read here, since PyG would run the pickles among them.
"""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ....core.errors import QuintetError, first_line
from ....core.weights.pretrained import cache_folder
from .graph_tables import GraphTables
from .table_graphs import Reading

Reader = Callable[[str, str | None, Reading], GraphTables]
KINDS = ("planetoid", "tu", "ogb")


def is_named(root: str) -> bool:
    return re.match(r"[a-z]+:(?![/\\])", root) is not None


def read_named(root: str, read: Reader, reading: Reading) -> GraphTables:
    """The graphs of a published set.

    Args:
        root: KIND:NAME.
        read: reads a folder of raw files.
        reading: how tables are read.

    Raises QuintetError where the kind or the name is unknown, or the files cannot be fetched.
    """
    kind, _, name = root.partition(":")
    if kind not in KINDS:
        raise QuintetError(f"data.root={root}: published sets are {', '.join(f'{kind}:NAME' for kind in KINDS)}")
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise QuintetError(f"data.root={root}: {name or 'nothing'} is no name of a set")
    folder = cache_folder() / "graphs" / "sets" / kind
    if kind == "ogb":
        return _ogb(name, folder)
    fetch = {"planetoid": _planetoid, "tu": _tu}[kind]
    with _fetching(root):
        raw = fetch(name, folder)
    return read(str(raw), name, reading)


class _fetching:
    """What a library complains of while it fetches is one line."""

    def __init__(self, root: str) -> None:
        self.root = root

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, QuintetError):
            raise QuintetError(
                f"data.root={self.root} cannot be fetched: {first_line(error)}; where there is no network, fetch it "
                "elsewhere and give the folder of its files"
            ) from error


def _planetoid(name: str, folder: Path) -> Path:
    datasets = import_module("torch_geometric.datasets")

    class Raw(datasets.Planetoid):
        """Fetches, and makes nothing of what it fetched."""

        def process(self) -> None:
            return None

        def load(self, *_: object, **__: object) -> None:
            return None

    return Path(Raw(str(folder), name).raw_dir)


def _tu(name: str, folder: Path) -> Path:
    datasets = import_module("torch_geometric.datasets")

    class Raw(datasets.TUDataset):
        """Fetches, and makes nothing of what it fetched."""

        def __init__(self) -> None:
            self.name, self.cleaned, self.root = name, False, str(folder)

    raw = Raw()
    path = Path(raw.raw_dir)
    if not (path / f"{name}_A.txt").is_file():
        raw.download()
    return path


def _ogb(name: str, folder: Path) -> GraphTables:
    from . import pyg_files

    try:
        kind = "graphproppred" if name.startswith("ogbg-") else "nodeproppred"
        library = import_module(f"ogb.{kind}")
    except ImportError:
        raise QuintetError(f"data.root=ogb:{name} needs the package ogb: pip install ogb") from None
    with _fetching(f"ogb:{name}"):
        made = library.PygGraphPropPredDataset if kind == "graphproppred" else library.PygNodePropPredDataset
        dataset = made(name=name, root=str(folder))
        graphs = [dataset[number] for number in range(len(dataset))]
        parts = {"train": "train", "valid": "val", "test": "test"}
        split = {parts[part]: rows for part, rows in dataset.get_idx_split().items()}
    return pyg_files.tables_of_data(graphs, Path(f"ogb:{name}"), split)
