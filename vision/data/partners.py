"""Photographs that may be masks: files that lie beside another image, are called as it is, and have its size."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePath

from ...core.data.faults import Fault
from .mask_sources import ENDINGS, IMAGE_FOLDERS, MASK_FOLDERS
from .scan import ImageFacts, relative
from .sources import Entry

LOSSY = (".jpg", ".jpeg", ".jfif", ".mpo")  # which no mask is saved as where there is a choice


def excluded(entries: Sequence[Entry], patterns: Sequence[str], root: Path) -> tuple[list[Entry], list[str]]:
    """The entries of which no pattern matches the path below the user's folder, and a remark on the others."""
    kept = [entry for entry in entries if not any(_matches(entry.path, pattern, root) for pattern in patterns)]
    left_out = len(entries) - len(kept)
    return kept, [f"data.exclude leaves {left_out:,} images out"] if left_out else []


def _matches(path: Path, pattern: str, root: Path) -> bool:
    return fnmatch(PurePath(relative(path, root)).as_posix(), pattern)


def masks_among(
    entries: Sequence[Entry], facts: Mapping[Path, ImageFacts], root: Path
) -> tuple[set[Entry], list[Fault]]:
    """Pairs of an image and what may be its mask, both of them, and one fault for all.

    In root/CLASS/{a.jpg, a.png}, {a.png, a_mask.png} or {images/a.jpg, masks/a.png} the second may be the mask of the
    first, or a photograph as well.
    """
    by_key: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        by_key[_key(entry.path, root)].append(entry)
    pairs: list[tuple[Entry, Entry, str]] = []
    for entry in entries:
        *folders, stem = _key(entry.path, root)
        for ending in ENDINGS:
            base = stem.removesuffix(ending) if ending else stem
            others = by_key.get((*folders, base), ()) if base and (base != stem or not ending) else ()
            for other in others:
                if entry is not other and _is_mask_of(entry, other, ending, facts, root):
                    pairs.append((entry, other, ending))
    if not pairs:
        return set(), []
    mask, image, ending = pairs[0]
    like = f" ({len(pairs):,} pairs like it)" if len(pairs) > 1 else ""
    what = f"may be the mask of {relative(image.path, root)}, and is no photograph then{like}"
    pattern = _pattern(mask.path, image.path, ending)
    remedy = f"leave masks out with data.exclude='{pattern}', or say data.exclude=[] where all are photographs"
    return {entry for pair in pairs for entry in pair[:2]}, [Fault(relative(mask.path, root), what, remedy)]


def _key(path: Path, root: Path) -> tuple[str, ...]:
    """The path below the root in lower case, without its suffix and without folders that say images or masks."""
    *folders, _ = PurePath(relative(path, root)).parts
    kept = (folder.lower() for folder in folders if folder.lower() not in (*IMAGE_FOLDERS, *MASK_FOLDERS))
    return (*kept, path.stem.lower())


def _is_mask_of(entry: Entry, other: Entry, ending: str, facts: Mapping[Path, ImageFacts], root: Path) -> bool:
    mask, image = facts[entry.path], facts[other.path]
    if (mask.width, mask.height) != (image.width, image.height):
        return False
    if ending:
        return True
    if entry.path.parent != other.path.parent:
        return any(part.lower() in MASK_FOLDERS for part in PurePath(relative(entry.path, root)).parts[:-1])
    # Of two files of one name the mask is the one saved without loss, or else the gray one, or else the later one.
    return _likeness(entry, mask) > _likeness(other, image)


def _likeness(entry: Entry, fact: ImageFacts) -> tuple[bool, bool, str]:
    return entry.path.suffix.lower() not in LOSSY, fact.mode in ("1", "L", "P"), entry.path.suffix


def _pattern(mask: Path, image: Path, ending: str) -> str:
    if ending:
        return f"*{mask.stem[-len(ending) :]}.*"
    return f"*{mask.suffix}" if mask.parent == image.parent else f"*{mask.parent.name}/*"
