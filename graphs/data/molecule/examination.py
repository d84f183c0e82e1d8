"""What was found in a table of molecules: parts, targets, what is wrong with rows and what is worth knowing."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ....core.data.faults import Fault
from ..files.tables import LARGEST
from .cells import cells_of, wrong_labels, wrong_numbers
from .columns import Roles
from .files import MoleculeTable
from .reading import ReadMolecules
from .smiles import quoted
from .splits import WORDS, Parts

NAMED = 3  # examples that a remark names
REMEDY = "correct it, or leave such rows out with data.on_error=skip"


@dataclass
class Targets:
    """What is to be predicted of each row of the table.

    Args:
        values: (rows, targets), NaN where not measured; of classes one column of words' numbers, NaN where unknown.
        words: of classes, sorted.
        faults: of rows, by position.
    """

    values: np.ndarray
    words: list[str] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)


@dataclass
class MoleculeExamination:
    """A table, looked through.

    Args:
        table: as it was read.
        roles: of its columns.
        molecules: that could be read.
        targets: of all rows.
        row_faults: what is wrong with single rows, by position: such rows can be left out.
        faults: what has to be decided about the whole.
        unlearnable: what keeps a model from learning from the rows that are left.
        remarks: what is worth knowing.
        parts: numbers of molecules (not of rows) in each part.
        origin: where the parts come from.
    """

    table: MoleculeTable
    roles: Roles
    molecules: ReadMolecules
    targets: Targets
    row_faults: dict[int, str]
    faults: list[Fault]
    unlearnable: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    parts: Parts = field(default_factory=dict)
    origin: str = ""

    def all_faults(self) -> list[Fault]:
        """Those of the whole, those of rows in their order, and what then is left to learn from."""
        rows = [Fault(self.table.row(at), what, REMEDY) for at, what in sorted(self.row_faults.items())]
        return [*self.faults, *rows, *self.unlearnable]


def targets_of(table: MoleculeTable, roles: Roles, known_words: Sequence[str] | None = None) -> Targets:
    """The cells of all target columns, and what is wrong with them."""
    found = Targets(np.full((len(table.frame), max(1, len(roles.targets))), np.nan))
    if roles.kind == "classes" and roles.targets:
        cells = cells_of(table.frame[roles.targets[0]])
        found.words = list(known_words or sorted(set(cells.classes[~cells.missing]), key=_order))
        numbers = {word: number for number, word in enumerate(found.words)}
        found.values[:, 0] = [numbers.get(word, np.nan) for word in cells.classes]
        unknown = ~cells.missing & np.isnan(found.values[:, 0])
        for at in np.flatnonzero(unknown):
            found.faults[int(at)] = f"has the class {quoted(cells.text[at])}, which the model does not know"
        return found
    wrong = wrong_labels if roles.kind == "labels" else wrong_numbers
    for column, name in enumerate(roles.targets):
        cells = cells_of(table.frame[name])
        found.values[:, column] = np.where(np.abs(cells.values) <= LARGEST, cells.values, np.nan)
        for at, what in wrong(cells, name):
            found.faults.setdefault(at, what)
    return found


def _order(word: str) -> tuple[bool, int, str]:
    whole = word.isascii() and word.isdigit()
    return not whole, int(word) if whole else 0, word


def split_faults(table: MoleculeTable, column: str) -> dict[int, str]:
    """Rows whose cell names no part."""
    cells = enumerate(table.frame[column])
    return {
        at: f"has {quoted(cell)} in '{column}', which is none of train, val and test"
        for at, cell in cells
        if cell.strip().lower() not in WORDS
    }


# Remarks


def remarks_on(found: MoleculeExamination) -> Iterator[str]:
    """What is worth knowing before training."""
    read, table = found.molecules, found.table
    salts = [at for at, parts in zip(read.positions, read.fragments, strict=True) if parts > 1]
    if salts:
        yield (
            f"{_rows(len(salts))} of several molecules (salts, mixtures), e.g. {table.row(salts[0])}: "
            f"{quoted(str(table.frame[found.roles.smiles].iloc[salts[0]]))}; data.strip_salts=true keeps the largest"
        )
    yield from _duplicates(found)
    yield from _across_parts(found)
    if found.roles.targets:
        usable = np.array([at for at in read.positions if at not in found.row_faults], int)
        empty = int(np.isnan(found.targets.values[usable]).all(1).sum())
        if empty:
            yield f"{_rows(empty)} without any target, in no part"
    unread = [name for name in found.roles.others if cells_of(table.frame[name]).kind in ("numbers", "labels")]
    if unread:
        named = ", ".join(unread[:5]) + (", ..." if len(unread) > 5 else "")
        yield f"columns of numbers that are not read: {named}; data.descriptors=[...] or =columns makes them features"


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"


def _groups(keys: Sequence[str]) -> dict[str, list[int]]:
    """Numbers of molecules by a key that several of them have."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        members[key].append(number)
    return {key: numbers for key, numbers in members.items() if len(numbers) > 1}


