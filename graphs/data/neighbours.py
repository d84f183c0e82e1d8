"""Nodes of one large graph in batches, each with the neighbourhood that its prediction needs.

A network of k layers sees of a node what lies within k edges of it. A batch therefore holds some nodes, the seeds, and
of their neighbours as many as are asked for, layer by layer; the rest of the graph stays where it is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch

from ...core.data.seeded import Draw
from ...core.errors import QuintetError
from .store import GraphStore, narrowed, wide


class SeedNodes(Dataset):
    """Nodes that a stage trains on or evaluates, one a sample: its number, with the seed of the draw in training.

    Args:
        nodes: their numbers.
    """

    def __init__(self, nodes: Int[Tensor, " nodes"]) -> None:
        self.nodes = nodes.long()

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, draw: Draw | int) -> Draw | int:
        if isinstance(draw, Draw):
            return Draw(int(self.nodes[draw.index]), draw.seed)
        return int(self.nodes[draw])


class NeighbourSampler:
    """Batches of seed nodes with a sample of their neighbourhood, or with all of it.

    From the seeds outwards, each fanout adds to the nodes found last up to that many of the edges that lead to them,
    drawn without replacement, each set as likely as any other, and the nodes these come from; -1 adds all. Where every
    fanout is -1, the seeds' outputs of as many message-passing layers are those of the whole graph.

    A batch is PyG's `Batch` of one graph: the seeds first, in their order, then the others as they were found. It has
    the store's fields of nodes and edges (a graph's own come along, pairs do not), and

        seeds (N,) bool     nodes that were asked for         node_ids (N,)  number of each node in the whole graph
        edge_ids (E,)       number of each edge in the whole graph

    A layer that divides by degrees, such as graph convolution, sees those of the batch.

    Args:
        store: of one graph.
        fanouts: edges to draw for each node, from the seeds outwards: as many as the network has layers.

    Raises:
        QuintetError: not one graph, or fanouts of neither -1 nor 1 or more.

    Paper: "Inductive Representation Learning on Large Graphs" (arXiv 1706.02216).
    """

    def __init__(self, store: GraphStore, fanouts: Sequence[int] = (15, 10, 5)) -> None:
        if len(store) != 1:
            raise QuintetError(f"neighbours are drawn in one graph, and these are {len(store)}")
        if not fanouts or any(fanout < 1 and fanout != -1 for fanout in fanouts):
            raise QuintetError(f"data.fanouts is {list(fanouts)}; give numbers from 1, or -1 for all, one a layer")
        self.store, self.fanouts = store, tuple(fanouts)
        sources, targets = store.edge_index
        nodes, order = store.total("nodes"), targets.argsort(stable=True)
        self._edges = narrowed(order, [torch.int32])  # numbers of edges, by the node they lead to
        self._sources = narrowed(sources[order], [torch.int32])
        self._counts = torch.bincount(targets, minlength=nodes)
        self._begins = self._counts.cumsum(0) - self._counts
        self._places = torch.full((nodes,), -1)  # of nodes in the batch that is being made

    def take(self, samples: Sequence[Draw | int]) -> Batch:
        """The batch of samples of `SeedNodes`: draws get a sample of their neighbourhood, plain numbers all of it.

        What is drawn follows from the draws: the same in whatever process, another in each epoch.
        """
        draws = [sample for sample in samples if isinstance(sample, Draw)]
        # Several processes get as many samples each, for which the last ones may be the first again.
        nodes = dict.fromkeys(sample.index if isinstance(sample, Draw) else sample for sample in samples)
        seeds = torch.tensor(list(nodes))
        generator = torch.Generator().manual_seed(sum(draw.seed for draw in draws) % 2**63)
        return self.sample(seeds, self.fanouts if draws else (-1,) * len(self.fanouts), generator)

    def sample(
        self, seeds: Int[Tensor, " seeds"], fanouts: Sequence[int], generator: torch.Generator | None = None
    ) -> Batch:
        """Seeds, each once, with neighbourhoods of so many edges a node and hop."""
        hops, slots = [seeds.long()], []
        found = self._enter(hops[0], 0)
        try:
            for fanout in fanouts:
                slots.append(self._edges_to(hops[-1], fanout, generator))
                hops.append(self._new(self._sources[slots[-1]].long()))
                found = self._enter(hops[-1], found)
            return self._batch(torch.cat(hops), torch.cat(slots), len(seeds))
        finally:
            for nodes in hops:
                self._places[nodes] = -1

    def _enter(self, nodes: Int[Tensor, " nodes"], begin: int) -> int:
        """Gives nodes the next places of the batch; returns how many are taken."""
        self._places[nodes] = torch.arange(begin, begin + len(nodes))
        return begin + len(nodes)

    def _new(self, nodes: Int[Tensor, " nodes"]) -> Int[Tensor, " new"]:
        """Those nodes that the batch does not have yet, each once."""
        return nodes[self._places[nodes] < 0].unique()

    def _edges_to(
        self, nodes: Int[Tensor, " nodes"], fanout: int, generator: torch.Generator | None
    ) -> Int[Tensor, " edges"]:
        """Slots, in the order of `_edges`, of edges that lead to nodes."""
        counts = self._counts[nodes]
        all_of_them = (counts <= fanout) | (fanout == -1)
        few, many = nodes[all_of_them], nodes[~all_of_them]
        ends = self._counts[few].cumsum(0)
        offsets = (self._begins[few] - ends + self._counts[few]).repeat_interleave(self._counts[few])
        slots = [offsets + torch.arange(len(offsets))]
        if len(many):
            chosen = _subsets(self._counts[many], fanout, generator)
            slots.append((self._begins[many][:, None] + chosen).flatten())
        return torch.cat(slots)

    def _batch(self, nodes: Int[Tensor, " nodes"], slots: Int[Tensor, " edges"], seeds: int) -> Batch:
        edges, sources = self._edges[slots].long(), self._sources[slots].long()
        targets = self.store.edge_index[1, edges].long()
        fields: dict[str, Any] = {name: wide(values[nodes]) for name, values in self.store.nodes.items()}
        fields |= {name: wide(values[edges]) for name, values in self.store.edges.items()}
        fields |= {name: wide(values) for name, values in self.store.graphs.items()}
        return Batch(
            edge_index=torch.stack([self._places[sources], self._places[targets]]),
            batch=torch.zeros_like(nodes),
            ptr=torch.tensor([0, len(nodes)]),
            seeds=torch.arange(len(nodes)) < seeds,
            node_ids=nodes,
            edge_ids=edges,
            **fields,
        )


def _subsets(counts: Int[Tensor, " rows"], size: int, generator: torch.Generator | None) -> Int[Tensor, "rows {size}"]:
    """Of each row a set of `size` different numbers below its count, each set as likely as any other.

    Floyd's way, in work that does not grow with the counts: the i-th number is drawn from the first count - size + i
    + 1, and is the last of these where the drawn one was taken before.

    Paper: "Programming pearls: a sample of brilliance" (doi 10.1145/30401.315746).
    """
    chosen = torch.full((len(counts), size), -1)
    for i in range(size):
        last = counts - size + i
        uniform = torch.rand(len(counts), generator=generator, dtype=torch.float64)
        drawn = (uniform * (last + 1)).long().clamp(max=last)
        taken = (chosen[:, :i] == drawn[:, None]).any(dim=1)
        chosen[:, i] = torch.where(taken, last, drawn)
    return chosen
