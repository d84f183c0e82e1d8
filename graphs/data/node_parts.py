"""Which nodes of one graph are for training, validation and test."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...core.data.splits import check_fractions, stratified_split
from ...core.errors import QuintetError
from .files.graph_tables import PARTS


@dataclass(frozen=True)
class Shares:
    """How parts are drawn that the user did not give.

    Args:
        val: share of each class for validation; a whole number above 1 is a count of nodes of all classes.
        test: likewise for the test.
        per_class: training nodes of each class; None for all that validation and test leave.
    """

    val: float | int = 0.2
    test: float | int = 0.2
    per_class: int | None = None

    def __post_init__(self) -> None:
        if self.per_class is None:
            check_fractions(self.val, self.test)
        elif self.per_class < 1:
            raise QuintetError(f"data.per_class is {self.per_class}; give at least 1")

    @property
    def fractions(self) -> dict[str, float | int]:
        return {"val": self.val, "test": self.test}


def node_parts(classes: np.ndarray, given: np.ndarray | None, shares: Shares, seed: int) -> dict[str, np.ndarray]:
    """Numbers of the nodes of each part, rising: as given, and what is left open split off the training nodes.

    Args:
        classes: of each node; None for one that is in no part that is drawn here.
        given: the part of each node or None; None where the user gave none.
        shares: how the others are drawn.
        seed: of the draw.
    """
    if given is None:
        pool = np.flatnonzero(np.array([name is not None for name in classes], dtype=bool))
        if not len(pool):
            return dict.fromkeys(PARTS, pool)  # nothing is known of any node, which only predicting allows
        if shares.per_class is not None:
            return _per_class(classes, pool, shares, seed)
        return _drawn(classes, pool, shares.fractions, seed)
    parts = {part: np.flatnonzero(given == part) for part in PARTS}
    wanted = {part: share for part, share in shares.fractions.items() if not len(parts[part])}
    # Where the user gave a training part alone, validation and test are drawn from it.
    return parts | _drawn(classes, parts["train"], wanted, seed) if wanted.keys() >= {"val"} else parts


def _drawn(classes: np.ndarray, pool: np.ndarray, wanted: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    chosen = stratified_split([classes[node] for node in pool], wanted, seed)
    return {part: pool[indices] for part, indices in chosen.items()}


def _per_class(classes: np.ndarray, pool: np.ndarray, shares: Shares, seed: int) -> dict[str, np.ndarray]:
    """So many training nodes of each class, then counts or shares of the others, as published for citation graphs."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(pool)
    seen: dict[object, int] = {}
    training = np.zeros(len(shuffled), dtype=bool)
    for place, node in enumerate(shuffled):
        seen[classes[node]] = seen.get(classes[node], 0) + 1
        training[place] = seen[classes[node]] <= shares.per_class
    others = shuffled[~training]
    counts = [int(share if share > 1 else share * len(others)) for share in (shares.val, shares.test)]
    if sum(counts) > len(others):
        raise QuintetError(
            f"data.val_fraction and data.test_fraction ask for {sum(counts):,} nodes; "
            f"{len(others):,} are left beside those of training"
        )
    val, test = others[: counts[0]], others[counts[0] : sum(counts)]
    return {"train": np.sort(shuffled[training]), "val": np.sort(val), "test": np.sort(test)}