def _duplicates(found: MoleculeExamination) -> Iterator[str]:
    """Molecules that stand in several rows, and those of them that say different things."""
    groups = _groups(found.molecules.canonical)
    if not groups:
        return
    places = found.molecules.positions
    first = next(iter(groups.values()))
    numbers = " and ".join(str(found.table.numbers[places[number]]) for number in first[:NAMED])
    stand = "1 molecule stands" if len(groups) == 1 else f"{len(groups):,} molecules stand"
    part_of = {number: part for part, members in found.parts.items() for number in members}
    whole = all(len({part_of[n] for n in members if n in part_of}) < 2 for members in groups.values())
    kept = "; they stay in one part" if found.parts and whole else ""
    yield f"{stand} in several {found.table.unit}s, e.g. {found.table.unit}s {numbers}{kept}"
    differing = [(numbers, at) for numbers in groups.values() if (at := _differing(found, numbers)) is not None]
    if differing:
        numbers, at = differing[0]
        values = found.targets.values[[places[number] for number in numbers], at]
        pair = [int(np.nanargmin(values)), int(np.nanargmax(values))]
        told = " and ".join(_told(found, values[place]) for place in pair)
        lines = " and ".join(str(found.table.numbers[places[numbers[place]]]) for place in pair)
        yield f"{len(differing):,} of them with different targets, e.g. {told} in {found.table.unit}s {lines}"


def _told(found: MoleculeExamination, value: float) -> str:
    return found.targets.words[int(value)] if found.targets.words else f"{value:.4g}"


def _differing(found: MoleculeExamination, numbers: Sequence[int]) -> int | None:
    """The first target of which some molecules that are one have different values."""
    values = found.targets.values[[found.molecules.positions[number] for number in numbers]]
    spread = np.nanmax(values, 0, initial=-np.inf) - np.nanmin(values, 0, initial=np.inf)
    return next((int(at) for at in np.flatnonzero(spread > 1e-9)), None)


def _across_parts(found: MoleculeExamination) -> Iterator[str]:
    """Molecules that stand in two parts, equal or but for stereochemistry and salts."""
    part_of = {number: part for part, numbers in found.parts.items() for number in numbers}
    for keys, what in ((found.molecules.canonical, ""), (found.molecules.flat, " but for stereochemistry or salts")):
        torn = [
            numbers
            for numbers in _groups(keys).values()
            if len({part_of[number] for number in numbers if number in part_of}) > 1
            and (not what or len({found.molecules.canonical[number] for number in numbers}) > 1)
        ]
        if torn:
            rows = [(found.table.numbers[found.molecules.positions[n]], part_of[n]) for n in torn[0] if n in part_of]
            first = rows[0]
            other = next(row for row in rows if row[1] != first[1])
            stand = "1 molecule stands" if len(torn) == 1 else f"{len(torn):,} molecules stand"
            yield (
                f"{stand} in two parts{what} (leakage), e.g. {found.table.unit} {first[0]} in {first[1]} and "
                f"{other[0]} in {other[1]}"
            )


def elements_of(found: MoleculeExamination) -> Counter[str]:
    """How many molecules hold each element."""
    kinds = list(found.molecules.atoms.numbers)
    numbers = {element: number for number, element in enumerate(dict.fromkeys(words[0] for words in kinds))}
    if not numbers:
        return Counter()
    lookup = np.array([numbers[words[0]] for words in kinds])
    owner = np.repeat(np.arange(len(found.molecules.store)), found.molecules.store.node_counts.numpy())
    pairs = np.unique(owner * len(numbers) + lookup[found.molecules.store.nodes["atom"].numpy()])
    counts = np.bincount(pairs % len(numbers), minlength=len(numbers))
    return Counter({element: int(counts[number]) for element, number in numbers.items()})
