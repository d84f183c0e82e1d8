"""What a person reads of a table of molecules before training: columns, parts, targets, sizes, elements, problems."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from ....core.data.problems import SHOWN, problems_table
from ....core.data.report import stacked
from ..description import GraphDescription
from .cells import cells_of
from .examination import MoleculeExamination, elements_of

KINDS = {"numbers": "number", "labels": "0 or 1", "classes": "class", None: ""}


def report(
    found: MoleculeExamination, remarks: Sequence[str], known: GraphDescription | None, skipped: bool = False
) -> Table:
    """The findings of an examination as tables in one column.

    Args:
        found: the examination.
        remarks: what is worth knowing.
        known: what a model is told, where faults do not stand in the way.
        skipped: faulty rows were left out rather than refused.
    """
    return stacked(
        Text(found.table.where, style="bold"),
        _facts(found, known),
        _columns(found),
        _parts(found) if found.parts else None,
        _classes(found) if found.roles.kind == "classes" and found.parts else None,
        problems_table(found.all_faults(), remarks, skipped),
    )


def _facts(found: MoleculeExamination, known: GraphDescription | None) -> Table:
    table, read = Table.grid(padding=(0, 2)), found.molecules
    unread = f", {len(read.reasons):,} of them no molecule" if read.reasons else ""
    table.add_row(f"{found.table.unit}s", f"{len(found.table.frame):,}{unread}")
    if len(read.store):
        nodes, bonds = read.store.node_counts, read.store.edge_counts // 2
        middle, rings = int(nodes.median()), int((bonds - nodes + 1).clamp(min=0).float().median())
        table.add_row("atoms", f"{middle} in the middle, {int(nodes.min())} to {int(nodes.max())}; {rings} rings")
        counts = elements_of(found).most_common()
        told = ", ".join(f"{element} {count:,}" for element, count in counts[:SHOWN])
        table.add_row("molecules with", told + (", ..." if len(counts) > SHOWN else ""))
        table.add_row("different", f"{len(set(read.canonical)):,} molecules")
        table.add_row("memory", f"{read.bytes_each / 1000:.1f} kB a molecule")
    if found.parts:
        table.add_row("split", Text(found.origin))
    if known and known.graph_numbers:
        table.add_row("descriptors", f"{len(known.graph_numbers)} that change among training molecules")
    if known and known.encodings:
        table.add_row("encodings", ", ".join(f"{name} {width}" for name, width in known.encodings.items()))
    return table


def _columns(found: MoleculeExamination) -> Table:
    table = Table("column", "taken for", box=None, pad_edge=False, header_style="bold")
    for column in ("given", "mean", "least", "most"):
        table.add_column(column, justify="right")
    names = sorted(found.table.frame.columns, key=lambda name: not found.roles.role_of(name))
    for name in names[:SHOWN]:
        cells, role = cells_of(found.table.frame[name]), found.roles.role_of(name)
        told = f"target, {KINDS[found.roles.kind]}" if role == "target" else role or f"not read ({cells.kind})"
        given = f"{1 - cells.missing.mean():.1%}"
        measured = cells.kind == "numbers" and role not in ("id", "smiles", "split", "group")
        table.add_row(Text(name), told, given, *_numbers(cells.values if measured else np.array([])))
    if len(names) > SHOWN:
        table.add_row(f"and {len(names) - SHOWN} more")
    return table


def _numbers(values: np.ndarray) -> list[str]:
    observed = values[np.isfinite(values)]
    return [f"{pick(observed):,.4g}" for pick in (np.mean, np.min, np.max)] if len(observed) else [""] * 3


def _parts(found: MoleculeExamination) -> Table:
    """Molecules of each part, and what each target is there."""
    table = Table("part", box=None, pad_edge=False, header_style="bold")
    table.add_column("molecules", justify="right")
    targets = [] if found.roles.kind == "classes" else found.roles.targets[:4]
    for name in targets:
        table.add_column(Text(name if len(name) <= 24 else f"{name[:23]}…"), justify="right")
    for part, numbers in found.parts.items():
        values = found.targets.values[[found.molecules.positions[number] for number in numbers]]
        table.add_row(part, f"{len(numbers):,}", *(_summary(values[:, at], found) for at in range(len(targets))))
    return table


def _summary(column: np.ndarray, found: MoleculeExamination) -> str:
    seen = column[~np.isnan(column)]
    if not len(seen):
        return "-"
    if found.roles.kind == "labels":
        return f"{int(seen.sum()):,} of {len(seen):,}"
    gaps = "" if len(seen) == len(column) else f" ({len(seen):,})"
    return f"{seen.mean():.3g} ± {seen.std():.2g}{gaps}"


def _classes(found: MoleculeExamination) -> Table:
    table = Table("class", box=None, pad_edge=False, header_style="bold")
    counts = {}
    for part, numbers in found.parts.items():
        table.add_column(part, justify="right")
        values = found.targets.values[[found.molecules.positions[number] for number in numbers], 0]
        counts[part] = np.bincount(values[~np.isnan(values)].astype(int), minlength=len(found.targets.words))
    for number, word in enumerate(found.targets.words[:SHOWN]):
        table.add_row(Text(word), *(f"{count[number]:,}" for count in counts.values()))
    if len(found.targets.words) > SHOWN:
        table.add_row(f"and {len(found.targets.words) - SHOWN} more")
    return table
