"""One large graph of one's own whose nodes have classes or numbers to predict."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from rich.table import Table
from torch import Tensor
from torch.utils.data import Dataset

from ...core.data.faults import Fault, refusal
from ...core.errors import QuintetError
from .arranged import EdgeRules, Roles, classes_given, parts_given, targets_given, unlearnable
from .description import GraphDescription
from .encoded import with_encodings
from .files.graph_files import Reading, holds_one_graph
from .files.graph_tables import PARTS, named_rows
from .graph_module import GraphModule, Treatment, counts_table, in_order
from .moments import target_moments
from .neighbours import NeighbourSampler, SeedNodes
from .node_parts import Shares, node_parts
from .rows import Row
from .store import GraphStore


class GraphNodes(GraphModule):
    """Nodes of one large graph: nodes.csv beside edges.csv, Planetoid's raw files, GraphML, an edge list, PyG's Data.

    Every stage serves the whole graph as one batch, or with `fanouts` some of its nodes with their neighbourhoods:

        y (N,) of classes, -1 where unknown; (N, targets) of numbers, NaN where not measured
        train_mask, val_mask, test_mask (N,) whose nodes they are, of those whose class or number is known
        seeds (N,) the nodes that the stage is about           node_row (N,) number of each node in the files

    Columns are standardised by training nodes.

    Args:
        root: the folder or file.
        name: which of several graphs of a folder, e.g. cora.
        label: column of classes; None finds one called label or class.
        targets: columns of numbers to predict instead.
        split: column that says train, val or test; None finds one, or the parts are drawn.
        id: column of node ids; None finds one called id or node.
        edge_source: column of edges.csv with the node an edge leads from; None finds source, src or from.
        edge_target: to which it leads; None finds target, dst or to.
        words: columns whose numbers are codes, not quantities.
        ignore: columns that are not read.
        directed: edges lead in the direction in which they are listed; else both ways.
        self_loops: edges from a node to itself: keep, drop.
        repeated: edges listed again in one direction: keep, drop.
        scale: "standard" standardises columns of numbers; "none" leaves them. Columns of 0 and 1 alone stay.
        gaps: empty cells in columns of numbers: "refuse", or "mean" for the training mean.
        normalize_rows: divide the numbers of each node by their sum; None does so for Planetoid's bags of words.
        val_fraction: share of each class for validation, where no column says it; with per_class also a count.
        test_fraction: likewise for the test.
        per_class: training nodes of each class; None for all that validation and test leave.
        encodings: names and widths of encodings of nodes, e.g. {"random_walk": 20}.
        fanouts: neighbours to draw for each node, from the seeds outwards, as many as the network has layers, -1 for
            all; None serves the whole graph.
        batch_size: nodes in a batch where neighbours are drawn; the whole graph is one batch.
        num_workers: processes that read; everything lies in memory, so 0 is fastest.
        seed: of the parts that are drawn.

    Raises:
        QuintetError: from `setup`, where the files cannot be read the way they are meant.
    """

    source: ClassVar[str] = "nodes"
    labelled: ClassVar[str] = "nodes"

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        *,
        label: str | None = None,
        targets: list[str] | None = None,
        split: str | None = None,
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
        val_fraction: float | int = 0.2,
        test_fraction: float | int = 0.2,
        per_class: int | None = None,
        encodings: dict[str, int] | None = None,
        fanouts: list[int] | None = None,
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
            roles=Roles(label, tuple(targets or ()), split),
            encodings=encodings,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        if label and targets:
            raise QuintetError("data.label names classes and data.targets numbers; give one of the two")
        self.shares = Shares(val_fraction, test_fraction, per_class)
        self.fanouts = fanouts

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds_one_graph(path)

    def target_faults(self, roles: Roles) -> list[Fault]:
        faults: list[Fault] = []
        if len(self.tables.graphs) > 1:
            what = f"holds {len(self.tables.graphs):,} graphs, where one is meant"
            return [Fault(str(self.root), what, "read it by data=graphs/files")]
        parts_given(self.tables.nodes, roles.split, faults)
        if roles.label:
            classes_given(self.tables.nodes, roles.label, faults)
        targets_given(self.tables.nodes, roles.targets, faults)
        if faults or self._described is not None:
            return faults
        if not roles.label and not roles.targets:
            return [
                Fault("the nodes", "have no column of what is to be predicted", "name it: data.label or data.targets")
            ]
        level = self.tables.nodes
        return unlearnable(roles, self.parts, self.classes, self.measurements, level, one="node")

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of each node, None where it has none; where numbers are predicted, "" where one was measured."""
        if self.roles.label:
            return classes_given(self.tables.nodes, self.roles.label, [])
        measured = ~np.isnan(self.measurements).all(axis=1)
        return np.where(measured, "", None)

    @cached_property
    def measurements(self) -> np.ndarray:
        """Numbers to predict, (nodes, targets), NaN where not measured or where the files lack the column."""
        names = self._described.targets if self._described and not self._described.classes else list(self.roles.targets)
        values = np.full((len(self.tables.nodes), len(names)), np.nan)
        there = [place for place, name in enumerate(names) if name in self.roles.targets]
        values[:, there] = targets_given(self.tables.nodes, self.roles.targets, [])
        return values

    def adopt(self, description: GraphDescription) -> None:
        super().adopt(description)
        for name in ("classes", "measurements", "store", "sampler"):
            self.__dict__.pop(name, None)

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """Numbers of the nodes of each part."""
        given = parts_given(self.tables.nodes, self.roles.split, [])
        return node_parts(self.classes, given, self.shares, self.seed)

    @cached_property
    def _measured(self) -> GraphDescription:
        self.usable()
        training, roles = self.parts["train"], self.roles
        edges = np.arange(self.message_edges().ends.shape[1])  # of one graph all are seen in training
        told: dict[str, Any] = {"targets": [roles.label] if roles.label else list(roles.targets)}
        if roles.label:
            counts = pd.Series(self.classes[training], dtype=object).value_counts()
            told["classes"] = {name: int(counts[name]) for name in sorted(counts.index, key=in_order)}
        else:
            told |= target_moments(roles.targets, self.measurements[training])
        return GraphDescription(
            self.source, largest=len(self.tables.nodes), **told, **self.measured_columns(training, edges)
        )

    def prepare(self, stages: tuple[str, ...]) -> None:
        self.usable()
        if "predict" in stages:
            self.adopted()
        for stage in stages:
            if stage != "predict":
                self._check_stage(stage)
            self.datasets[stage] = self._served(stage)

    def _served(self, stage: str) -> Dataset:
        """The whole graph, or the numbers of a stage's nodes."""
        whole = self.store
        total = whole.total("nodes")
        seeds = torch.ones(total, dtype=torch.bool) if stage == "predict" else whole.nodes[f"{stage}_mask"]
        if self.fanouts is not None:
            return SeedNodes(seeds.nonzero().flatten())
        return replace(whole, nodes={**whole.nodes, "seeds": seeds})

    @cached_property
    def sampler(self) -> NeighbourSampler:
        return NeighbourSampler(self.store, self.fanouts)

    def collate(self) -> Callable:
        return self.store.take if self.fanouts is None else self.sampler.take

    def _check_stage(self, stage: str) -> None:
        """Raises QuintetError where a part has no node that a model could be measured on."""
        known, level = self.description(), self.tables.nodes
        rows = self.parts[stage]
        if not len(rows):
            raise refusal(
                [Fault(str(self.root), f"has no node in the {stage} part", "name the nodes in a split column")]
            )
        for row in rows if known.classes else ():
            if self.classes[row] is not None and self.classes[row] not in known.classes:
                what = f"has the class '{self.classes[row]}'; the model knows {', '.join(list(known.classes)[:6])}"
                raise refusal([Fault(level.place(row), what, "leave it out, or train on it")])

    @cached_property
    def store(self) -> GraphStore:
        """The one graph."""
        tables, edges = self.usable(), self.message_edges()
        total = len(tables.nodes)
        nodes = {**self.node_fields(), "y": self.targets(), "node_row": torch.arange(total), **self.masks()}
        store = GraphStore(
            torch.tensor([total]),
            torch.tensor([edges.ends.shape[1]]),
            torch.from_numpy(np.ascontiguousarray(edges.ends, dtype=np.int64)),
            nodes=nodes,
            edges=self.edge_fields(),
            graphs={"row": torch.zeros(1, dtype=torch.long)},
        )
        return with_encodings(store, self.description().encodings)

    def targets(self) -> Tensor:
        """`y` of every node."""
        known = self.description()
        if known.classes:
            return torch.from_numpy(pd.Index(list(known.classes)).get_indexer(pd.Index(self.classes)))
        return torch.from_numpy(self.measurements.astype(np.float32))

    def masks(self) -> dict[str, Tensor]:
        """Which nodes are of each part, and have something to be measured on."""
        told, masks = torch.from_numpy(np.array([name is not None for name in self.classes], dtype=bool)), {}
        for part in PARTS:
            chosen = torch.zeros(len(self.classes), dtype=torch.bool)
            chosen[torch.from_numpy(self.parts[part])] = True
            masks[f"{part}_mask"] = chosen & told
        return masks

    @property
    def rows(self) -> list[Row]:
        """A row for each node, in the order of the files, with its id and the columns that only name it."""
        return named_rows(self.tables.nodes, "node", self.features.kept)

    def remarks(self) -> list[str]:
        told = super().remarks()
        unknown = 0 if self._described or self.faults() else sum(name is None for name in self.classes)
        if unknown:
            what = f"{unknown:,} of {len(self.classes):,} nodes have nothing known of what is predicted"
            told.append(f"{what}: a network sees them as neighbours, and learns and is measured on the others")
        return told

    def parts_table(self) -> Table:
        told = "label" if self.roles.label else "nodes"
        return counts_table(told, {part: list(self.classes[rows]) for part, rows in self.parts.items()})
