"""From the ids that masks hold to classes: which there are, what they are called, and which masks do not fit them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path

from ...core.data.faults import Fault
from .mask_doubts import (
    as_drawn,
    doubt_about_ids,
    doubts_about_turning,
    nothing_beyond,
    one_class_alone,
    pixels_of,
    soft_ones,
    void_is_proven,
)
from .mask_report import MaskExamination
from .mask_sources import MaskEntry, MaskListing
from .masks import MOST_CLASSES, MaskDescription, MaskFacts, distinct_colours, facts_of_mask
from .scan import ImageFacts, near_twins, other_bands, outliers, relative, scan, twins, unlike
from .splits import divided_groups, named_groups, split_entries

BINARY = ["background", "foreground"]


def examine(
    root: Path,
    listing: MaskListing,
    names: Sequence[str] | None,
    ignored_ids: Sequence[int] | None,
    fractions: Mapping[str, float],
    seed: int,
    channels: int = 3,
    group: str | None = None,
    described: MaskDescription | None = None,
    threshold: int | None = None,
    orientation: str | None = None,
) -> MaskExamination:
    """Looks through all images and masks of a listing; faults are listed, not raised.

    Args:
        root: the user's folder or CSV.
        listing: the pairs found there.
        names: of the classes, where the user gave them.
        ignored_ids: ids that count nowhere; None where nobody said.
        fractions: shares of "val" and "test" where the user has not split.
        seed: of the split.
        channels: of the images.
        group: regular expression of the group in an image's path.
        described: what a model was trained on, which then decides about classes.
        threshold: gray value from which masks are bright; None reads values as they are.
        orientation: "upright" where masks were drawn on images as they are seen, "stored" on their pixels as stored.
    """
    grouped, ungrouped = named_groups(listing.entries, group, root, lambda path: relative(path, root))
    facts, faults = scan([entry.path for entry in grouped], root)
    read = partial(facts_of_mask, threshold=threshold)
    masks, mask_faults = scan([entry.mask for entry in grouped], root, MaskFacts, read, f"threshold {threshold}")
    faults = [*listing.faults, *ungrouped, *faults, *mask_faults, *other_bands(facts, channels, root)]
    if described:
        faults += unlike(facts, described, root)
    readable = [entry for entry in grouped if entry.path in facts and entry.mask in masks]
    turned, doubts = doubts_about_turning(readable, facts, masks, orientation, root)
    readable = [entry for entry in readable if entry not in turned]
    matching = [entry for entry in readable if _same_size(entry, facts, masks, orientation)]
    faults += [*doubts, *(_size_fault(entry, facts, masks, root) for entry in readable if entry not in set(matching))]
    binary = _is_binary([masks[entry.mask] for entry in matching], ignored_ids)
    void = [] if binary else [255] if ignored_ids is None else ignored_ids
    rarest = _rarest({entry: masks[entry.mask].ids for entry in matching}, void)
    parts, origins = split_entries(matching, facts, fractions, seed, " of the images by their rarest class", rarest.get)
    remarks = [*listing.remarks, *divided_groups(parts)]
    if described:
        found = Classes(list(described.classes), list(described.ids), list(described.ignored_ids))
        palette = described.palette
    else:
        soft = soft_ones({entry.mask: masks[entry.mask] for entry in matching}, names, root)
        parts = {part: [entry for entry in entries if entry.mask not in soft] for part, entries in parts.items()}
        half = _half_binary(parts, masks)
        parts = {part: [entry for entry in entries if entry not in half] for part, entries in parts.items()}
        faults += [*soft.values(), *_half_binary_fault(half, root)]
        training = [masks[entry.mask] for entry in parts["train"]]
        in_use = {entry.mask: masks[entry.mask] for entries in parts.values() for entry in entries}
        found = classes_of(in_use, training, names, ignored_ids, root)
        if fault := nothing_beyond(threshold, training, root):
            found = Classes([], [], found.ignored, [fault])
        palette = _palette(training, found.names, found.ids)
    # What is wrong with all masks comes first: other faults may follow from it. But where nothing
    # could be read, the reason does.
    faults = [*found.faults, *faults] if parts["train"] else [*faults, *found.faults]
    known = {*found.ids, *found.ignored}
    unknown = {entry for entries in parts.values() for entry in entries if not masks[entry.mask].ids.keys() <= known}
    if found.ids:
        faults += _unknown_ids(unknown, masks, found.ids, found.ignored, root, bool(described or names))
    else:
        unknown = set()
    parts = {part: [entry for entry in entries if entry not in unknown] for part, entries in parts.items()}
    used = {entry.path for entries in parts.values() for entry in entries}
    facts = {path: fact for path, fact in facts.items() if path in used}
    remarks += [
        *found.remarks,
        *twins(parts, facts, root, "mask"),
        *near_twins(parts, facts, root),
        *outliers(facts, root),
    ]
    return MaskExamination(
        parts, origins, found.names, found.ids, found.ignored, palette, facts, masks, faults, remarks
    )


@dataclass(frozen=True)
class Classes:
    """Names and ids of classes, ids that count nowhere, and what is wrong or remarkable about them."""

    names: list[str]
    ids: list[int]
    ignored: list[int]
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def classes_of(
    masks: Mapping[Path, MaskFacts],
    training: Sequence[MaskFacts],
    names: Sequence[str] | None,
    ignored_ids: Sequence[int] | None,
    root: Path,
) -> Classes:
    """The classes of masks; none, and the fault that says why, where their values leave open what they mean.

    Args:
        masks: facts of all.
        training: facts of those that are trained on.
        names: of the classes, where the user gave them.
        ignored_ids: ids that count nowhere; None where nobody said.
        root: the user's folder.
    """
    pixels = pixels_of(masks.values())
    binary = _is_binary(masks.values(), ignored_ids)
    void_open = ignored_ids is None and 255 in pixels and not binary
    proven = void_open and void_is_proven(pixels, names)
    ignored = [255] if proven else list(ignored_ids or [])
    if doubt := doubt_about_ids(masks, root, names, void_open and not proven, ignored_ids is not None):
        return Classes([], [], ignored, [doubt])
    if binary:
        if names and len(names) != 2:
            what, remedy = (
                f"has masks of 0 and 255 alone, and names {len(names)} classes",
                "name two, or mend the masks",
            )
            return Classes([], [], ignored, [Fault(str(root), what, remedy)])
        found, ids = list(names or BINARY), [0, 255]
        remarks = [f"masks hold 0 and 255 alone: read as {found[0]} and {found[1]}"]
    else:
        seen = sorted(set().union(*(fact.ids for fact in training)) - set(ignored))
        (found, ids), remarks = _named(seen, names, ignored), []
    faults = _too_few_or_many(found, len(training), root)
    faults = faults or one_class_alone(pixels_of(training), found, ids, ignored, root)
    return Classes(found, ids, ignored, faults, remarks)


def _is_binary(masks: Iterable[MaskFacts], ignored_ids: Sequence[int] | None) -> bool:
    """Whether masks hold 0 and 255 alone, and nobody said that 255 counts nowhere."""
    values = set().union(*(fact.ids for fact in masks))
    return values <= {0, 255} and 255 in values and 255 not in (ignored_ids or [])


def _rarest(ids_of: Mapping[MaskEntry, Mapping[int, int]], ignored: Sequence[int]) -> dict[MaskEntry, int]:
    """Of each mask the id that fewest masks hold: what a split is stratified by."""
    held = Counter(value for ids in ids_of.values() for value in ids if value not in ignored)
    return {entry: min(ids, key=lambda value: (held.get(value, len(ids_of)), value)) for entry, ids in ids_of.items()}


def _named(seen: list[int], names: Sequence[str] | None, ignored: Sequence[int]) -> tuple[list[str], list[int]]:
    """Names and ids of the classes, from what the training masks hold and what the user says."""
    if not names:
        return (BINARY if seen == [0, 1] else [f"class {value}" for value in seen]), seen
    if len(names) == len(seen):
        return list(names), seen
    # Some named class does not occur: then names are those of the ids from 0 on.
    return list(names), list(islice((value for value in count() if value not in ignored), len(names)))


def _too_few_or_many(classes: Sequence[str], masks: int, root: Path) -> list[Fault]:
    if not masks:
        return [Fault(str(root), "has no masks to train on", "correct the files above, or add others")]
    if len(classes) < 2:
        found = f"only the class '{classes[0]}'" if classes else "no class"
        remedy = "a segmenter needs two; is the other one in data.ignore_index?"
        return [Fault(str(root), f"has masks of {found} to train on", remedy)]
    if len(classes) > MOST_CLASSES:
        remedy = "are these instances? give each pixel the id of its class"
        return [Fault(str(root), f"has masks of {len(classes)} classes, more than {MOST_CLASSES}", remedy)]
    return []


def _same_size(
    entry: MaskEntry, facts: Mapping[Path, ImageFacts], masks: Mapping[Path, MaskFacts], orientation: str | None
) -> bool:
    image = facts[entry.path]
    return (image.width, image.height) == as_drawn(masks[entry.mask], image, orientation)


def _size_fault(
    entry: MaskEntry, facts: Mapping[Path, ImageFacts], masks: Mapping[Path, MaskFacts], root: Path
) -> Fault:
    image, mask = facts[entry.path], masks[entry.mask]
    if entry.where and not entry.mask.is_relative_to(root if root.is_dir() else root.parent):
        sizes = f"says {mask.width} x {mask.height}, its image is {image.width} x {image.height}"
        return Fault(entry.where, sizes, "correct its height and width, and its polygons")
    what = f"is {mask.width} x {mask.height}, its image {relative(entry.path, root)} {image.width} x {image.height}"
    if (image.width, image.height) == (mask.height, mask.width):
        return Fault(relative(entry.mask, root), what, "turn the mask as the image is shown upright (EXIF)")
    return Fault(relative(entry.mask, root), what, "export the mask at the size of its image")


def _half_binary(parts: Mapping[str, Sequence[MaskEntry]], masks: Mapping[Path, MaskFacts]) -> set[MaskEntry]:
    """Masks of 0 and 255 among more masks of 0 and 1, whose objects would all be ignored."""
    ids_of = {entry: masks[entry.mask].ids.keys() for entries in parts.values() for entry in entries}
    odd = {entry for entry, ids in ids_of.items() if 255 in ids and ids <= {0, 255}}
    training = set().union(*(ids_of[entry] for entry in parts["train"] if entry not in odd))
    ones = sum(1 in ids for ids in ids_of.values())
    return odd if training - {255} == {0, 1} and len(odd) < ones else set()


def _half_binary_fault(odd: set[MaskEntry], root: Path) -> list[Fault]:
    if not odd:
        return []
    first = min(odd, key=lambda entry: entry.mask)
    what = f"holds 0 and 255 while others hold 0 and 1 ({len(odd)} mask{'s' * (len(odd) > 1)} like it)"
    return [Fault(relative(first.mask, root), what, "write 1 for 255 there, or 255 for 1 in the others")]


def _unknown_ids(
    entries: set[MaskEntry],
    masks: Mapping[Path, MaskFacts],
    ids: Sequence[int],
    ignored: Sequence[int],
    root: Path,
    named: bool,
) -> list[Fault]:
    """Ids that are no class, one fault an id."""
    examples: dict[int, list[tuple[Path, int]]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.mask):
        for value, pixels in masks[entry.mask].ids.items():
            if value not in ids and value not in ignored:
                examples[value].append((entry.mask, pixels))
    whole = list(ids) == list(range(ids[0], ids[-1] + 1))
    listed = f"{ids[0]} to {ids[-1]}" if whole else ", ".join(map(str, ids[:12])) + (", ..." if len(ids) > 12 else "")
    faults = []
    for value, found in sorted(examples.items()):
        which = "is no class" if named else "no training mask holds"
        masks_found = f"{len(found)} mask{'s' * (len(found) > 1)}, {sum(pixels for _, pixels in found):,} pixels"
        ignore = ",".join(map(str, [*ignored, value]))
        faults.append(
            Fault(
                relative(found[0][0], root),
                f"holds the id {value}, which {which} (classes are {listed}; {masks_found})",
                f"correct it, name it in data.classes, or leave it out of account with data.ignore_index=[{ignore}]",
            )
        )
    return faults


def _palette(training: Sequence[MaskFacts], classes: Sequence[str], ids: Sequence[int]) -> list[list[int]]:
    """Colours of the classes: the masks' own where they have a palette with different ones, else distinct ones."""
    for fact in training:
        if fact.palette and 3 * (max(ids, default=0) + 1) <= len(fact.palette):
            colours = [list(fact.palette[3 * value : 3 * value + 3]) for value in ids]
            if len(set(map(tuple, colours))) == len(colours):
                return colours
    # Black hides a class in an overlay, which is right for the background alone.
    unnamed = [f"class {value}" for value in ids]
    first = 0 if classes and classes[0].lower() in (unnamed[0], "background", "void", "other", "none") else 1
    return distinct_colours(len(ids) + first)[first:]
