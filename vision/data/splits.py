"""Parts of labelled images: as the user split them, and the rest stratified so that equal files stay together."""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ...core.data.faults import Fault
from ...core.data.splits import check_fractions as check_fractions
from ...core.data.splits import stratified_split as stratified_split
from ...core.errors import QuintetError
from ...core.writing.console import printable


def remedy_without(stage: str, fractions: Mapping[str, float], images: str) -> str:
    """What to do where a part has nothing in it."""
    if stage == "val" and fractions["val"] == 0:
        return "give data.val_fraction above 0, or a val folder"
    return f"add more {images}, or a {stage} folder"


def say_part(
    stage: str, parts: Mapping[str, Sequence[Any]], origins: Mapping[str, str], root: Path, trained: bool
) -> None:
    """Prints which part of the images a trained model is measured on, where it is not all of them."""
    number, total = len(parts[stage]), sum(map(len, parts.values()))
    if not trained or number == total:
        return
    other = {"test": "val", "val": "test"}[stage]
    all_of_them = f"; data.{stage}_fraction=1 data.{other}_fraction=0 takes all" if origins[stage] != "as given" else ""
    text = f"{stage} on {number:,} of the {total:,} images of {root} ({origins[stage]}){all_of_them}"
    rank_zero_only(print)(printable(text))


def split_entries(
    entries: Sequence[Any],
    facts: Mapping[Path, Any],
    fractions: Mapping[str, float],
    seed: int,
    each: str = " of each class",
    label_of: Callable[[Any], Hashable] = attrgetter("label"),
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """The parts as the user split them, where what they left open is split off the rest; and where each came from.

    Args:
        entries: with a path, a label, and what the user said of split and group.
        facts: of each path; equal files are kept together by their digest.
        fractions: shares for "val" and "test".
        seed: of the shuffle.
        each: what the shares are taken of, for people.
        label_of: the class of an entry, of which every part gets its share.
    """
    parts: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for entry in entries:
        parts[entry.split or "train"].append(entry)
    origins = dict.fromkeys(parts, "as given")
    open_parts = {name: fraction for name, fraction in fractions.items() if not parts[name]}
    if parts["train"] and any(open_parts.values()):
        pool = parts["train"]
        groups = belonging_together(pool, facts)
        chosen = stratified_split([label_of(entry) for entry in pool], open_parts, seed, groups)
        for name, indices in chosen.items():
            parts[name] = [pool[index] for index in indices]
        for name, fraction in open_parts.items():
            origins[name] = f"{fraction:.0%}{each}, seed {seed}" if fraction else "none wanted"
        origins["train"] = "the rest"
    return parts, origins


def belonging_together(entries: Sequence[Any], facts: Mapping[Path, Any]) -> list[int]:
    """A number for each entry, the same for all that must not stand on two sides: equal files, and those of a group.

    Chains count: an equal file in two groups makes them one.
    """
    parent = list(range(len(entries)))

    def root_of(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, entry in enumerate(entries):
        ties = [("file", facts[entry.path].digest)] + ([("group", entry.group)] if entry.group else [])
        for tie in ties:
            parent[root_of(index)] = root_of(first.setdefault(tie, index))
    return [root_of(index) for index in range(len(entries))]


def named_groups(
    entries: Sequence[Any], pattern: str | None, root: Path, name_of: Callable[[Path], str]
) -> tuple[list[Any], list[Fault]]:
    """Entries with the group that a regular expression finds in their path below the user's folder.

    The group is what the first bracket matches, or the whole match without one. A fault for every path without a match.
    Raises QuintetError for a pattern that is none.
    """
    if pattern is None:
        return list(entries), []
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise QuintetError(f"data.group is no regular expression: {pattern!r} ({error})") from None
    named, faults = [], []
    for entry in entries:
        found = search(name_of(entry.path))
        if found:
            named.append(replace(entry, group=found[1] if found.re.groups else found[0]))
        else:
            remedy = "make data.group match every path, e.g. by an empty alternative"
            faults.append(Fault(entry.where or name_of(entry.path), f"does not match data.group={pattern}", remedy))
    return named, faults


def divided_groups(parts: Mapping[str, Sequence[Any]]) -> list[str]:
    """A remark on groups that the user's own split puts into several parts."""
    where: dict[str, list[str]] = {}
    for part, entries in parts.items():
        for group in {entry.group for entry in entries if entry.group}:
            where.setdefault(group, []).append(part)
    divided = {group: names for group, names in where.items() if len(names) > 1}
    if not divided:
        return []
    group, names = next(iter(sorted(divided.items())))
    stand = "1 group stands" if len(divided) == 1 else f"{len(divided)} groups stand"
    return [f"{stand} in two parts (leakage), e.g. {group} in {' and '.join(names)}"]
