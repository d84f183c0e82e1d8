"""Parts of a table of molecules; rows of one molecule stay together wherever the user has not said otherwise.

A split takes units (lists of rows that must not be torn apart) in some order, and cuts that order.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import torch
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from ....core.data.splits import stratified_split
from ....core.errors import QuintetError

PARTS = ("train", "val", "test")
WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
WORDS |= {"test": "test", "testing": "test", "holdout": "test"}
KINDS = ("random", "stratified", "scaffold", "time", "group")

SplitKind = Literal["random", "stratified", "scaffold", "time", "group"]
Parts = dict[str, list[int]]


def random_split(molecules: Sequence[Hashable], fractions: Mapping[str, float], seed: int) -> Parts:
    """`torch.randperm(rows)` cut at the shares of train, val and test.

    Where rows are of one molecule, all of them go where the first of them in the table went.
    """
    order = torch.randperm(len(molecules), generator=torch.Generator().manual_seed(seed)).tolist()
    part_of = {row: part for part, rows in cut(order, fractions).items() for row in rows}
    first: dict[Hashable, int] = {}
    for row, molecule in enumerate(molecules):
        first.setdefault(molecule, row)
    return _collected({row: part_of[first[molecule]] for row, molecule in enumerate(molecules)})


def cut(order: Sequence[int], fractions: Mapping[str, float]) -> Parts:
    """An order of rows as train, val and test, one behind the other."""
    rows = len(order)
    train = int(rows * (1 - fractions["val"] - fractions["test"]) + 1e-9)
    val = int(rows * fractions["val"] + 1e-9) if fractions["test"] else rows - train
    return {"train": list(order[:train]), "val": list(order[train : train + val]), "test": list(order[train + val :])}


def scaffold_split(scaffolds: Sequence[Hashable], fractions: Mapping[str, float]) -> Parts:
    """Whole scaffolds, the most frequent first: into train while they fit, then into val, the rest into test.

    Paper: "MoleculeNet: A Benchmark for Molecular Machine Learning" (arXiv 1703.00564).
    """
    parts: Parts = {part: [] for part in PARTS}
    room = {"train": len(scaffolds) * (1 - fractions["val"] - fractions["test"]) + 1e-9}
    room["val"] = len(scaffolds) * fractions["val"] + 1e-9
    last = "test" if fractions["test"] else "val"
    for unit in by_size(scaffolds):
        # The most frequent is trained on whatever its size.
        fitting = (part for part in room if not parts["train"] or len(parts[part]) + len(unit) <= room[part])
        parts[next(fitting, last)] += unit
    return _sorted(parts)


def by_size(keys: Sequence[Hashable]) -> list[list[int]]:
    """Rows of each key, those of the most frequent key first, of equally frequent ones in the order of the table."""
    units: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        units[key].append(row)
    return sorted(units.values(), key=lambda unit: (-len(unit), unit[0]))


def time_split(times: Sequence[float | int], fractions: Mapping[str, float]) -> Parts:
    """The latest rows are the test, those before them the validation; rows of one time keep the order of the table."""
    order = sorted(range(len(times)), key=lambda row: times[row])
    return _sorted(cut(order, fractions))


def grouped_split(
    strata: Sequence[Hashable], groups: Sequence[Hashable], fractions: Mapping[str, float], seed: int
) -> Parts:
    """Each stratum gives its share to each part; a group is never torn apart."""
    chosen = stratified_split(strata, dict(fractions), seed, groups)
    return {part: chosen[part] for part in PARTS}


def fold_split(units: Sequence[Sequence[int]], fold: int, folds: int) -> Parts:
    """One of `folds` rounds: a fold is the test, the next one the validation, all others are trained on.

    Each unit goes to the fold that has the fewest rows so far.
    """
    members: list[list[int]] = [[] for _ in range(folds)]
    for unit in units:
        min(members, key=len).extend(unit)
    test, val = fold, (fold + 1) % folds
    train = [row for number, rows in enumerate(members) if number not in (test, val) for row in rows]
    return _sorted({"train": train, "val": members[val], "test": members[test]})


def shuffled(units: Sequence[Sequence[int]], seed: int) -> list[Sequence[int]]:
    """Units in a random order."""
    order = torch.randperm(len(units), generator=torch.Generator().manual_seed(seed)).tolist()
    return [units[number] for number in order]


def given_split(
    words: Sequence[str], molecules: Sequence[Hashable], fractions: Mapping[str, float], seed: int
) -> Parts:
    """Parts as a column names them; a validation that it does not name is taken from the training rows."""
    parts = _collected({row: WORDS[word.strip().lower()] for row, word in enumerate(words)})
    if parts["val"] or not parts["train"] or not fractions["val"]:
        return parts
    pool = parts["train"]
    inner = random_split([molecules[row] for row in pool], {"val": fractions["val"], "test": 0.0}, seed)
    return parts | {part: [pool[at] for at in inner[part]] for part in ("train", "val")}


def together(*ties: Sequence[Hashable]) -> list[int]:
    """A number for each row, the same for rows that share a key in any of `ties`; chains count."""
    parent = list(range(len(ties[0])))

    def root_of(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for keys in ties:
        first: dict[Hashable, int] = {}
        for row, key in enumerate(keys):
            parent[root_of(row)] = root_of(first.setdefault(key, row))
    return [root_of(row) for row in range(len(parent))]


def scaffold_of(smiles: str) -> str:
    """The rings of a molecule and what links them (Bemis-Murcko), as SMILES without stereochemistry; "" without rings.

    Paper: "The Properties of Known Drugs. 1. Molecular Frameworks", J. Med. Chem. 1996, 39, 2887.
    """
    molecule = Chem.MolFromSmiles(smiles)
    try:
        return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule)
    except (ValueError, RuntimeError):  # a scaffold whose rings cannot be made aromatic without what was cut off
        return Chem.MolToSmiles(molecule, isomericSmiles=False)


def check_folds(fold: int | None, folds: int | None, kind: str | None) -> None:
    """Raises QuintetError where they do not go together."""
    if fold is None and folds is None:
        return
    if folds is None or fold is None:
        raise QuintetError("data.fold and data.folds go together: fold=0 folds=5 is the first of five rounds")
    if folds < 3 or not 0 <= fold < folds:
        raise QuintetError(f"data.fold={fold} of data.folds={folds}; folds are 3 or more, and counted from 0")
    if kind == "time":
        raise QuintetError("data.folds makes no rounds of a split by time; leave one of the two out")


def _collected(part_of: Mapping[int, str]) -> Parts:
    parts: Parts = {part: [] for part in PARTS}
    for row, part in part_of.items():
        parts[part].append(row)
    return _sorted(parts)


def _sorted(parts: Parts) -> Parts:
    return {part: sorted(rows) for part, rows in parts.items()}
