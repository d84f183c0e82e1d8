"""Graphs one after the other in few large tensors, from which any of them become a batch without a loop over graphs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

    Item i is the number i itself: a loader's samples are numbers, and `take` makes the batch of them. Whole numbers may
    be stored in few bytes (`narrow`); a batch has them as torch.long.

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
        if self.edge_index.shape[1] != self.total("edges"):
            raise QuintetError(f"edge_index has {self.edge_index.shape[1]} columns for {self.total('edges')} edges")
        for level, starts in self._starts.items():
            for name, values in getattr(self, level).items():
                if len(values) != starts[-1]:
                    raise QuintetError(f"{name} has {len(values)} rows for {int(starts[-1])} {level}")

    def _counts(self) -> dict[str, Tensor]:
        nodes = self.node_counts
        return {"nodes": nodes, "edges": self.edge_counts, "pairs": nodes**2, "graphs": torch.ones_like(nodes)}

    def total(self, level: str) -> int:
        """Rows of a level, over all graphs."""
        return int(self._starts[level][-1])

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        fields = [values for _, _, values in self.fields()]
        tensors = [self.node_counts, self.edge_counts, self.edge_index, *fields, *self._starts.values()]
        return sum(values.nbytes for values in tensors)

    def narrow(self) -> "GraphStore":
        """Keeps whole numbers in as few bytes as hold them, in place, and returns the store."""
        # Torch takes a tensor of one byte without a sign for a mask where it is an index: none is made here.
        self.edge_index = narrowed(self.edge_index, [torch.int32])
        for level in LEVELS:
            fields = getattr(self, level)
            fields.update({name: narrowed(values) for name, values in fields.items()})
        return self

    def __len__(self) -> int:
        return len(self.node_counts)

    def __getitem__(self, index: int | Draw) -> int:
        return index.index if isinstance(index, Draw) else index

    def rows(self, level: str, graphs: Int[Tensor, " taken"]) -> Rows:
        """The rows of a level that belong to some graphs, in their order."""
        starts = self._starts[level]
        begins = starts[graphs]
        counts = starts[graphs + 1] - begins
        ends = counts.cumsum(0)
        offsets = (begins - ends + counts).repeat_interleave(counts)
        return Rows(offsets + torch.arange(len(offsets)), counts)

    def take(self, graphs: Sequence[int] | Int[Tensor, " taken"]) -> Batch:
        """These graphs as PyG's batch: nodes and edges one after the other, `batch` and `ptr` say whose they are."""
        graphs = torch.as_tensor(graphs, dtype=torch.long)
        rows = self._taken(graphs)
        fields = {name: wide(values.index_select(0, rows[level].index)) for level, name, values in self.fields()}
        borders = _starts(rows["nodes"].counts)
        shift = borders[:-1].repeat_interleave(rows["edges"].counts)
        return Batch(
            edge_index=self.edge_index.index_select(1, rows["edges"].index) + shift,
            batch=torch.arange(len(graphs)).repeat_interleave(rows["nodes"].counts),
            ptr=borders,
            **fields,
        )

    def fields(self) -> Iterator[tuple[str, str, Tensor]]:
        """Level, name and values of all that graphs have beside their edges."""
        for level in LEVELS:
            for name, values in getattr(self, level).items():
                yield level, name, values

    def _taken(self, graphs: Int[Tensor, " taken"]) -> dict[str, Rows]:
        # Whole graphs have a row each; pairs are many, and few stores have any.
        levels = ["nodes", "edges", "pairs"] if self.pairs else ["nodes", "edges"]
        return {level: self.rows(level, graphs) for level in levels} | {"graphs": Rows(graphs, torch.ones_like(graphs))}

    def select(self, graphs: Sequence[int] | Int[Tensor, " taken"]) -> "GraphStore":
        """A store of some of the graphs."""
        graphs = torch.as_tensor(graphs, dtype=torch.long)
        rows = self._taken(graphs)
        taken: dict[str, dict[str, Tensor]] = {level: {} for level in LEVELS}
        for level, name, values in self.fields():
            taken[level][name] = values.index_select(0, rows[level].index)
        edge_index = self.edge_index.index_select(1, rows["edges"].index)
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


def wide(values: Tensor) -> Tensor:
    """Whole numbers as torch.long, whatever they are stored as; others as they are."""
    return values if values.is_floating_point() or values.dtype in (torch.bool, torch.long) else values.long()


def narrowed(values: Tensor, kinds: Sequence[torch.dtype] = (torch.int8, torch.int16, torch.int32)) -> Tensor:
    """Whole numbers in the first of `kinds` that holds them; others as they are."""
    if values.is_floating_point() or values.dtype == torch.bool or not values.numel():
        return values
    least, largest = (int(bound) for bound in values.aminmax())
    holding = [kind for kind in kinds if torch.iinfo(kind).min <= least and largest <= torch.iinfo(kind).max]
    return values.to(holding[0]) if holding else values
