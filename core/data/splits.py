"""Seeded stratified splits that never separate what belongs together."""

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from ..errors import QuintetError


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Raises QuintetError where they are no shares of one whole."""
    for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value <= 1:
            raise QuintetError(f"data.{name} is {value}; it lies between 0 and 1")
    if val_fraction + test_fraction > 1:
        raise QuintetError(f"data.val_fraction {val_fraction} + data.test_fraction {test_fraction} is more than 1")


def stratified_split(
    labels: Sequence[Hashable],
    fractions: Mapping[str, float],
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
    rest: str = "train",
) -> dict[str, list[int]]:
    """Indices of each part: every class gives its fraction to each of them, what is left goes to `rest`.

    The parts are disjoint and complete. A class is shuffled by (seed, class) alone, so adding samples of one class
    moves none of another. A class with enough of them gives each part at least one; every class keeps some in `rest`.

    Args:
        labels: class of each sample.
        fractions: share of each part, e.g. {"val": 0.15, "test": 0.15}; they sum to at most 1.
        seed: of the shuffle.
        groups: samples of one group stay in one part; the group counts for the class of its first sample.
        rest: name of the part that takes what is left.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index in range(len(labels)):
        members[index if groups is None else groups[index]].append(index)
    by_label: dict[Hashable, list[list[int]]] = defaultdict(list)
    for indices in members.values():
        by_label[labels[indices[0]]].append(indices)
    nothing_left = sum(fractions.values()) > 1 - 1e-9
    wanted = [name for name, fraction in fractions.items() if fraction > 0]
    parts: dict[str, list[int]] = {name: [] for name in (rest, *fractions)}
    for label, bundles in by_label.items():
        random.Random(f"{seed}/{label}").shuffle(bundles)
        total = sum(len(bundle) for bundle in bundles)
        at_least = 1 if len(bundles) > len(wanted) else 0
        room = {name: max(at_least, int(total * fractions[name] + 0.5)) for name in wanted}
        without = set(wanted) if at_least else set()  # parts that have nothing of this class yet
        for position, bundle in enumerate(bundles, 1):
            # A group is not cut: a part takes it where that brings it nearer to its share, or it would go without.
            fitting = next((name for name in wanted if 2 * room[name] >= len(bundle) or name in without), None)
            # The last bundle stays, so that rounding never takes a class away from training.
            stays = fitting is None or position == len(bundles)
            name = (wanted[-1] if nothing_left else rest) if stays else fitting
            parts[name] += bundle
            without.discard(name)
            if name in room:
                room[name] -= len(bundle)
    return {name: sorted(indices) for name, indices in parts.items()}
