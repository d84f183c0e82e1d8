"""Many graphs of one's own that have classes or numbers to predict."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from rich.table import Table
from torch import Tensor

from ...core.data.faults import Fault, refusal
from .arranged import EdgeRules, Roles, classes_given, parts_given, targets_given, unlearnable
from .batches import by_nodes
from .description import GraphDescription
from .encoded import with_encodings
from .files import columns
from .files.graph_files import Reading, holds_many_graphs
from .files.graph_tables import named_rows
from .graph_module import GraphModule, Treatment, counts_table, in_order
from .graph_parts import Draw, graph_parts
from .moments import target_moments
from .rows import Row
from .store import GraphStore


class GraphFiles(GraphModule):
    """Many graphs: nodes.csv, edges.csv and graphs.csv, a folder of the TU collection, a list of PyG's Data.

    A batch has `y`, (graphs,) of classes, -1 where unknown, or (graphs, targets) of numbers, NaN where not measured,
    and `row` (graphs,), the number of each graph in the files. Columns are standardised by the training graphs.

    Args:
        root: the folder or file, or the name of a published set, e.g. tu:MUTAG or ogb:ogbg-molhiv.
        name: which of several sets of a folder.
        label: column of classes of graphs.csv; None finds one called label or class.
        targets: columns of numbers to predict instead; of 0 and 1 alone they are labels of which each may hold.
        split: column that says train, val or test; None finds one, or the parts are drawn.
        split_by: "stratified" draws the shares of each class, "random" of all.
        folds: draws as many parts of equal size, of which one is the test.
        fold: which of them, from 0.
        val_fraction: share of graphs for validation, where no column says it.
        test_fraction: likewise for the test.
        id: column of node ids; None finds one called id or node.
        graph: column that names the graph; None finds one called graph or graph_id.
        edge_source: column of edges.csv with the node an edge leads from; None finds source, src or from.
        edge_target: to which it leads; None finds target, dst or to.
        words: columns whose numbers are codes, not quantities.
        ignore: columns that are not read.
        directed: edges lead in the direction in which they are listed; else both ways.
        self_loops: edges from a node to itself: keep, drop.
        repeated: edges listed again in one direction: keep, drop.
        scale: "standard" standardises columns of numbers; "none" leaves them. Columns of 0 and 1 alone stay.
        gaps: empty cells in columns of numbers: "refuse", or "mean" for the training mean.
        encodings: names and widths of encodings of nodes, e.g. {"random_walk": 20}.
        max_nodes: most nodes of a training batch, padding counted, of which it then holds graphs of like size.
        batch_size: graphs in a batch, at most.
        num_workers: processes that read; everything lies in memory, so 0 is fastest.
        seed: of the parts and the order.

    Raises:
        QuintetError: from `setup`, where the files cannot be read the way they are meant.
    """

    source: ClassVar[str] = "graphs"
    labelled: ClassVar[str] = "graphs"

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        *,
        label: str | None = None,
        targets: list[str] | None = None,
        split: str | None = None,
        split_by: Literal["stratified", "random"] = "stratified",
        folds: int | None = None,
        fold: int = 0,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        id: str | None = None,
        graph: str | None = None,
        edge_source: str | None = None,
        edge_target: str | None = None,
        words: list[str] | None = None,
        ignore: list[str] | None = None,
        directed: bool = False,
        self_loops: Literal["keep", "drop"] = "keep",
        repeated: Literal["keep", "drop"] = "keep",
        scale: Literal["standard", "none"] = "standard",
        gaps: Literal["refuse", "mean"] = "refuse",
        encodings: dict[str, int] | None = None,
        max_nodes: int | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            root,
            name,
            reading=Reading(id, graph, edge_source, edge_target, tuple(words or ()), tuple(ignore or ())),
            rules=EdgeRules(directed, self_loops, repeated),
            treatment=Treatment(scale, gaps, False),
            roles=Roles(label, tuple(targets or ()), split),
            encodings=encodings,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        self.draw, self.max_nodes = Draw(val_fraction, test_fraction, split_by, folds, fold), max_nodes

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds_many_graphs(path)

    def target_faults(self, roles: Roles) -> list[Fault]:
        faults: list[Fault] = []
        if len(self.tables.graphs) < 2 and self._described is None:
            return [Fault(self.root, "holds one graph, where many are meant", "read it by data=graphs/nodes")]
        parts_given(self.tables.graphs, roles.split, faults)
        if roles.label:
            classes_given(self.tables.graphs, roles.label, faults)
        targets_given(self.tables.graphs, roles.targets, faults)
        if faults or self._described is not None:
            return faults
        if not roles.label and not roles.targets:
            what = "have no column of what is to be predicted"
            return [Fault("the graphs", what, "name it, of graphs.csv: data.label or data.targets")]
        level = self.tables.graphs
        return unlearnable(roles, self.parts, self.classes, self.measurements, level, one="graph")

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of each graph, None where it has none."""
        if self.roles.label:
            return classes_given(self.tables.graphs, self.roles.label, [])
        return np.full(len(self.tables.graphs), None, dtype=object)

    @cached_property
    def measurements(self) -> np.ndarray:
        """Numbers to predict, (graphs, targets), NaN where not measured or where the files lack the column."""
        names = self._described.targets if self._described and not self._described.classes else list(self.roles.targets)
        values = np.full((len(self.tables.graphs), len(names)), np.nan)
        there = [place for place, name in enumerate(names) if name in self.roles.targets]
        values[:, there] = targets_given(self.tables.graphs, self.roles.targets, [])
        return values

    def adopt(self, description: GraphDescription) -> None:
        super().adopt(description)
        for name in ("classes", "measurements", "store"):
            self.__dict__.pop(name, None)

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """Numbers of the graphs of each part."""
        given = parts_given(self.tables.graphs, self.roles.split, [])
        return graph_parts([name or "" for name in self.classes], given, self.draw, self.seed)

    @cached_property
    def _measured(self) -> GraphDescription:
        tables, training, roles = self.usable(), self.parts["train"], self.roles
        nodes = np.flatnonzero(np.isin(tables.graph_of, training))
        edges = np.flatnonzero(np.isin(tables.graph_of[self.edges.ends[0]], training))
        told: dict[str, Any] = {"targets": [roles.label] if roles.label else list(roles.targets)}
        if roles.label:
            counts = pd.Series(self.classes[training], dtype=object).value_counts()
            told["classes"] = {name: int(counts[name]) for name in sorted(counts.index, key=in_order)}
        else:
            told |= target_moments(roles.targets, self.measurements[training])
        _, of_graphs = columns.measure(
            tables.graphs.columns[self.features.graphs], training, self.treatment.scale == "standard"
        )
        return GraphDescription(
            self.source,
            graph_numbers=of_graphs,
            largest=int(np.bincount(tables.graph_of, minlength=len(tables.graphs))[training].max()),
            **told,
            **self.measured_columns(nodes, edges),
        )

    @cached_property
    def store(self) -> GraphStore:
        """All graphs."""
        tables, edges, known = self.usable(), self.edges, self.description()
        counts = np.bincount(tables.graph_of, minlength=len(tables.graphs))
        owner = tables.graph_of[edges.ends[0]]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        of_graphs = columns.tensors_of(tables.graphs.columns, {}, known.graph_numbers, "graph")
        store = GraphStore(
            torch.from_numpy(counts),
            torch.from_numpy(np.bincount(owner, minlength=len(counts))),
            torch.from_numpy(edges.ends - starts[owner]),
            nodes=self.node_fields(),
            edges=self.edge_fields(),
            graphs={**of_graphs, "y": self.targets(), "row": torch.arange(len(counts))},
        )
        return with_encodings(store, known.encodings)

    def targets(self) -> Tensor:
        """`y` of every graph."""
        known = self.description()
        if known.classes:
            return torch.from_numpy(pd.Index(list(known.classes)).get_indexer(pd.Index(self.classes)))
        return torch.from_numpy(self.measurements.astype(np.float32))

    def prepare(self, stages: tuple[str, ...]) -> None:
        self.usable()
        if "predict" in stages:
            self.adopted()
        for stage in stages:
            if stage == "predict":
                self.datasets[stage] = self.store
            elif len(self.parts[stage]):
                self._check_classes(stage)
                self.datasets[stage] = self.store.select(torch.from_numpy(self.parts[stage]))
            elif stage != "test":
                raise refusal([Fault(self.root, f"has no graph in the {stage} part", "give data.val_fraction above 0")])

    def _check_classes(self, stage: str) -> None:
        """Raises QuintetError for a class that the model does not know."""
        known = self.description()
        for row in self.parts[stage] if known.classes else ():
            if self.classes[row] is not None and self.classes[row] not in known.classes:
                what = f"has the class '{self.classes[row]}'; the model knows {', '.join(list(known.classes)[:6])}"
                raise refusal([Fault(self.tables.graphs.place(row), what, "leave it out, or train on it")])

    def collate(self) -> Callable:
        return self.store.take

    def by_length(self) -> tuple[list[int], int] | None:
        return None if self.max_nodes is None else by_nodes(self.datasets["train"], self.max_nodes)

    @property
    def rows(self) -> list[Row]:
        """A row for each graph, in the order of the files, with its id and the columns that only name it."""
        return named_rows(self.tables.graphs, "graph", self.features.kept)

    def parts_table(self) -> Table:
        told = "label" if self.roles.label else "graphs"
        return counts_table(told, {part: list(self.classes[rows]) for part, rows in self.parts.items()})
