"""Reads files of molecules and graphs that were damaged at random, one format a process, and prints the outcomes.

    python fuzz_graphs.py FORMAT FOLDER SEED COUNT

One line a mutation: `read`, `refused`, or the name of an exception that is not meant for people. A process that ends by
a signal prints fewer lines than it should.
"""

import pickle
import shutil
import signal
import sys
import traceback
import warnings
from collections import defaultdict
from pathlib import Path

import networkx as nx
import numpy as np
import scipy.sparse
import torch
from rdkit import Chem
from torch_geometric.data import Data

from quintet.core.errors import QuintetError
from quintet.graphs import GraphFiles, GraphNodes, Molecules

FORMATS = ("smiles.csv", "sdf", "graphml", "planetoid", "tu", "tables", "pt")
PATIENCE = 30  # seconds for one file
SMILES = [f"{'C' * (1 + n % 7)}{('O', 'N', 'c1ccccc1', '(=O)O', 'Cl')[n % 5]}" for n in range(40)]


def whole(kind: str, path: Path) -> None:
    """Files in good order: 40 molecules, a graph of 40 nodes, or 20 graphs."""
    if kind == "smiles.csv":
        rows = [f'{text},"molecule {n}",{n}.5' for n, text in enumerate(SMILES)]
        path.write_text("\n".join(["smiles,name,y", *rows, ""]))
    elif kind == "sdf":
        blocks = [Chem.MolToMolBlock(Chem.MolFromSmiles(text)) for text in SMILES]
        path.write_text("".join(f"{block}>  <y>\n{n}.5\n\n$$$$\n" for n, block in enumerate(blocks)))
    elif kind == "graphml":
        graph = nx.cycle_graph(40)
        nx.set_node_attributes(graph, {n: "ab"[n % 2] for n in graph}, "label")
        nx.set_node_attributes(graph, {n: n * 0.5 for n in graph}, "x")
        path.write_text("\n".join(nx.generate_graphml(graph)))
    elif kind == "pt":
        ends = torch.tensor([[0, 1], [1, 2]])
        torch.save([Data(x=torch.ones(3, 2) * n, edge_index=ends, y=torch.tensor([n % 2])) for n in range(20)], path)
    else:
        path.mkdir()
        {"planetoid": whole_planetoid, "tu": whole_tu, "tables": whole_tables}[kind](path)


def whole_planetoid(folder: Path) -> None:
    x, y = scipy.sparse.csr_matrix(np.eye(40, 9)), np.eye(2)[np.arange(40) % 2]
    graph = defaultdict(list, {n: [(n + 1) % 40] for n in range(40)})
    parts = {"x": x[:12], "y": y[:12], "allx": x[:28], "ally": y[:28], "tx": x[28:], "ty": y[28:], "graph": graph}
    for name, value in parts.items():
        (folder / f"ind.c.{name}").write_bytes(pickle.dumps(value, 2))
    (folder / "ind.c.test.index").write_text("\n".join(map(str, range(28, 40))))


def whole_tu(folder: Path) -> None:
    pairs = [(2 * n + 1, 2 * n + 2) for n in range(20)]
    (folder / "M_A.txt").write_text("".join(f"{a}, {b}\n{b}, {a}\n" for a, b in pairs))
    (folder / "M_graph_indicator.txt").write_text("".join(f"{n // 2 + 1}\n" for n in range(40)))
    (folder / "M_graph_labels.txt").write_text("".join(f"{n % 2}\n" for n in range(20)))
    (folder / "M_node_labels.txt").write_text("".join(f"{n % 3}\n" for n in range(40)))


def whole_tables(folder: Path) -> None:
    (folder / "nodes.csv").write_text("id,x,label\n" + "".join(f"n{n},{n / 4},{'ab'[n % 2]}\n" for n in range(40)))
    edges = "".join(f"n{n},n{(n + 1) % 40},{n % 5}.5\n" for n in range(40))
    (folder / "edges.csv").write_text("source,target,weight\n" + edges)


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """Flipped bytes, a piece cut out, doubled or overwritten, or an end that is missing."""
    found, kind = bytearray(content), int(draw.integers(5))
    if not found:
        return b"\x00"
    at, length = int(draw.integers(len(found))), int(draw.integers(1, 64))
    if kind == 0:
        for place in draw.integers(0, len(found), int(draw.integers(1, 20))):
            found[place] ^= int(draw.integers(1, 256))
    elif kind == 1:
        del found[at : at + length]
    elif kind == 2:
        found[at:at] = found[at : at + length]
    elif kind == 3:
        found[at : at + length] = draw.bytes(length)
    else:
        del found[at:]
    return bytes(found)


def outcome(kind: str, path: Path) -> str:
    """What becomes of reading files up to the graphs of training."""
    signal.alarm(PATIENCE)
    try:
        if kind in ("smiles.csv", "sdf"):
            data = Molecules(path)
        else:
            data = (GraphFiles if kind in ("tu", "pt") else GraphNodes)(path)
        data.setup("fit")
        data.remarks()
        return "read"
    except QuintetError as error:
        return "refused" if len(str(error).splitlines()) <= 2 else "QuintetErrorOfManyLines"
    except BaseException as error:
        traceback.print_exc()
        return type(error).__name__
    finally:
        signal.alarm(0)


def main(kind: str, folder: Path, seed: int, count: int) -> None:
    """Prints the outcome of `count` damaged files."""
    warnings.simplefilter("ignore")
    source, path = folder / f"whole.{kind}", folder / f"damaged.{kind}"
    whole(kind, source)
    assert outcome(kind, source) == "read", "the file in good order"
    for number in range(count):
        draw = np.random.default_rng([seed, number])
        if source.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(source, path)
            files = sorted(file for file in path.rglob("*") if file.is_file())
            file = files[int(draw.integers(len(files)))]
            file.write_bytes(damaged(file.read_bytes(), draw))
        else:
            path.write_bytes(damaged(source.read_bytes(), draw))
        print(outcome(kind, path), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
