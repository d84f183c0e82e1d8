"""Graphs as they were read, arranged for learning: which column says what, and where edges lead."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from ...core.data.faults import Fault
from .files import directions
from .files.columns import beyond, is_number, names_each_row
from .files.graph_tables import SPOKEN, GraphTables, Level, part_of
from .files.tables import text_column

LABELS = ("label", "class", "category", "y", "target")
SPLITS = ("split", "part", "subset")


@dataclass(frozen=True)
class Roles:
    """Columns that are no features.

    Args:
        label: column of classes.
        targets: columns of numbers to predict.
        split: column that says the part of each row.
    """

    label: str | None = None
    targets: tuple[str, ...] = ()
    split: str | None = None

    @property
    def all(self) -> set[str]:
        return {name for name in (self.label, *self.targets, self.split) if name is not None}


def roles_of(level: Level, what: str, given: Roles, suggested: dict[str, list[str]], faults: list[Fault]) -> Roles:
    """The columns named by options, else by the format, else by their usual names; named ones that lack are faults."""
    columns = level.columns
    for name in sorted(given.all - set(columns)):
        known = ", ".join(map(str, columns.columns[:8])) or "none"
        faults.append(Fault(f"the {what}", f"have no column '{name}'", f"name one of: {known}"))
    by_name = {str(name).strip().lower(): name for name in reversed(columns.columns)}
    label, targets = given.label, given.targets
    if label is None and not targets:
        label = next(iter(suggested.get("label", [])), None)
        targets = tuple(suggested.get("targets", [])) if label is None else ()
    if label is None and not targets:
        usual = next((by_name[name] for name in LABELS if name in by_name), None)
        # Numbers with decimals are measured; words and whole numbers are classes.
        measured = usual is not None and is_number(columns[usual]) and (columns[usual].dropna() % 1 != 0).any()
        label, targets = (None, (usual,)) if measured else (usual, ())
    split = next(iter(suggested.get("split", [])), None) if given.split is None else None
    split = split or split_column(level, what, given.split, [])
    known = set(columns)
    there = [name if name in known else None for name in (label, split)]
    return Roles(there[0], tuple(name for name in targets if name in known), there[1])


def split_column(level: Level, what: str, given: str | None, faults: list[Fault]) -> str | None:
    """The column that says the part of each row: the named one, else one with a usual name that names a part."""
    by_name = {str(name).strip().lower(): name for name in reversed(level.columns.columns)}
    if given is not None and given not in level.columns:
        known = ", ".join(map(str, level.columns.columns[:8])) or "none"
        faults.append(Fault(f"the {what}", f"have no column '{given}'", f"name one of: {known}"))
        return None
    usual = (by_name[name] for name in SPLITS if name in by_name)
    return given or next((name for name in usual if _says_parts(level.columns[name])), None)


def _says_parts(column: pd.Series) -> bool:
    cells = column.dropna()
    return not is_number(column) and any(part_of(cell) for cell in cells.unique())


def parts_given(level: Level, split: str | None, faults: list[Fault]) -> np.ndarray | None:
    """The part of each row as the user gave it, None for an empty cell; None where no column says it."""
    if split is None:
        return None
    column = text_column(level.columns[split])
    parts = column.map(part_of, na_action="ignore").to_numpy(dtype=object)
    for row in np.flatnonzero(pd.isna(parts) & column.notna().to_numpy()):
        what = f"has '{column[row]}' in the column '{split}'"
        faults.append(Fault(level.place(row), what, f"parts are called {', '.join(SPOKEN)}"))
    return np.where(pd.isna(parts), None, parts)


def classes_given(level: Level, label: str, faults: list[Fault]) -> np.ndarray:
    """The class of each row as text, None where it has none; decimals are faults."""
    column = level.columns[label]
    if is_number(column):
        for row in np.flatnonzero(column.notna() & (column % 1 != 0)):
            what = f"has {column[row]:g} in the column of classes '{label}'"
            faults.append(
                Fault(level.place(row), what, f"correct it; numbers to predict are named by data.targets=[{label}]")
            )
            return np.full(len(level), None, dtype=object)
    text = text_column(column)
    if not text.notna().any():
        faults.append(
            Fault(f"the column '{label}'", "is empty in every row", "fill it, or name another with data.label")
        )
    return text.where(text.notna(), None).to_numpy(dtype=object)


def targets_given(level: Level, targets: tuple[str, ...], faults: list[Fault]) -> np.ndarray:
    """Numbers to predict, float64 (rows, targets), NaN where they were not measured; words are faults."""
    values = np.full((len(level), len(targets)), np.nan)
    for place, name in enumerate(targets):
        column = level.columns[name]
        if not is_number(column):
            row = int(np.flatnonzero(column.notna())[0]) if column.notna().any() else 0
            what = f"has '{column[row]}' in the column '{name}', which is to be predicted as a number"
            faults.append(Fault(level.place(row), what, f"correct it; for classes give data.label={name}"))
        elif not column.notna().any():
            faults.append(
                Fault(f"the column '{name}'", "has no number in any row", "fill it, or leave it out of data.targets")
            )
        else:
            faults += beyond(level, [name])
            values[:, place] = column
    return values


def constant(targets: tuple[str, ...], values: np.ndarray) -> list[Fault]:
    """A fault where none of the targets ever changes among rows of training, (rows, targets)."""
    told = [column[~np.isnan(column)] for column in values.T]
    if not targets or any(len(column) == 0 or column.min() != column.max() for column in told):
        return []
    what = f"is {told[0][0]:g} in every training row"
    return [Fault(f"the column '{targets[0]}'", what, "there is nothing to learn; name another with data.targets")]


def unlearnable(
    roles: Roles, parts: Mapping[str, np.ndarray], classes: np.ndarray, measured: np.ndarray, level: Level, one: str
) -> list[Fault]:
    """What keeps a network from learning: parts without rows, classes that no training row has.

    Args:
        roles: of the columns.
        parts: rows of each part.
        classes: of each row, None where unknown.
        measured: numbers to predict, (rows, targets).
        level: the rows.
        one: what a row is: node, graph.
    """
    faults = [
        Fault(f"the {part} part", f"has no {one}", f"give data.val_fraction above 0, or more {one}s")
        for part in ("train", "val")
        if not len(parts[part])
    ]
    if faults or not roles.label:
        return faults or constant(roles.targets, measured[parts["train"]])
    known = set(classes[parts["train"]]) - {None}
    if len(known) < 2:
        what = f"has one class in its training part ({', '.join(known) or 'none'})"
        return [Fault(f"the column '{roles.label}'", what, "a classifier needs two or more")]
    for part, rows in parts.items():
        for row in rows:
            if classes[row] is None:
                faults.append(Fault(level.place(row), f"is in the {part} part and has no class", "add it"))
            elif classes[row] not in known:
                what = f"has the class '{classes[row]}', which no training {one} has"
                faults.append(Fault(level.place(row), what, "add some to train on"))
    return faults


@dataclass(frozen=True)
class EdgeRules:
    """What is done about edges.

    Args:
        directed: an edge leads in the direction in which it is listed; else both ways.
        self_loops: edges from a node to itself: keep, drop.
        repeated: edges listed again in the same direction: keep, drop.
    """

    directed: bool = False
    self_loops: Literal["keep", "drop"] = "keep"
    repeated: Literal["keep", "drop"] = "keep"


@dataclass
class Edges:
    """Edges as messages go along them.

    Args:
        ends: source and target of each.
        columns: what is known of each.
        remarks: what was done.
    """

    ends: np.ndarray
    columns: pd.DataFrame
    remarks: list[str] = field(default_factory=list)


def edges_of(tables: GraphTables, rules: EdgeRules) -> Edges:
    """The edges by the user's rules, those of one graph together, and in words what was unusual."""
    ends, kept, remarks = tables.ends, np.arange(tables.ends.shape[1]), []
    nodes = len(tables.nodes)
    for option, find, words in (
        ("self_loops", directions.loops, "lead from a node to itself"),
        ("repeated", partial(directions.repeated, nodes=nodes), "are listed again in the same direction"),
    ):
        if len(unusual := find(ends)):
            where = tables.edges.place(int(kept[unusual[0]]))
            dropped = getattr(rules, option) == "drop"
            done = "left out" if dropped else f"kept; data.{option}=drop leaves them out"
            remarks.append(f"{len(unusual):,} edges {words}, the first in {where}: {done}")
            if dropped:
                kept = np.setdiff1d(kept, kept[unusual])
                ends = tables.ends[:, kept]
    if not rules.directed:
        both = directions.both_ways(ends, nodes)
        remarks += _said(both, ends)
        ends, kept = both.ends, kept[both.origin]
    order = np.argsort(tables.graph_of[ends[0]], kind="stable") if ends.shape[1] else np.zeros(0, dtype=np.int64)
    columns = tables.edges.columns.iloc[kept[order]].reset_index(drop=True)
    return Edges(ends[:, order], columns, remarks)


