"""What the data modules of graphs share: how files are read, which columns a network sees, descriptions and tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...core.data.faults import Fault, refusal
from ...core.data.module import DataModule
from ...core.data.problems import problems_table
from ...core.data.report import stacked
from ...core.errors import QuintetError
from .arranged import EdgeRules, Edges, Features, Roles, edges_of, features_of, roles_of
from .description import GraphDescription
from .files import columns
from .files.graph_files import Reading, read_graphs
from .files.graph_tables import GraphTables

DRAWN = 6  # neighbourhoods
SHOWN = 20  # columns and classes listed one by one
DEGREE = "degree"  # the column of nodes that have no other


@dataclass(frozen=True)
class Treatment:
    """What is done with columns.

    Args:
        scale: "standard" standardises numbers by the training part; "none" leaves them.
        gaps: empty cells in columns of numbers: "refuse", or "mean" for the training mean.
        normalize_rows: each node's numbers are divided by their sum, as bags of words are; None does so for
            Planetoid's files, as published results do.
    """

    scale: Literal["standard", "none"] = "standard"
    gaps: Literal["refuse", "mean"] = "refuse"
    normalize_rows: bool | None = None


class GraphModule(DataModule):
    """Base of the data modules that read graphs from files; see `GraphNodes`, `GraphFiles` and `GraphLinks`.

    Args:
        root: the file or folder.
        name: which of several graphs of a folder.
        reading: how tables are read.
        rules: what is done about edges.
        treatment: what is done with columns.
        roles: columns that are no features.
        encodings: names and widths of encodings of nodes.
        **loading: arguments of every data module.
    """

    fixed: ClassVar[frozenset[str]] = frozenset(
        {"words", "ignore", "directed", "self_loops", "repeated", "scale", "normalize_rows", "encodings"}
    )
    source: ClassVar[str]  # what `GraphDescription.source` says
    labelled: ClassVar[str]  # the level of what is predicted: nodes, graphs

    def __init__(
        self,
        root: str | Path,
        name: str | None,
        *,
        reading: Reading,
        rules: EdgeRules,
        treatment: Treatment,
        roles: Roles,
        encodings: dict[str, int] | None = None,
        **loading: int,
    ) -> None:
        super().__init__(**loading)
        self.root = str(Path(root).expanduser())
        self.name, self.reading, self.rules, self.treatment, self.roles_given = name, reading, rules, treatment, roles
        self.encodings = dict(encodings or {})

    def adopt(self, description: GraphDescription) -> None:
        super().adopt(description)
        trained = {"directed": description.directed, "encodings": description.encodings, **description.reading}
        for name in ("directed", "self_loops", "repeated", "encodings"):
            own = self.constructor_arguments.get(name)
            if own is not None and own != trained.get(name, own):
                raise QuintetError(f"data.{name}={own}: this model was trained with data.{name}={trained[name]}")
        rules = {name: trained[name] for name in ("directed", "self_loops", "repeated") if name in trained}
        self.rules = replace(self.rules, **rules)
        for name in ("tables", "roles", "edges", "features", "parts", "found_faults", "_measured"):
            self.__dict__.pop(name, None)

    @cached_property
    def tables(self) -> GraphTables:
        """What was read. Raises QuintetError where it cannot be."""
        known, reading = self._described, self.reading
        if known is not None:
            words = (*reading.words, *known.node_words, *known.edge_words)
            ignored = (*reading.ignore, *known.reading.get("ignore", []))
            reading = replace(reading, words=words, ignore=ignored)
        return read_graphs(self.root, self.name, reading)

    @cached_property
    def roles(self) -> Roles:
        """The columns of what is predicted and of the parts; a known model's, where the files have them."""
        level, known = getattr(self.tables, self.labelled), self._described
        if known is None:
            return roles_of(level, self.labelled, self.roles_given, self.tables.suggested, self.tables.faults)
        there = [name for name in known.targets if name in level.columns]
        given = Roles(there[0], ()) if known.classes and there else Roles(None, tuple(there))
        suggested = {name: found for name, found in self.tables.suggested.items() if name == "split"}
        found = roles_of(
            level, self.labelled, replace(given, split=self.roles_given.split), suggested, self.tables.faults
        )
        return found if there else Roles(split=found.split)

    @cached_property
    def edges(self) -> Edges:
        return edges_of(self.tables, self.rules)

    @cached_property
    def features(self) -> Features:
        """Names of the columns that a network sees: those of a known model, else all that have no role."""
        found, self._said = features_of(self.tables, self.excluded())
        if (known := self._described) is None:
            return found
        numbers = [] if known.reading.get("counts_edges") else [*known.node_numbers]
        return Features(
            [*known.node_words, *numbers], [*known.edge_words, *known.edge_numbers], [*known.graph_numbers], found.kept
        )

    def excluded(self) -> dict[str, Roles]:
        """Columns of each level that are no features."""
        return {self.labelled: self.roles}

    def predicted(self) -> list[str]:
        """What is predicted, for people."""
        return [self.roles.label] if self.roles.label else list(self.roles.targets)

    @property
    def bag_of_words(self) -> bool:
        """Whether each node's numbers are divided by their sum."""
        if self._described is not None:
            return bool(self._described.reading.get("normalize_rows"))
        given = self.treatment.normalize_rows
        return self.tables.bag_of_words if given is None else given

    def node_columns(self) -> pd.DataFrame:
        """The columns of nodes that a network sees."""
        chosen = self.tables.nodes.columns[self.features.nodes]
        numbers = [name for name in chosen if columns.is_number(chosen[name])]
        if self.bag_of_words and numbers:
            shares = columns.row_shares(chosen[numbers].to_numpy(np.float64))
            chosen = chosen.drop(columns=numbers).join(pd.DataFrame(shares, columns=numbers))
        if self.counts_edges:
            chosen = chosen.assign(**{DEGREE: self.degrees()})
        return chosen

    @property
    def counts_edges(self) -> bool:
        """Whether nodes are described by how many edges lead to them, as they have no column of their own."""
        if self._described is not None:
            return bool(self._described.reading.get("counts_edges"))
        return not self.features.nodes

    def message_edges(self) -> Edges:
        """The edges along which messages go."""
        return self.edges

    def degrees(self) -> np.ndarray:
        """Edges that lead to each node."""
        return np.bincount(self.message_edges().ends[1], minlength=len(self.tables.nodes)).astype(np.float64)

    def column_faults(self) -> list[Fault]:
        """What is wrong with columns that a network is to see."""
        tables, known, faults = self.tables, self._described, []
        if known is not None:
            node_numbers = {name: value for name, value in known.node_numbers.items() if name in self.features.nodes}
            faults += columns.mismatches(tables.nodes, "nodes", known.node_words, node_numbers)
            faults += columns.mismatches(tables.edges, "edges", known.edge_words, known.edge_numbers)
            faults += columns.mismatches(tables.graphs, "graphs", {}, known.graph_numbers)
            if faults:
                return faults
        for level, names in (
            (tables.nodes, self.features.nodes),
            (tables.edges, self.features.edges),
            (tables.graphs, self.features.graphs),
        ):
            faults += columns.beyond(level, [name for name in names if columns.is_number(level.columns[name])])
        if self.treatment.gaps == "refuse":
            for level, names in ((tables.nodes, self.features.nodes), (tables.edges, self.features.edges)):
                numbers = [name for name in names if columns.is_number(level.columns[name])]
                faults += columns.empty_cells(level, numbers)
        return faults

    def faults(self) -> list[Fault]:
        return self.found_faults

    @cached_property
    def found_faults(self) -> list[Fault]:
        """Everything that stands in the way."""
        roles = self.roles  # which adds to the faults of the tables
        faults = [*self.tables.faults] or self.column_faults()
        return faults or self.target_faults(roles)

    def target_faults(self, roles: Roles) -> list[Fault]:
        """What is wrong with what is to be predicted, and with the parts."""
        raise NotImplementedError

    def usable(self) -> GraphTables:
        """What was read, once nothing stands in the way. Raises QuintetError for the first fault."""
        if faults := self.faults():
            raise refusal(faults, f"quintet inspect {self.root}")
        return self.tables

    def measured_columns(self, nodes: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
        """The fields of a description that follow from columns.

        Args:
            nodes: numbers of the training nodes.
            edges: numbers of the training edges.
        """
        standard = self.treatment.scale == "standard"
        # Rows that were divided by their sums stay as they are, as published results have them.
        node_words, node_numbers = columns.measure(self.node_columns(), nodes, standard and not self.bag_of_words)
        listed = self.message_edges().columns[self.features.edges]
        edge_words, edge_numbers = columns.measure(listed, edges, standard)
        reading = {
            "normalize_rows": self.bag_of_words,
            "counts_edges": self.counts_edges,
            "self_loops": self.rules.self_loops,
            "repeated": self.rules.repeated,
            "ignore": list(self.reading.ignore),
        }
        return {
            "node_words": node_words,
            "node_numbers": node_numbers,
            "edge_words": edge_words,
            "edge_numbers": edge_numbers,
            "encodings": self.encodings,
            "directed": self.rules.directed,
            "reading": reading,
        }

    def node_fields(self) -> dict[str, Tensor]:
        known = self.description()
        return columns.tensors_of(self.node_columns(), known.node_words, known.node_numbers, "node")

    def edge_fields(self) -> dict[str, Tensor]:
        known = self.description()
        return columns.tensors_of(self.message_edges().columns, known.edge_words, known.edge_numbers, "edge")

    def description(self) -> GraphDescription:
        return self._described or self._measured

    def remarks(self) -> list[str]:
        """What is worth knowing of what was read."""
        remarks = [*self.tables.remarks, *self.edges.remarks]
        if self.counts_edges:
            remarks.append("nodes have no column to learn from: the number of their edges takes its place")
        if self._described is not None:
            known = self._described
            remarks += columns.unseen(self.tables.nodes.columns, known.node_words)
            remarks += columns.unseen(self.tables.edges.columns, known.edge_words)
        else:
            self.features  # noqa: B018, it says which columns it leaves out
            remarks += self._said
        return remarks

    def table(self) -> Table:
        faults = self.faults()
        return stacked(self.facts(), None if faults else self.parts_table(), problems_table(faults, self.remarks()))

    def facts(self) -> Table:
        """How many nodes and edges there are, and what each column is taken for."""
        tables, facts = self.tables, Table.grid(padding=(0, 2))
        facts.add_row("nodes", f"{len(tables.nodes):,}")
        facts.add_row("edges", f"{len(tables.edges):,} listed, {'directed' if self.rules.directed else 'both ways'}")
        if len(tables.graphs) > 1:
            facts.add_row("graphs", f"{len(tables.graphs):,}")
        for what, level, names in (
            ("nodes", tables.nodes, self.features.nodes),
            ("edges", tables.edges, self.features.edges),
            ("graphs", tables.graphs, self.features.graphs),
        ):
            for kind, wanted in (("words", False), ("numbers", True)):
                chosen = [
                    name for name in names if name in level.columns and columns.is_number(level.columns[name]) == wanted
                ]
                if chosen:
                    more = f" and {len(chosen) - SHOWN} more" if len(chosen) > SHOWN else ""
                    facts.add_row(f"{kind} of {what}", Text(", ".join(map(str, chosen[:SHOWN])) + more))
        facts.add_row("predicted", Text(", ".join(map(str, self.predicted())) or "nothing named"))
        return facts

    classes: Sequence[str | None] = ()
    """The class of each node or graph, None where it has none."""

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        """How many edges nodes have and how many there are of each class, and a few drawings."""
        if self.faults():
            return
        # Here, because training draws none of them.
        from ..pictures.overview import overview

        nodes, ends = len(self.tables.nodes), self.tables.ends
        pairs = np.unique(np.sort(ends[:, ends[0] != ends[1]], axis=0), axis=1)
        degrees = np.bincount(pairs.ravel(), minlength=nodes)
        told = [name for name in self.classes if name]
        yield "overview", overview(degrees, list(self.classes) if told else (), self.labelled)
        if len(ends[0]):
            yield "drawings", self._drawings(torch.from_numpy(pairs), degrees)

    def _drawings(self, pairs: Tensor, degrees: np.ndarray) -> Figure:
        """Neighbourhoods of the nodes of most edges, each of another graph where there are several."""
        from ..pictures.drawing import Drawn, caption_of, graph_sheet
        from ..pictures.neighbourhoods import neighbourhood

        order, items = np.argsort(-degrees, kind="stable"), []
        _, first = np.unique(self.tables.graph_of[order], return_index=True)
        chosen = order[:DRAWN] if len(first) == 1 else order[np.sort(first)[:DRAWN]]
        for node in chosen.tolist():
            around = neighbourhood(node, pairs, len(degrees))
            name = str(self.tables.nodes.names[node])
            caption = caption_of(name, f"{degrees[node]:,} edges, {len(around.nodes):,} nodes around it drawn")
            middle = (around.steps == 0).long()
            items.append(Drawn(caption, edges=around.edges, categories=middle))
        return graph_sheet(items, "the nodes of most edges (orange) among their neighbours", 3)

    def _loader(self, dataset: Dataset, **arguments: Any) -> DataLoader:
        # Each part has graphs of its own, and batches by size stand in one more dataset.
        graphs = getattr(dataset, "dataset", dataset)
        chosen = {"collate_fn": graphs.take} if hasattr(graphs, "take") else {}
        return super()._loader(dataset, **chosen, **arguments)

    def parts_table(self) -> Table:
        """How many there are of each class in each part."""
        raise NotImplementedError


def counts_table(what: str, parts: dict[str, list[str | None]]) -> Table:
    """Samples of each class in each part, and all."""
    table = Table(what, box=None, pad_edge=False, header_style="bold")
    for part in parts:
        table.add_column(part, justify="right")
    counts = {part: pd.Series(classes, dtype=object).value_counts() for part, classes in parts.items()}
    names = sorted({name for count in counts.values() for name in count.index}, key=in_order)
    for name in names[:SHOWN]:
        table.add_row(Text(str(name)), *(f"{count.get(name, 0):,}" for count in counts.values()))
    if len(names) > SHOWN:
        table.add_row(f"and {len(names) - SHOWN} more")
    table.add_row("all", *(f"{len(classes):,}" for classes in parts.values()))
    return table


def in_order(name: str) -> tuple[bool, int, str]:
    """Numbers by their size, then words."""
    whole = name.isascii() and name.isdigit()
    return not whole, int(name) if whole else 0, name
