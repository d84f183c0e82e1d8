"""From an examined table to its parts, and what the parts say of the targets."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ....core.data.faults import Fault
from ....core.errors import QuintetError
from . import splits as splits
from .examination import MoleculeExamination
from .smiles import silent
from .splits import Parts

BINS, IN_A_BIN = 10, 20  # strata of a target that is a number at most, and rows of one at least


def divided(found: MoleculeExamination, usable: Sequence[int], splitting: Any, seed: int) -> tuple[Parts, str]:
    """Parts of the usable molecules, by their places among them, and where the parts come from.

    Raises QuintetError where a split needs a column that is not named.
    """
    roles, read = found.roles, found.molecules
    places = [read.positions[number] for number in usable]
    molecules = [read.canonical[number] for number in usable]
    kind = splitting.kind or (
        "column" if roles.split else "time" if roles.time else "group" if roles.group else "random"
    )
    for needed in ("time", "group"):
        if kind == needed and getattr(roles, needed) is None:
            raise QuintetError(f"data.split={kind} needs a column; name it with data.{kind}")
    fractions = splitting.fractions
    shares = f"{fractions['val']:.0%} val, {fractions['test']:.0%} test, seed {seed}"
    if kind == "column":
        words = found.table.frame[roles.split].iloc[places].tolist()
        return splits.given_split(words, molecules, fractions, seed), f"the column '{roles.split}'"
    if kind == "time":
        times = times_of(found.table.frame[roles.time].iloc[places], f"{found.table.where} column '{roles.time}'")
        return splits.time_split(times, fractions), f"'{roles.time}', the latest to test"
    keys = _keys(found, usable, kind, molecules, places)
    if splitting.folds is not None:
        units = _units(found, places, kind, keys, seed)
        if splitting.folds > len(units):
            told = f"{len(units)} molecules, scaffolds or groups"
            raise QuintetError(f"data.folds={splitting.folds} is more than the {told} of {found.table.where}")
        return splits.fold_split(
            units, splitting.fold, splitting.folds
        ), f"{kind}, fold {splitting.fold} of {splitting.folds}"
    if kind == "scaffold":
        return splits.scaffold_split(keys, fractions), f"scaffolds, the most frequent to train, {shares}"
    if kind == "random":
        return splits.random_split(keys, fractions, seed), f"random, {shares}"
    strata = strata_of(found, places) if kind == "stratified" else [0] * len(places)
    return splits.grouped_split(strata, keys, fractions, seed), f"{kind}, {shares}"


def _keys(
    found: MoleculeExamination, usable: Sequence[int], kind: str, molecules: Sequence[str], places: Sequence[int]
) -> Sequence[Hashable]:
    """What must not be torn apart: molecules, and scaffolds and groups where they are asked for."""
    ties: list[Sequence[Hashable]] = [molecules]
    if kind == "scaffold":
        with silent():
            ties = [[splits.scaffold_of(found.molecules.canonical[number]) for number in usable]]
    if found.roles.group is not None:
        ties.append(found.table.frame[found.roles.group].iloc[places].tolist())
    return ties[0] if len(ties) == 1 else splits.together(*ties)


def _units(
    found: MoleculeExamination, places: Sequence[int], kind: str, keys: Sequence[Hashable], seed: int
) -> list[Sequence[int]]:
    """Rows that stay together, in the order in which folds are filled."""
    units = splits.by_size(keys)
    if kind in ("scaffold", "group"):
        return list(units)
    mixed = splits.shuffled(units, seed)
    if kind == "stratified":
        strata = strata_of(found, places)
        return sorted(mixed, key=lambda unit: strata[unit[0]])
    return mixed


def strata_of(found: MoleculeExamination, places: Sequence[int]) -> list[int]:
    """Classes, or tenths of the first target; -1 where it was not measured."""
    column = found.targets.values[list(places), 0]
    if found.roles.kind == "numbers":
        bins = max(1, min(BINS, len(column) // IN_A_BIN))
        edges = np.nanquantile(column, np.linspace(0, 1, bins + 1)[1:-1])
        return np.where(np.isnan(column), -1, np.digitize(column, edges)).tolist()
    return np.where(np.isnan(column), -1, column).astype(int).tolist()


def times_of(column: pd.Series, where: str) -> list[float] | list[int]:
    """Numbers, or dates as numbers. Raises QuintetError for a cell that is neither."""
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.isna().any():
        stamps = pd.to_datetime(column, errors="coerce", format="mixed", utc=True)
        if stamps.isna().any():
            text = column[stamps.isna()].iloc[0]
            raise QuintetError(f"{where} has '{text[:60]}', which is no date; write dates as 2024-01-31, or numbers")
        return stamps.astype("int64").tolist()
    return numbers.tolist()


def unlearnable(found: MoleculeExamination, trained: bool, fractions: dict[str, float]) -> list[Fault]:
    """What keeps a model from learning: parts without molecules, targets that training rows say nothing of."""
    if trained:
        return []
    where, faults = found.table.where, []
    for part in ("train", "val"):
        if not found.parts[part]:
            what = f"leaves no molecule for {part} of {sum(map(len, found.parts.values())):,}"
            faults.append(Fault(where, what, "change data.split or data.val_fraction, or give more rows"))
    if faults:
        return faults
    rows = {part: [found.molecules.positions[number] for number in numbers] for part, numbers in found.parts.items()}
    if found.roles.kind == "classes":
        return _unlearnable_classes(found, rows)
    constant = []
    for name, column in zip(found.roles.targets, found.targets.values[rows["train"]].T, strict=True):
        if np.isnan(column).all():
            what = "has no number in any training row"
            faults.append(Fault(f"{where} column '{name}'", what, "leave it out of data.targets"))
        elif np.nanmin(column) == np.nanmax(column):
            what = f"is {np.nanmin(column):g} in every training row"
            constant.append(Fault(f"{where} column '{name}'", what, "there is nothing to learn; name another target"))
    # Beside others, a rare label that training lacks is no more than worth knowing.
    return faults or (constant if len(constant) == len(found.roles.targets) else [])


def _unlearnable_classes(found: MoleculeExamination, rows: dict[str, list[int]]) -> list[Fault]:
    values = {part: found.targets.values[places, 0] for part, places in rows.items()}
    known = set(values["train"][~np.isnan(values["train"])].tolist())
    where = f"{found.table.where} column '{found.roles.targets[0]}'"
    if len(known) < 2:
        return [Fault(where, "has fewer than two classes to train on", "a classifier needs two or more")]
    return [
        Fault(
            where,
            f"has the class '{found.targets.words[int(value)]}' in {part} alone",
            "add rows of it, or split=stratified",
        )
        for part in ("val", "test")
        for value in sorted(set(values[part][~np.isnan(values[part])].tolist()) - known)
    ]


def target_statistics(found: MoleculeExamination) -> dict[str, Any]:
    """What a description says of the targets, from the training rows."""
    rows = [found.molecules.positions[number] for number in found.parts["train"]]
    values = found.targets.values[rows]
    if found.roles.kind == "classes":
        counts = pd.Series(values[:, 0]).dropna().astype(int).value_counts()
        return {"classes": {word: int(counts[at]) for at, word in enumerate(found.targets.words) if at in counts}}
    columns = dict(zip(found.roles.targets, values.T, strict=True))
    if found.roles.kind == "labels":
        return {"positives": {name: int(np.nansum(column)) for name, column in columns.items()}}
    return {"target_scale": {name: [float(np.nanmean(column)), _deviation(column)] for name, column in columns.items()}}


def _deviation(column: np.ndarray) -> float:
    """The standard deviation, 1 of a column that never changes."""
    std = float(np.nanstd(column))
    return std if std > 1e-9 * max(1.0, float(np.nanmax(np.abs(column)))) else 1.0
