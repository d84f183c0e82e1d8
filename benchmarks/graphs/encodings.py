"""CPU time and memory of encodings of graphs, of batches, of neighbourhoods and of the cache, beside PyG's.

    OMP_NUM_THREADS=1 python benchmarks/graphs/encodings.py [--graphs 1000] [--stored 100000] [--nodes 2708 20000]

Graphs are drawn: trees with two rings of 9 to 38 nodes, as molecules are; a large one grows by preferential
attachment. Each of PyG's transforms runs graph by graph in the same process. Then graphs enough for `--stored` are kept
with fields as molecules have them: bytes of each, seconds of a first and a second start, memory that the second takes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import AddRandomWalkPE
from torch_geometric.utils import barabasi_albert_graph

from quintet.core.data.seeded import Draw
from quintet.graphs.data.cache import cached
from quintet.graphs.data.encodings import encode
from quintet.graphs.data.neighbours import NeighbourSampler
from quintet.graphs.data.store import GraphStore

WANTED = {"random_walk": 20, "laplacian": 8, "heat_kernel": 16, "electrostatic": 10, "shortest_paths": 20}
FIELDS = {"node_categories": "nodes", "edge_categories": "edges", "y": "graphs"}


def seconds(work: Callable[[], object], rounds: int = 1) -> float:
    """Median CPU seconds."""
    taken = []
    for _ in range(rounds):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return sorted(taken)[len(taken) // 2]


def molecule(generator: torch.Generator) -> Data:
    nodes = int(torch.randint(9, 39, (1,), generator=generator))
    parents = [int(torch.randint(max(0, i - 3), i, (1,), generator=generator)) for i in range(1, nodes)]
    bonds = torch.tensor([[*range(1, nodes), nodes - 1, nodes - 2], [*parents, nodes - 6, nodes - 8]])
    edge_index = torch.cat([bonds, bonds.flip(0)], dim=1).unique(dim=1)
    return Data(
        edge_index=edge_index,
        node_categories=torch.randint(0, 9, (nodes, 9), generator=generator),
        edge_categories=torch.randint(0, 4, (edge_index.shape[1], 3), generator=generator),
        y=torch.zeros(1, 1),
        num_nodes=nodes,
    )


def of_molecules(graphs: list[Data], table: Table) -> None:
    store, walks = GraphStore.of(graphs, FIELDS), AddRandomWalkPE(20, "walks")
    pyg = seconds(lambda: [walks(graph.clone()) for graph in graphs])
    table.add_row("PyG AddRandomWalkPE(20)", f"{1e3 * pyg / len(graphs):.3f} ms a graph")
    for name, width in WANTED.items():
        taken = seconds(lambda: encode(store, {name: width}), rounds=3)  # noqa: B023
        table.add_row(f"{name} ({width})", f"{1e3 * taken / len(graphs):.3f} ms a graph")
    store = encode(GraphStore.of(graphs, FIELDS), {"random_walk": 20})
    chosen = torch.randperm(len(graphs))[:32].tolist()
    pyg = seconds(lambda: Batch.from_data_list([graphs[i] for i in chosen]), rounds=99)
    table.add_row("PyG Batch.from_data_list of 32", f"{1e3 * pyg:.3f} ms")
    table.add_row("GraphStore.take of 32", f"{1e3 * seconds(lambda: store.take(chosen), rounds=99):.3f} ms")


def of_a_large_one(nodes: int, table: Table) -> None:
    edge_index = barabasi_albert_graph(nodes, 2)
    store = GraphStore(torch.tensor([nodes]), torch.tensor([edge_index.shape[1]]), edge_index)
    for wanted in ({"random_walk": 20}, {"laplacian": 8}):
        taken = seconds(lambda: encode(store, wanted))  # noqa: B023
        table.add_row(f"{next(iter(wanted))} of {nodes} nodes, {edge_index.shape[1]} edges", f"{taken:.2f} s")


def of_neighbours(nodes: int, table: Table) -> None:
    edge_index = torch.randint(0, nodes, (2, 20 * nodes))
    store = GraphStore(torch.tensor([nodes]), torch.tensor([20 * nodes]), edge_index, {"x": torch.zeros(nodes, 32)})
    sampler = NeighbourSampler(store.narrow(), (15, 10, 5))
    chosen = [torch.randint(0, nodes, (512,)).tolist() for _ in range(5)]
    batches = iter([[Draw(node, node) for node in numbers] for numbers in chosen])
    taken = seconds(lambda: sampler.take(next(batches)), rounds=5)
    table.add_row(f"512 of {nodes} nodes with 15, 10, 5 neighbours", f"{1e3 * taken:.0f} ms")


def memory() -> float:
    """MB of this process that lie in no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def of_many(graphs: list[Data], total: int, table: Table) -> None:
    few = GraphStore.of(graphs, FIELDS)
    build = lambda: encode(few.select(torch.arange(total) % len(graphs)), {"random_walk": 20})  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QUINTET_CACHE"] = folder
        begin = time.perf_counter()
        size = cached("benchmark", build).bytes
        table.add_row(f"{total} graphs, first start", f"{time.perf_counter() - begin:.2f} s")
        table.add_row("bytes of a graph", f"{size / total:.0f}")
        before, begin = memory(), time.perf_counter()
        store = cached("benchmark", build)
        table.add_row("second start", f"{time.perf_counter() - begin:.2f} s, {memory() - before:.0f} MB")
        for chosen in torch.randperm(total).split(32)[:500]:
            store.take(chosen)
        table.add_row("after 500 batches of 32", f"{memory() - before:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--stored", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, nargs="*", default=[2708, 20_000])
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    graphs = [molecule(generator) for _ in range(arguments.graphs)]
    table = Table("what", "CPU time, one thread, or memory")
    of_molecules(graphs, table)
    for nodes in arguments.nodes:
        of_a_large_one(nodes, table)
    of_neighbours(1_000_000, table)
    of_many(graphs, arguments.stored, table)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
