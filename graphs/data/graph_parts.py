"""Which of many graphs are for training, validation and test."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...core.data.splits import check_fractions, stratified_split
from ...core.errors import QuintetError
from .files.graph_tables import PARTS


@dataclass(frozen=True)
class Draw:
    """How parts are drawn that the user did not give.

    Args:
        val: share for validation.
        test: share for the test.
        by: "stratified" takes the shares of each class, "random" of all.
        folds: number of parts of equal size of which one is the test; None draws `test`.
        fold: which of them, from 0.
    """

    val: float = 0.15
    test: float = 0.15
    by: Literal["stratified", "random"] = "stratified"
    folds: int | None = None
    fold: int = 0

    def __post_init__(self) -> None:
        check_fractions(self.val, self.test)
        if self.folds is not None and self.folds < 2:
            raise QuintetError(f"data.folds is {self.folds}; give at least 2")
        if not 0 <= self.fold < (self.folds or 1):
            raise QuintetError(f"data.fold is {self.fold}; it lies from 0 to data.folds - 1")


def graph_parts(classes: list[str], given: np.ndarray | None, draw: Draw, seed: int) -> dict[str, np.ndarray]:
    """Numbers of the graphs of each part, rising: as given, and what is left open split off those of training.

    Args:
        classes: of each graph; all alike where there are none.
        given: the part of each graph or None; None where the user gave none.
        draw: how the others are drawn.
        seed: of the draw.
    """
    kinds = classes if draw.by == "stratified" else [""] * len(classes)
    if given is not None:
        parts = {part: np.flatnonzero(given == part) for part in PARTS}
        wanted = {part: share for part, share in (("val", draw.val), ("test", draw.test)) if not len(parts[part])}
        # A part that was given alone says that there is no other.
        return parts | _drawn(kinds, parts["train"], wanted, seed) if "val" in wanted else parts
    pool = np.arange(len(classes))
    if draw.folds is None:
        return _drawn(kinds, pool, {"val": draw.val, "test": draw.test}, seed)
    test = _fold(kinds, draw.folds, draw.fold, seed)
    left = np.setdiff1d(pool, test)
    return _drawn(kinds, left, {"val": draw.val}, seed) | {"test": test}


def _drawn(kinds: list[str], pool: np.ndarray, wanted: dict[str, float], seed: int) -> dict[str, np.ndarray]:
    chosen = stratified_split([kinds[graph] for graph in pool], wanted, seed)
    return {part: pool[indices] for part, indices in chosen.items()}


def _fold(kinds: list[str], folds: int, fold: int, seed: int) -> np.ndarray:
    """Every `folds`-th graph of a shuffled order in which those of one class follow each other."""
    if len(kinds) < folds:
        raise QuintetError(f"data.folds is {folds}, and there are {len(kinds)} graphs; give fewer")
    shuffled = np.random.default_rng(seed).permutation(len(kinds))
    names = np.array(kinds, dtype=object)[shuffled]
    _, codes = np.unique(names.astype(str), return_inverse=True)
    return np.sort(shuffled[np.argsort(codes, kind="stable")][fold::folds])
