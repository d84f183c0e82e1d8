"""Processor time of an epoch of GPS beside PyG's own GPSConv, one thread, the two in turns.

    OMP_NUM_THREADS=1 python benchmarks/graphs/gps_step.py micro_ZINC.csv [--graphs 320] [--rounds 5] [--dropout 0.5]

The network is the published one for ZINC: 10 layers of GINE and attention of 4 heads, dim 64, random walks of 20 steps;
424 thousand parameters. Molecules have 9 to 38 atoms, a batch 32 of them. An epoch reads batches, each side in its own
way (PyG's DataLoader; a store, whose batches are of molecules of like size), and takes steps: forward, absolute error,
backward, AdamW (fused, as quintet's tasks have it on a CPU; PyG's examples take torch's default). `--dropout` is that
of the attention weights, 0.5 in the published configuration.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINEConv, GPSConv, global_add_pool

from quintet.core.weights.registry import count_parameters, create_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from graphs.molecules import read, store_of
from turns import take_turns

DIM, DEPTH, HEADS, WALKS, BATCH = 64, 10, 4, 28, 32


class PyGNetwork(nn.Module):
    """GPS as PyG's own example builds it."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.nodes, self.edges = nn.Embedding(29, DIM - WALKS), nn.Embedding(5, DIM)
        self.walk_norm, self.walks = nn.BatchNorm1d(20), nn.Linear(20, WALKS)
        self.convs = nn.ModuleList(self.layer(dropout) for _ in range(DEPTH))
        self.head = nn.Sequential(
            nn.Linear(DIM, DIM // 2), nn.ReLU(), nn.Linear(DIM // 2, DIM // 4), nn.ReLU(), nn.Linear(DIM // 4, 1)
        )

    def layer(self, dropout: float) -> GPSConv:
        mlp = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
        return GPSConv(DIM, GINEConv(mlp), heads=HEADS, attn_kwargs={"dropout": dropout})

    def forward(self, batch: Batch) -> Tensor:
        walks = self.walks(self.walk_norm(batch.random_walk))
        x, edges = (
            torch.cat([self.nodes(batch.node_categories[:, 0]), walks], 1),
            self.edges(batch.edge_categories[:, 0]),
        )
        for conv in self.convs:
            x = conv(x, batch.edge_index, batch.batch, edge_attr=edges)
        return self.head(global_add_pool(x, batch.batch))


def epoch(network: nn.Module, batches: Callable[[], Iterable[Batch]], **options: bool) -> Callable[[], None]:
    """One epoch of training as a function without arguments; options are the optimizer's."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-5, **options)

    def run() -> None:
        for batch in batches():
            optimizer.zero_grad()
            (network(batch) - batch.y).abs().mean().backward()
            optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--graphs", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    graphs = read(options.path)[: options.graphs]
    store = store_of(graphs)
    order = store.node_counts.argsort().split(BATCH)
    loader = DataLoader(graphs, batch_size=BATCH, shuffle=True)
    ours = create_model("graphs/gps_zinc", attention_dropout=options.dropout)
    theirs = PyGNetwork(options.dropout)
    sizes = sorted(store.node_counts.tolist())
    print(f"{len(graphs)} molecules of {sizes[0]} to {sizes[-1]} atoms, {sum(sizes) / len(sizes):.1f} in the mean")
    print(f"parameters: {count_parameters(ours):,} and {count_parameters(theirs):,}")
    sides = [
        epoch(ours, lambda: (store.take(order[i]) for i in torch.randperm(len(order))), fused=True),
        epoch(theirs, lambda: loader),
    ]
    times = take_turns(sides, options.rounds, warm_up=1)
    medians = [statistics.median(processor for _, processor in side) / len(graphs) for side in times]
    ratio = statistics.median(a[1] / b[1] for a, b in zip(*times))
    print(f"processor milliseconds a molecule an epoch: ours {medians[0]:.2f}, PyG {medians[1]:.2f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
