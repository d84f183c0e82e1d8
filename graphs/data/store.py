"""Graphs one after the other in few large tensors, from which any of them become a batch without a loop over graphs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

from ...core.data.seeded import Draw
from ...core.errors import QuintetError

LEVELS = ("nodes", "edges", "pairs", "graphs")


class Rows(NamedTuple):
    """Which rows of a level's tensors belong to the graphs asked for, and how many each graph has."""

    index: Int[Tensor, " rows"]
    counts: Int[Tensor, " graphs"]


@dataclass
class GraphStore(Dataset):
    """All graphs of a part, level by level: what belongs to nodes, edges, ordered pairs of nodes, whole graphs.

    Item i is the number i itself: a loader's samples are numbers, and `take` makes the batch of them.

    Args:
        node_counts: nodes of each graph.
        edge_counts: edges of each graph; each direction counts.
        edge_index: source and target of every edge, counted within its graph.
        nodes: tensors (all nodes, ...) by name: node_categories, node_values, encodings, positions, labels.
        edges: tensors (all edges, ...): edge_categories, edge_values.
        pairs: tensors (sum of squared node counts, ...), row after row of each graph's matrix: shortest_paths.
        graphs: tensors (graphs, ...): graph_values, y, row.
    """

    node_counts: Int[Tensor, " graphs"]
    edge_counts: Int[Tensor, " graphs"]
    edge_index: Int[Tensor, "2 edges"]
    nodes: dict[str, Tensor] = field(default_factory=dict)
    edges: dict[str, Tensor] = field(default_factory=dict)
    pairs: dict[str, Tensor] = field(default_factory=dict)
    graphs: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._starts = {level: _starts(counts) for level, counts in self._counts().items()}
        for level, starts in self._starts.items():
            for name, values in getattr(self, level).items():
                if len(values) != starts[-1]:
                    raise QuintetError(f"{name} has {len(values)} rows for {int(starts[-1])} {level}")

    def _counts(self) -> dict[str, Tensor]:
        nodes = self.node_counts
        return {"nodes": nodes, "edges": self.edge_counts, "pairs": nodes**2, "graphs": torch.ones_like(nodes)}

    def __len__(self) -> int:
        return len(self.node_counts)

    def __getitem__(self, index: int | Draw) -> int:
        return index.index if isinstance(index, Draw) else index

    def rows(self, level: str, graphs: Int[Tensor, " taken"]) -> Rows:
        """The rows of a level that belong to some graphs, in their order."""
        starts = self._starts[level]
        counts = starts[graphs + 1] - starts[graphs]
        offsets = (starts[graphs] - _starts(counts)[:-1]).repeat_interleave(counts)
        return Rows(torch.arange(len(offsets)) + offsets, counts)

    def take(self, graphs: Sequence[int] | Int[Tensor, " taken"]) -> Batch:
        """These graphs as PyG's batch: nodes and edges one after the other, `batch` and `ptr` say whose they are."""
        graphs = torch.as_tensor(graphs, dtype=torch.long)
        rows = {level: self.rows(level, graphs) for level in LEVELS}
        fields = {name: values[rows[level].index] for level in LEVELS for name, values in getattr(self, level).items()}
        borders = _starts(rows["nodes"].counts)
        shift = borders[:-1].repeat_interleave(rows["edges"].counts)
        return Batch(
            edge_index=self.edge_index[:, rows["edges"].index] + shift,
            batch=torch.arange(len(graphs)).repeat_interleave(rows["nodes"].counts),
            ptr=borders,
            **fields,
        )

    def select(self, graphs: Sequence[int] | Int[Tensor, " taken"]) -> "GraphStore":
        """A store of some of the graphs."""
        graphs = torch.as_tensor(graphs, dtype=torch.long)
        rows = {level: self.rows(level, graphs) for level in LEVELS}
        taken = {
            level: {name: values[rows[level].index] for name, values in getattr(self, level).items()}
            for level in LEVELS
        }
        edge_index = self.edge_index[:, rows["edges"].index]
        return GraphStore(self.node_counts[graphs], self.edge_counts[graphs], edge_index, **taken)

    def graph(self, index: int) -> Data:
        """One graph as PyG's data."""
        batch = self.take([index])
        return Data(**{name: values for name, values in batch.to_dict().items() if name not in ("batch", "ptr")})

    @classmethod
    def of(cls, graphs: Iterable[Data], levels: Mapping[str, str]) -> "GraphStore":
        """PyG's data as a store.

        Args:
            graphs: all with the same fields.
            levels: of each field to keep, e.g. {"node_values": "nodes", "y": "graphs"}.
        """
        graphs = list(graphs)
        if not graphs:
            raise QuintetError("there is no graph; give at least one")
        stored: dict[str, dict[str, Tensor]] = {level: {} for level in LEVELS}
        for name, level in levels.items():
            stored[level][name] = torch.cat([getattr(graph, name) for graph in graphs])
        return cls(
            torch.tensor([graph.num_nodes for graph in graphs]),
            torch.tensor([graph.edge_index.shape[1] for graph in graphs]),
            torch.cat([graph.edge_index for graph in graphs], dim=1),
            **stored,
        )


def _starts(counts: Int[Tensor, " graphs"]) -> Int[Tensor, " borders"]:
    """0 and where each graph's rows end."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
