"""What masks leave open: whether 255 is a class, whether grays are classes, and which way up masks were drawn.

Where several readings are possible and no option says which is meant, nothing is chosen: the fault names the readings
and the option for each.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...core.data.faults import Fault
from .mask_sources import MaskEntry
from .masks import MaskFacts
from .scan import ImageFacts, relative

VOID = 255
DEEP_VOID = 65535  # what is void, or a class, in masks of 16 bits
IGNORED_AT_MOST = 0.01  # share of pixels that may be void without being asked for
GRAYS = 10  # values from which masks of dark and bright were drawn with soft edges
ENDS = (16, 239)  # the last dark and the first bright value of such masks, whose compression moves both
MANY = 64  # values in one mask that are a photograph's, a map of distances or objects rather than classes
HIGH = 64  # an id beyond this, with others left out below, is as likely a gray value
LEVELS, EDGES = 6, 0.1  # values that areas of soft-edged masks may have, and the share of all others together
COUNTS = 3  # different numbers of ids, each counting on from the first, from which masks seem to count their objects
WHOLE = 0.999  # share of a class beside which nothing is learned


def void_is_proven(pixels: Mapping[int, int], names: Sequence[str] | None) -> bool:
    """Whether 255 counts nowhere though nobody said so: beside the ids of classes one after the other, and seldom.

    Seldom is less than a hundredth of all pixels and less than the classes without the first have; where as many names
    are given as there are other ids, those name them.
    """
    others = _besides_void(pixels)
    if len(others) < 2 or not _in_a_row(others):
        return False
    if names:
        return len(names) == len(others)
    share = pixels[VOID] / sum(pixels.values())
    return share <= IGNORED_AT_MOST and pixels[VOID] < sum(pixels[value] for value in others[1:])


def pixels_of(facts: Iterable[MaskFacts]) -> Counter[int]:
    """Pixels of each id in all masks together."""
    pixels: Counter[int] = Counter()
    for fact in facts:
        pixels.update(fact.ids)
    return pixels


def _besides_void(pixels: Mapping[int, int]) -> list[int]:
    return [value for value in sorted(pixels) if value != VOID]


def _in_a_row(values: Sequence[int]) -> bool:
    """Whether sorted ids count on from 0 or 1."""
    return bool(values) and values[0] in (0, 1) and values[-1] - values[0] == len(values) - 1


def doubt_about_ids(
    masks: Mapping[Path, MaskFacts], root: Path, names: Sequence[str] | None, void_open: bool, said: bool = False
) -> Fault | None:
    """What must be asked before the values of masks are classes; of the whole folder, so that it is never skipped.

    Args:
        masks: facts of each.
        root: the user's folder.
        names: of the classes, where they are given.
        void_open: 255 may be a class or not.
        said: the user says what is void.
    """
    pixels = pixels_of(masks.values())
    values = sorted(pixels)
    if not values or (names and len(names) == len(values)):
        return None
    gray = not any(fact.palette for fact in masks.values())
    return (
        (_objects(masks, root) if gray and not names else None)
        or (_photographs(masks, root) if gray and not names else None)
        or (_soft_edges(pixels, root) if gray else None)
        or (_grays(masks, pixels, root) if gray and not names else None)
        or (_open_void(masks, pixels, root) if void_open and VOID in pixels else None)
        or (_deep_void(pixels, root) if not said else None)
        or (_renumbered(masks, root) if not names else None)
    )


def _deep_void(pixels: Counter[int], root: Path) -> Fault | None:
    """65535 beside classes that count on from 0 or 1 may be void, as 255 is in masks of 8 bits."""
    others = sorted(value for value in pixels if value != DEEP_VOID)
    if DEEP_VOID not in pixels or len(others) < 2 or not _in_a_row(others):
        return None
    share = pixels[DEEP_VOID] / pixels.total()
    what = f"has masks of {others[0]} to {others[-1]} and {DEEP_VOID}, and {DEEP_VOID} ({share:.1%} of the pixels) may "
    remedy = f"say data.ignore_index=null (a class) or data.ignore_index={DEEP_VOID} (void)"
    return Fault(str(root), what + "be a class or void", remedy)


def _renumbered(masks: Mapping[Path, MaskFacts], root: Path) -> Fault | None:
    """Palettes in which one colour has another number from mask to mask, as programs number them that write few."""
    known: dict[tuple[int, ...], tuple[int, Path]] = {}
    for path, fact in sorted(masks.items()):
        if not fact.palette:
            continue
        colours = {value: tuple(fact.palette[3 * value : 3 * value + 3]) for value in sorted(fact.ids)}
        times = Counter(colours.values())
        for value, colour in colours.items():
            before, first = known.setdefault(colour, (value, path)) if times[colour] == 1 else (value, path)
            if before != value:
                what = f"has palettes that differ: the colour {colour} is {before} in {relative(first, root)}"
                what += f" and {value} in {relative(path, root)}"
                remedy = "save all masks with one palette; if the numbers are right, name their classes in data.classes"
                return Fault(str(root), what, remedy)
    return None


def count_objects(masks: Mapping[Path, MaskFacts]) -> bool:
    """Whether masks seem to number the objects of each image: ids without gaps, to another end in each, and many."""
    ids = [sorted(fact.ids) for fact in masks.values() if not fact.palette]
    several = [values for values in ids if len(values) > 2]
    whole = [values for values in several if _in_a_row(values)]
    ends = {values[-1] for values in whole}
    return len(ends) >= COUNTS and max(ends) > GRAYS and 2 * len(whole) > len(several)


def _objects(masks: Mapping[Path, MaskFacts], root: Path) -> Fault | None:
    if not count_objects(masks):
        return None
    path, fact = max(masks.items(), key=lambda item: max(item[1].ids))
    other, fewer = min(masks.items(), key=lambda item: (max(item[1].ids), item[0]))
    what = f"has masks that seem to number objects, not classes: to {max(fact.ids)} in {relative(path, root)}, "
    what += f"to {max(fewer.ids)} in {relative(other, root)}"
    remedy = "data.threshold=1 reads all objects as one class; else give each pixel the id of its class, or, if these "
    return Fault(str(root), what, remedy + "are classes, name all in data.classes")


def _grays(masks: Mapping[Path, MaskFacts], pixels: Counter[int], root: Path) -> Fault | None:
    """Maps of probabilities in few steps, and soft edges between more than two classes."""
    others = _besides_void(pixels)
    if len(pixels) <= GRAYS or others[-1] < HIGH or others[-1] > 255 or _in_a_row(others):
        return None
    levels = [value for value, _ in pixels.most_common(LEVELS)]
    rest = pixels.total() - sum(pixels[value] for value in levels)
    edges = len(pixels) - LEVELS > GRAYS and rest < EDGES * pixels.total()
    if not edges and 2 * sum(len(fact.ids) > GRAYS for fact in masks.values()) <= len(masks):
        return None
    what = f"has masks of {len(pixels)} gray values up to {max(pixels)}: "
    what += "drawn or saved with soft edges, it seems" if edges else "probabilities or a picture, it seems, not classes"
    remedy = "export each class as one value, without soft edges; data.threshold=128 reads dark and bright as two "
    return Fault(str(root), what, remedy + "classes; if all are classes, name them in data.classes")


def nothing_beyond(threshold: int | None, masks: Sequence[MaskFacts], root: Path) -> Fault | None:
    """A fault where a threshold leaves one of its two classes empty."""
    values = set().union(*(fact.ids for fact in masks))
    if threshold is None or len(values) != 1:
        return None
    bright = max(values) > 0
    what = f"has training masks of which {'no value is below' if bright else 'no value reaches'} "
    what += f"data.threshold={threshold}"
    remedy = "give a higher one" if bright else "leave it out (masks of 0 and 1 need none), or give a lower one"
    return Fault(str(root), what, remedy)


def _photographs(masks: Mapping[Path, MaskFacts], root: Path) -> Fault | None:
    path, fact = max(masks.items(), key=lambda item: len(item[1].ids))
    if len(fact.ids) <= MANY:
        return None
    what = f"has masks of very many gray values, {relative(path, root)} {len(fact.ids)} of them: no classes, it seems"
    remedy = (
        "data.threshold=128 reads dark and bright as two classes; of single objects give each pixel the id of its "
        "class; if they are classes, name them in data.classes"
    )
    return Fault(str(root), what, remedy)


def soft_ones(masks: Mapping[Path, MaskFacts], names: Sequence[str] | None, root: Path) -> dict[Path, Fault]:
    """Masks of gray values among more masks without, and a fault for each."""
    soft = {
        path: f"holds {len(fact.ids)} values between black and white, others do not"
        for path, fact in masks.items()
        if not fact.palette and (len(fact.ids) > MANY or _is_soft(fact.ids))
    }
    if names or 2 * len(soft) >= len(masks) or count_objects(masks):
        return {}
    remedy = "export it without soft edges, or data.threshold=128 reads dark and bright as two classes"
    return {path: Fault(relative(path, root), what, remedy) for path, what in soft.items()}


def _is_soft(pixels: Mapping[int, int]) -> bool:
    """Whether most pixels are near black or white, and the others have many values that are no ids in a row."""
    dark = sum(count for value, count in pixels.items() if value <= ENDS[0])
    bright = sum(count for value, count in pixels.items() if value >= ENDS[1])
    others = _besides_void(pixels)
    like_ids = _in_a_row(others) and others[-1] < ENDS[1]
    if len(pixels) <= GRAYS or max(pixels) > 255 or like_ids or not (dark and bright):
        return False
    return 2 * (dark + bright) > sum(pixels.values())


def _soft_edges(pixels: Counter[int], root: Path) -> Fault | None:
    if not _is_soft(pixels):
        return None
    what = f"has masks of {len(pixels)} gray values, most of them near black or white: drawn or saved with soft edges"
    remedy = "data.threshold=128 reads dark and bright as two classes; if they are classes, name all in data.classes"
    return Fault(str(root), what, remedy)


def _open_void(masks: Mapping[Path, MaskFacts], pixels: Counter[int], root: Path) -> Fault:
    others = _besides_void(pixels)
    rare = min(others, key=lambda value: (pixels[value], value))
    example = next(path for path, fact in masks.items() if rare in fact.ids)
    listed = ", ".join(map(str, others[:8])) + (", ..." if len(others) > 8 else "")
    held = f"{pixels[rare]:,} pixel{'s' * (pixels[rare] > 1)} of {rare}"
    what = (
        f"has masks of {listed} and 255, and 255 ({pixels[VOID] / pixels.total():.1%} of the pixels) may be a class or "
        f"void; {relative(example, root)} has {held}, the rarest"
    )
    remedy = "say data.ignore_index=null (a class) or data.ignore_index=255 (void)"
    if 0 in pixels:
        remedy += ", or data.threshold=128 for black and white alone"
    return Fault(str(root), what, remedy)


def one_class_alone(
    pixels: Mapping[int, int], classes: Sequence[str], ids: Sequence[int], ignored: Sequence[int], root: Path
) -> list[Fault]:
    """A fault where one class has all training pixels that count, or all but fewer than are ignored."""
    counts = {name: pixels[value] for name, value in zip(classes, ids)}
    total, left_out = sum(counts.values()), sum(pixels[value] for value in ignored)
    name = max(counts, key=counts.__getitem__, default=None)
    if name is None or not total:
        return []
    rest = total - counts[name]
    if rest and (counts[name] / total < WHOLE or rest >= left_out):
        return []
    what = f"has training masks of which '{name}' covers {counts[name] / total:.2%}, so that there is nothing to learn"
    remedy = "give masks that hold other classes"
    if left_out:
        given = ",".join(map(str, ignored))
        remedy = f"data.ignore_index=[{given}] leaves {left_out:,} pixels out; is one of them a class (null for none)?"
    return [Fault(str(root), what, remedy)]


def doubts_about_turning(
    entries: Sequence[MaskEntry],
    facts: Mapping[Path, ImageFacts],
    masks: Mapping[Path, MaskFacts],
    orientation: str | None,
    root: Path,
) -> tuple[set[MaskEntry], list[Fault]]:
    """Pairs of which nobody knows which way up the mask was drawn, and one fault for all.

    An image whose EXIF tag turns it is seen in another way than it is stored. Where its mask has no such tag and the
    same size both ways, or the size of the stored pixels alone, the option data.mask_orientation decides.
    """
    if orientation is not None:
        return set(), []
    odd = {entry for entry in entries if _may_be_stored(facts[entry.path], masks[entry.mask])}
    if not odd:
        return odd, []
    first = min(odd, key=lambda entry: entry.path)
    like = f" ({len(odd)} images like it)" if len(odd) > 1 else ""
    what = f"is turned by its EXIF tag, and its mask may be drawn on what is seen or on what is stored{like}"
    remedy = "say data.mask_orientation=upright (what is seen) or data.mask_orientation=stored"
    return odd, [Fault(relative(first.path, root), what, remedy)]


def _may_be_stored(image: ImageFacts, mask: MaskFacts) -> bool:
    if image.orientation == 1 or mask.turned:
        return False
    stored = (image.width, image.height) if image.orientation < 5 else (image.height, image.width)
    return stored == (mask.width, mask.height)


def as_drawn(mask: MaskFacts, image: ImageFacts, orientation: str | None) -> tuple[int, int]:
    """Width and height of a mask once it is turned as its image is."""
    if turned_with(mask, image, orientation) >= 5:
        return mask.height, mask.width
    return mask.width, mask.height


def turned_with(mask: MaskFacts, image: ImageFacts, orientation: str | None) -> int:
    """The EXIF orientation by which a mask is turned: its image's, where it was drawn on the stored pixels."""
    return image.orientation if orientation == "stored" and not mask.turned else 1
