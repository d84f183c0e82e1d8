"""Which column of a table of molecules is what: the molecule, its name, what is predicted, what is known of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ....core.data.faults import Fault
from ....core.errors import QuintetError, nearest
from ..description import GraphDescription
from ..files.tables import written_otherwise
from .cells import MOST_CLASSES, Cells, cells_of
from .files import OWN_FORMATS, MoleculeTable, format_of, read_table
from .smiles import Unreadable, quoted, read_smiles

RDKIT = "rdkit"  # descriptors that are computed
COLUMNS = "columns"  # all columns of numbers that have no other role
SMILES_NAMES = ("smiles", "smi", "cxsmiles", "structure", "molecule", "mol")
ID_NAMES = ("id", "name", "title", "compound", "molecule name", "compound name", "cas", "inchikey", "index")
TARGET_NAMES = ("target", "y", "label", "activity", "class")
SPLIT_NAMES = ("split", "subset", "partition")
PEEKED = 200  # rows from which a file is recognised
PROBED = 40  # cells that are tried where no name says which column holds molecules
OF_COLUMNS = ("smiles", "id", "split", "time", "group")  # options that each name a column
LISTED = 12  # columns that a message names

TargetKind = Literal["numbers", "labels", "classes"]


@dataclass
class Options:
    """What the user said of the columns; see `Molecules`."""

    smiles: str | None = None
    targets: list[str] | None = None
    id: str | None = None
    descriptors: list[str] = field(default_factory=list)
    split: str | None = None
    time: str | None = None
    group: str | None = None
    kind: TargetKind | None = None
    finds_split: bool = True


@dataclass
class Roles:
    """What each column is.

    Args:
        smiles: of the molecules.
        id: that names them.
        targets: to be predicted.
        kind: whether targets are numbers, labels of 0 and 1, or the words of one column are classes.
        descriptors: columns of numbers that the network is told.
        split: that says to which part a row belongs.
        time: that says when.
        group: of what stays together.
        others: columns that are not read.
        faults: what the user has to decide.
    """

    smiles: str
    id: str | None = None
    targets: list[str] = field(default_factory=list)
    kind: TargetKind | None = None
    descriptors: list[str] = field(default_factory=list)
    split: str | None = None
    time: str | None = None
    group: str | None = None
    others: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def role_of(self, name: str) -> str:
        """The role of a column in a word, "" of one that is not read."""
        for role in ("smiles", "id", "split", "time", "group"):
            if getattr(self, role) == name:
                return role
        return "target" if name in self.targets else "descriptor" if name in self.descriptors else ""


def find_roles(
    table: MoleculeTable,
    options: Options,
    known: GraphDescription | None,
    targets: bool,
    inherited: Collection[str] = (),
) -> Roles:
    """The role of every column; what cannot be decided becomes a fault that says what to write.

    Args:
        table: as it was read.
        options: of the user.
        known: of a trained model, which decides on targets and descriptors.
        targets: whether there must be targets.
        inherited: options that a checkpoint brought, and not the user, whose columns new files may lack.

    Raises QuintetError for an option that names no column, and where no column holds molecules.
    """
    names = list(table.frame.columns)
    if known is not None and not targets:
        # What says how training rows became parts, or what they were called, need not be there to predict.
        gone = [name for name in inherited if getattr(options, name, None) not in names]
        options = replace(options, **{name: None for name in OF_COLUMNS if name in gone})
    for option in OF_COLUMNS:
        _present(getattr(options, option), names, f"data.{option}", table.where)
    roles = Roles(_smiles_column(table, options, known), time=options.time, group=options.group)
    roles.split = options.split
    if options.finds_split and roles.split is None:
        roles.split = next((name for name in names if name.lower() in SPLIT_NAMES), None)
    taken = {roles.smiles, roles.time, roles.group, roles.split}
    named = set(options.targets or []) | set(options.descriptors)
    roles.id = options.id or _id_column(table, taken | named)
    roles.descriptors = _descriptor_columns(table, options, known, taken)
    taken |= {roles.id, *roles.descriptors}
    if targets:
        _find_targets(table, options, known, roles, taken)
    if COLUMNS in options.descriptors and known is None:
        free = [name for name in names if name not in taken | set(roles.targets)]
        roles.descriptors += [name for name in free if cells_of(table.frame[name]).kind in ("numbers", "labels")]
    roles.others = [name for name in names if not roles.role_of(name)]
    return roles


def _present(name: str | None, names: Sequence[str], option: str, where: str) -> None:
    if name is not None and name not in names:
        raise QuintetError(f"{option}: {where} has no column '{name}'; {nearest(name, names)}")


def _smiles_column(table: MoleculeTable, options: Options, known: GraphDescription | None) -> str:
    trained = known.reading.get("smiles") if known else None
    names = list(table.frame.columns)
    for name in (options.smiles, table.smiles, trained):
        if name in names:
            return str(name)
    by_name = [name for name in names if name.lower() == "smiles"] or [name for name in names if _named_smiles(name)]
    if len(by_name) == 1:
        others = [name for name in names if _named_smiles(name) and name not in by_name]
        if not [name for name in others if _holds_molecules(table, name)]:
            return by_name[0]
        by_name += others
    found = [name for name in by_name or names if _holds_molecules(table, name)]
    if len(found) == 1:
        return found[0]
    columns = ", ".join(found or names[:LISTED])
    what = "could all hold the molecules" if found else "hold no SMILES that can be read"
    raise QuintetError(f"{table.where}: the columns {columns} {what}; name the one of SMILES with data.smiles=COLUMN")


def holds_molecules(path: Path) -> bool:
    """Whether a file looks like molecules: by its format, or by a column of its first rows."""
    if format_of(path) in OWN_FORMATS:
        return True
    try:
        table = read_table(path, PEEKED)
    except QuintetError:
        return False
    return any(_holds_molecules(table, name, short=_named_smiles(name)) for name in table.frame.columns)


def _named_smiles(name: str) -> bool:
    return "smiles" in name.lower() or name.lower() in SMILES_NAMES


def _holds_molecules(table: MoleculeTable, name: str, short: bool = False) -> bool:
    """Whether most cells of a column can be read as molecules, of several letters unless they may be `short`."""
    cells = [cell for cell in table.frame[name].iloc[:: max(1, len(table.frame) // PROBED)] if cell]
    if not cells or all(cell.isdigit() for cell in cells) or (max(map(len, cells)) < 4 and not short):
        return False
    return bool(np.mean([_is_molecule(cell) for cell in cells]) > 0.7)


def _is_molecule(cell: str) -> bool:
    try:
        return read_smiles(cell) is not None
    except Unreadable:
        return False


def _id_column(table: MoleculeTable, taken: set[str | None]) -> str | None:
    if table.id is not None:
        return table.id
    free = [name for name in table.frame.columns if name not in taken]
    lowered = {name.lower().replace("_", " "): name for name in reversed(free)}
    exact = [lowered[name] for name in ID_NAMES if name in lowered]
    return next(iter(exact or [lowered[name] for name in lowered if name.endswith((" id", " name"))]), None)


def _descriptor_columns(
    table: MoleculeTable, options: Options, known: GraphDescription | None, taken: set[str | None]
) -> list[str]:
    """Columns that are named as descriptors. Raises QuintetError for one that is not there, or has another role."""
    names = list(table.frame.columns)
    if known is not None:
        wanted = list(known.reading.get("descriptor_columns") or [])
        if missing := [name for name in wanted if name not in names]:
            raise QuintetError(
                f"{table.where} has no column '{missing[0]}', a descriptor the model was trained with; add it"
            )
        return wanted
    wanted = [name for name in options.descriptors if name not in (RDKIT, COLUMNS)]
    for name in wanted:
        _present(name, names, "data.descriptors", table.where)
        if name in taken or name in (options.targets or []):
            raise QuintetError(f"data.descriptors: the column '{name}' has another role; leave it out of one of them")
    return wanted


# Targets


def _find_targets(
    table: MoleculeTable, options: Options, known: GraphDescription | None, roles: Roles, taken: set[str | None]
) -> None:
    names = list(table.frame.columns)
    if known is not None:
        for name in known.targets:
            if name not in names:
                raise QuintetError(f"{table.where} has no column '{name}', a target the model was trained on; add it")
        roles.targets, roles.kind = known.targets, known.reading.get("kind")
        return
    if options.targets is not None:
        for name in options.targets:
            _present(name, names, "data.targets", table.where)
            if name in taken:
                raise QuintetError(f"data.targets: the column '{name}' has another role; leave it out of one of them")
        roles.targets = list(options.targets)
    else:
        roles.targets = _unnamed_targets(table, roles, taken, options.kind)
    if roles.targets:
        _decide_kind(table, roles, options.kind)


def _unnamed_targets(table: MoleculeTable, roles: Roles, taken: set[str | None], kind: TargetKind | None) -> list[str]:
    """The targets where nothing else could be meant; else none, and a fault that says what to write."""
    cells = {name: cells_of(table.frame[name]) for name in table.frame.columns if name not in taken}
    named = [name for name in cells if name.lower() in TARGET_NAMES and cells[name].kind != "empty"]
    numbers = [name for name, column in cells.items() if column.kind in ("numbers", "labels")]
    labels = [name for name in numbers if cells[name].kind == "labels"]
    words = [name for name, column in cells.items() if _could_be_classes(column)]
    if len(named) == 1:
        return named
    if kind != "classes" and (len(numbers) == 1 or (numbers and numbers == labels)):
        return numbers
    otherwise = [name for name, column in cells.items() if column.kind == "words" and column.otherwise]
    if not numbers and len(words) == 1 and otherwise in ([], words):
        return words
    if not numbers and not words and len(otherwise) == 1:
        return otherwise
    could = list(dict.fromkeys([*numbers, *words, *otherwise]))
    told = ", ".join(could[:LISTED]) + (", ..." if len(could) > LISTED else "")
    what = f"has {len(could)} columns that could be predicted: {told}" if could else "has no column to be predicted"
    example = f"data.targets=[{could[-1]}]" if could else "data.targets=[COLUMN]"
    roles.faults.append(Fault(table.where, what, f"name the one, or those, that are meant, e.g. '{example}'"))
    return []


def _could_be_classes(cells: Cells) -> bool:
    return cells.kind == "words" and 2 <= len(cells.words) <= min(MOST_CLASSES, len(cells.text) // 2)


def _decide_kind(table: MoleculeTable, roles: Roles, kind: TargetKind | None) -> None:
    """What the targets are; a fault where they do not go together."""
    found = {name: cells_of(table.frame[name]).kind for name in roles.targets}
    for name in (name for name, what in found.items() if what == "empty"):
        roles.faults.append(Fault(f"{table.where} column '{name}'", "is empty", "leave it out of data.targets"))
    words = [name for name, what in found.items() if what == "words"]
    if kind == "classes" or (kind is None and words):
        if len(roles.targets) > 1:
            what = f"holds words, and there are {len(roles.targets)} targets"
            remedy = "name one column of classes, or columns of numbers alone, with data.targets"
            roles.faults.append(Fault(f"{table.where} column '{(words or roles.targets)[0]}'", what, remedy))
        roles.kind = "classes"
        cells = cells_of(table.frame[roles.targets[0]])
        if kind is None and (told := cells.otherwise):
            what = f"has {told}, e.g. {quoted(next(word for word in cells.words if written_otherwise([word])))}"
            remedy = "write numbers alone, as 1234.5, or data.kind=classes if these are classes"
            roles.faults.append(Fault(f"{table.where} column '{roles.targets[0]}'", what, remedy))
    else:
        all_labels = all(what in ("labels", "empty") for what in found.values())
        roles.kind = kind or ("labels" if all_labels else "numbers")
