"""One large graph of one's own of which edges are held out: which of its nodes are joined?"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Int
from rich.table import Table
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch

from ...core.data.faults import Fault, refusal
from ...core.data.seeded import Draw
from ...core.data.splits import check_fractions
from .arranged import EdgeRules, Edges, Roles, parts_given, split_column
from .description import GraphDescription
from .encoded import with_encodings
from .files.graph_files import Reading
from .files.graph_tables import named_rows
from .graph_module import GraphModule, Treatment
from .link_parts import LinkParts, conflicts, link_parts, names_of, pairs_of
from .rows import Row
from .store import GraphStore


@dataclass
class AskedGraph(Dataset):
    """A graph of known edges and pairs of its nodes that are asked for.

    Args:
        store: the graph.
        candidates: the pairs.
        linked: 1 where an edge that is not known joins them, 0 where none does.
    """

    store: GraphStore
    candidates: Int[Tensor, "2 pairs"]
    linked: Int[Tensor, " pairs"]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int | Draw) -> int:
        return self.store[index]

    def take(self, graphs: list[int]) -> Batch:
        """The graph as PyG's batch, with `candidates` and `linked`."""
        batch = self.store.take(graphs)
        batch.candidates, batch.linked = self.candidates, self.linked
        return batch


class GraphLinks(GraphModule):
    """Edges of one large graph: nodes.csv beside edges.csv, Planetoid's raw files, GraphML, an edge list, PyG's Data.

    A share of the pairs of nodes that edges join is held out for validation and test, each pair with all its edges in
    both directions, so that none is known from its way back. Messages go along training edges alone. Every stage serves
    one graph of these; those of validation and test have besides, of pairs without direction,

        candidates (2, P) held-out pairs and as many that no edge joins           linked (P,) 1 where joined, else 0

    which the seed fixes. To predict, all edges of the files are known.

    Args:
        root: the folder or file.
        name: which of several graphs of a folder, e.g. cora.
        split: column of edges.csv that says train, val or test; None finds one, or the parts are drawn.
        val_fraction: share of the joined pairs for validation.
        test_fraction: likewise for the test.
        id: column of node ids; None finds one called id or node.
        edge_source: column of edges.csv with the node an edge leads from; None finds source, src or from.
        edge_target: to which it leads; None finds target, dst or to.
        words: columns whose numbers are codes, not quantities.
        ignore: columns that are not read.
        directed: edges lead in the direction in which they are listed; else both ways.
        self_loops: edges from a node to itself: keep, drop; none is ever asked for.
        repeated: edges listed again in one direction: keep, drop.
        scale: "standard" standardises columns of numbers; "none" leaves them. Columns of 0 and 1 alone stay.
        gaps: empty cells in columns of numbers: "refuse", or "mean" for the mean of all nodes.
        normalize_rows: divide the numbers of each node by their sum; None does so for Planetoid's bags of words.
        encodings: names and widths of encodings of nodes, which see training edges alone.
        batch_size: 1, the whole graph.
        num_workers: processes that read; everything lies in memory, so 0 is fastest.
        seed: of the parts and of the pairs that are no edges.

    Raises:
        QuintetError: from `setup`, where the files cannot be read the way they are meant.
    """

    source: ClassVar[str] = "links"
    labelled: ClassVar[str] = "edges"

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        *,
        split: str | None = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.1,
        id: str | None = None,
        edge_source: str | None = None,
        edge_target: str | None = None,
        words: list[str] | None = None,
        ignore: list[str] | None = None,
        directed: bool = False,
        self_loops: Literal["keep", "drop"] = "keep",
        repeated: Literal["keep", "drop"] = "keep",
        scale: Literal["standard", "none"] = "standard",
        gaps: Literal["refuse", "mean"] = "refuse",
        normalize_rows: bool | None = None,
        encodings: dict[str, int] | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            root,
            name,
            reading=Reading(id, None, edge_source, edge_target, tuple(words or ()), tuple(ignore or ())),
            rules=EdgeRules(directed, self_loops, repeated),
            treatment=Treatment(scale, gaps, normalize_rows),
            roles=Roles(split=split),
            encodings=encodings,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        check_fractions(val_fraction, test_fraction)
        self.fractions = {"val": val_fraction, "test": test_fraction}

    def adopt(self, description: GraphDescription) -> None:
        super().adopt(description)
        for name in ("links", "known_edges"):
            self.__dict__.pop(name, None)
        self.known = "train"

    known: str = "train"
    """Which edges messages go along: those of training, or "all" of the files."""

    @cached_property
    def roles(self) -> Roles:
        """The column of the parts of edges."""
        return Roles(split=split_column(self.tables.edges, "edges", self.roles_given.split, self.tables.faults))

    def excluded(self) -> dict[str, Roles]:
        # What a format says of nodes, their classes and parts, is no feature of theirs.
        told = self.tables.suggested
        labels = [*told.get("label", []), *told.get("targets", []), *told.get("split", [])]
        return {"edges": self.roles, "nodes": Roles(targets=tuple(labels))}

    def predicted(self) -> list[str]:
        return ["edges"]

    def target_faults(self, roles: Roles) -> list[Fault]:
        tables, faults = self.tables, []
        if len(tables.graphs) > 1:
            return [Fault(self.root, f"holds {len(tables.graphs):,} graphs, where one is meant", "give one")]
        given = parts_given(tables.edges, roles.split, faults)
        if given is not None:
            for edge, earlier in conflicts(tables.ends, len(tables.nodes), given):
                what = f"is in another part than {tables.edges.place(earlier)}, which joins the same nodes"
                faults.append(Fault(tables.edges.place(edge), what, "put all edges of a pair into one part"))
        return faults

    @cached_property
    def links(self) -> LinkParts:
        """The pairs of each part."""
        tables = self.tables
        given = parts_given(tables.edges, self.roles.split, [])
        return link_parts(tables.ends, len(tables.nodes), self.fractions, self.seed, given)

    @cached_property
    def known_edges(self) -> Edges:
        """Edges between pairs of training, and those from a node to itself."""
        edges, nodes = self.edges, len(self.tables.nodes)
        held = np.concatenate([self.links.joined["val"], self.links.joined["test"]])
        kept = np.flatnonzero(~np.isin(names_of(edges.ends, nodes), held))
        return Edges(edges.ends[:, kept], edges.columns.iloc[kept].reset_index(drop=True))

    def message_edges(self) -> Edges:
        return self.edges if self.known == "all" else self.known_edges

    @cached_property
    def _measured(self) -> GraphDescription:
        nodes = np.arange(len(self.usable().nodes))
        edges = np.arange(self.known_edges.ends.shape[1])
        return GraphDescription(
            self.source,
            targets=["linked"],
            positives={"linked": len(self.links.joined["train"])},
            largest=len(nodes),
            **self.measured_columns(nodes, edges),
        )

    def graph(self) -> GraphStore:
        """The graph of the edges that are known."""
        total, edges = len(self.usable().nodes), self.message_edges()
        store = GraphStore(
            torch.tensor([total]),
            torch.tensor([edges.ends.shape[1]]),
            torch.from_numpy(np.ascontiguousarray(edges.ends, dtype=np.int64)),
            nodes={**self.node_fields(), "node_row": torch.arange(total)},
            edges=self.edge_fields(),
            graphs={"row": torch.zeros(1, dtype=torch.long)},
        )
        return with_encodings(store, self.description().encodings)

    def prepare(self, stages: tuple[str, ...]) -> None:
        self.usable()
        if "predict" in stages:
            self.adopted()
        self.description()  # measured along training edges, before any others are known
        for stage in stages:
            self.known = "all" if stage == "predict" else "train"
            held = stage in ("val", "test")
            if held and not len(self.links.joined[stage]):
                remedy = f"give data.{stage}_fraction above 0, or more edges"
                raise refusal([Fault(self.root, f"has no edge in the {stage} part", remedy)])
            self.datasets[stage] = self.asked(stage) if held else self.graph()

    def asked(self, stage: str) -> AskedGraph:
        """The graph with the pairs of a part."""
        nodes = len(self.tables.nodes)
        joined, apart = self.links.joined[stage], self.links.apart[stage]
        pairs = pairs_of(np.concatenate([joined, apart]), nodes)
        linked = torch.cat([torch.ones(len(joined)), torch.zeros(len(apart))]).long()
        return AskedGraph(self.graph(), torch.from_numpy(pairs), linked)

    @property
    def rows(self) -> list[Row]:
        """A row for each node, in the order of the files, with its id and the columns that only name it."""
        return named_rows(self.tables.nodes, "node", self.features.kept)

    def parts_table(self) -> Table:
        table = Table("pairs", box=None, pad_edge=False, header_style="bold")
        for part in self.links.joined:
            table.add_column(part, justify="right")
        for told, pairs in (("joined", self.links.joined), ("not joined", self.links.apart)):
            table.add_row(told, *(f"{len(pairs[part]):,}" if part in pairs else "drawn" for part in self.links.joined))
        return table