def _said(both: directions.BothWays, listed: np.ndarray) -> list[str]:
    apart = int((listed[0] != listed[1]).sum())
    if not apart:
        return []
    if not both.added:
        return ["each edge is listed in both directions and taken as it is"]
    if both.added == apart:
        return ["each edge is listed in one direction and taken to lead both ways; data.directed=true keeps directions"]
    pairs = f"{(apart - both.added) // 2:,} edges are listed in both directions, {both.added:,} in one"
    return [f"{pairs} and taken to lead both ways; data.directed=true keeps directions"]


@dataclass
class Features:
    """Names of the columns that a network sees, and of those that are only kept for outputs."""

    nodes: list[str]
    edges: list[str]
    graphs: list[str]
    kept: list[str] = field(default_factory=list)


def features_of(tables: GraphTables, roles: dict[str, Roles]) -> tuple[Features, list[str]]:
    """Columns of each level but those with a role and names, and what to say of these.

    Args:
        tables: what was read.
        roles: of the levels "nodes" and "graphs", where they have any.
    """
    chosen: dict[str, list[str]] = {}
    kept, remarks = [], []
    for name in ("nodes", "edges", "graphs"):
        level = getattr(tables, name)
        free = [column for column in level.columns if column not in roles.get(name, Roles()).all]
        named = {column for column in free if names_each_row(level.columns[column])}
        if name == "graphs" and (words := [c for c in free if not is_number(level.columns[c]) and c not in named]):
            remarks += [f"column '{column}' of the graphs is of words: kept, not learnt from" for column in words]
            kept += words
            free = [column for column in free if column not in words]
        kept += sorted(named)
        chosen[name] = [column for column in free if column not in named]
        remarks += [
            f"column '{column}' of the {name} names each row: kept, not learnt from" for column in sorted(named)
        ]
    return Features(**chosen, kept=kept), remarks
