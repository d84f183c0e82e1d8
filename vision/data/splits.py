"""Seeded stratified splits that never separate what belongs together."""

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import QuintetError


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Raises QuintetError where they are no shares of one whole."""
    for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value <= 1:
            raise QuintetError(f"data.{name} is {value}; it lies between 0 and 1")
    if val_fraction + test_fraction > 1:
        raise QuintetError(f"data.val_fraction {val_fraction} + data.test_fraction {test_fraction} is more than 1")


def remedy_without(stage: str, fractions: Mapping[str, float], images: str) -> str:
    """What to do where a part has nothing in it."""
    if stage == "val" and fractions["val"] == 0:
        return "give data.val_fraction above 0, or a val folder"
    return f"add more {images}, or a {stage} folder"


def split_entries(
    entries: Sequence[Any],
    facts: Mapping[Path, Any],
    fractions: Mapping[str, float],
    seed: int,
    each: str = " of each class",
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """The parts as the user split them, where what they left open is split off the rest; and where each came from.

    Args:
        entries: with a path, a label, and what the user said of split and group.
        facts: of each path; equal files are kept together by their digest.
        fractions: shares for "val" and "test".
        seed: of the shuffle.
        each: what the shares are taken of, for people.
    """
    parts: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for entry in entries:
        parts[entry.split or "train"].append(entry)
    origins = dict.fromkeys(parts, "as given")
    open_parts = {name: fraction for name, fraction in fractions.items() if not parts[name]}
    if parts["train"] and any(open_parts.values()):
        pool = parts["train"]
        # Equal files, or what the user calls a group, must not stand on both sides.
        groups = [entry.group or facts[entry.path].digest for entry in pool]
        chosen = stratified_split([entry.label for entry in pool], open_parts, seed, groups)
        for name, indices in chosen.items():
            parts[name] = [pool[index] for index in indices]
        for name, fraction in open_parts.items():
            origins[name] = f"{fraction:.0%}{each}, seed {seed}" if fraction else "none wanted"
        origins["train"] = "the rest"
    return parts, origins


def stratified_split(
    labels: Sequence[Hashable],
    fractions: Mapping[str, float],
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
    rest: str = "train",
) -> dict[str, list[int]]:
    """Indices of each part: every class gives its fraction to each of them, what is left goes to `rest`.

    The parts are disjoint and complete. A class is shuffled by (seed, class) alone, so adding images of one class moves
    no image of another. A class with enough images gives each part at least one; every class keeps some in `rest`.

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
        for position, bundle in enumerate(bundles, 1):
            fitting = next((name for name in wanted if room[name] >= len(bundle)), None)
            # The last bundle stays, so that rounding never takes a class away from training.
            stays = fitting is None or position == len(bundles)
            name = (wanted[-1] if nothing_left else rest) if stays else fitting
            parts[name] += bundle
            if name in room:
                room[name] -= len(bundle)
    return {name: sorted(indices) for name, indices in parts.items()}
