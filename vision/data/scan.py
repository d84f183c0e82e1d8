"""Looks into every image file before training: can it be decoded whole, how large is it, has its content a twin.

What was found of a good file is remembered under the user's cache folder by path, size and time of change, so that only
new and changed files are decoded the next time.
"""

import contextlib
import hashlib
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from rich.progress import track

from ...core.data.faults import Fault, refusal
from ...core.errors import QuintetError
from ...core.weights.pretrained import cache_folder
from ...core.writing.console import printable
from ...core.writing.files import written_whole
from .bands import Bands, orientation_of, read_bands
from .files import bytes_of, image_formats
from .images import DEEP_MODES, ImageDescription, open_image, upright

VERSION = 3  # of what is remembered; another number forgets it
SHOWN_FROM = 300  # files to decode from which a progress bar appears
PRINT = 16  # side of the grid of an image's fingerprint
ALIKE = 12  # bits, of 256, in which the fingerprints of one picture saved twice may differ
COMPARED = 50_000_000  # pairs of fingerprints; of more images a part is compared
OUTLYING = 4  # how many times more or fewer pixels than the middle image make one remarkable


@dataclass(frozen=True)
class ImageFacts:
    """What a decoded file is.

    Args:
        width: upright.
        height: upright.
        mode: Pillow's, or number and type of the bands.
        digest: sha256 of its bytes.
        frames: pictures in the file.
        brightest: the largest value beyond 8 bits.
        bands: values of a pixel.
        picture: the bands are gray or colour, with or without transparency.
        span: least and largest value, where they are fractions or have a sign.
        fingerprint: hexadecimal bits, nearly the same for one picture saved twice.
        orientation: EXIF's, by which the stored pixels are turned to be upright.
    """

    width: int
    height: int
    mode: str
    digest: str
    frames: int = 1
    brightest: int | None = None
    bands: int = 3
    picture: bool = True
    span: Sequence[float] | None = None
    fingerprint: str = ""
    orientation: int = 1


def scan(
    paths: Iterable[Path],
    root: Path,
    kind: type = ImageFacts,
    read: Callable[[Path], Any] | None = None,
    manner: str = "",
) -> tuple[dict[Path, Any], list[Fault]]:
    """Facts of every file that can be decoded, and a fault for every other one.

    Args:
        paths: the files.
        root: the user's folder; names in faults are relative to it.
        kind: dataclass of the facts.
        read: from a path to its facts, or to a text that says what is wrong with it; None reads photographs.
        manner: of reading, where there are several; what was found in one is not remembered in another.
    """
    paths = list(dict.fromkeys(paths))
    read = read or facts_of
    memory = _Memory(root, kind, manner)
    facts = {path: known for path in paths if (known := memory.recall(path)) is not None}
    unknown = [path for path in paths if path not in facts]
    faults = []
    # Pillow lets go of the interpreter while it decodes, so threads use every core.
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        found = pool.map(read, unknown)
        shown = track(found, "checking images", len(unknown), transient=True, disable=len(unknown) < SHOWN_FROM)
        for path, result in zip(unknown, shown):
            if isinstance(result, kind):
                facts[path] = result
            else:
                faults.append(
                    Fault(
                        relative(path, root), result, "delete it, replace it, or leave it out with data.on_error=skip"
                    )
                )
    if unknown:
        memory.remember(facts)
    return facts, faults


def facts_of(path: Path) -> ImageFacts | str:
    """Facts of one file, or what is wrong with it."""
    try:
        content = bytes_of(path)
    except QuintetError as error:
        return str(error)
    try:
        digest = hashlib.sha256(content).hexdigest()
        bands = read_bands(content)
        if bands is not None:
            return _facts_of_bands(bands, digest)
        # At 1/8 size a JPEG's bytes are still read to their end, which finds a truncated one at half the cost.
        image = open_image(content, at_least=64)
        mode, bands_held = image.mode, len(image.getbands())
        values = np.asarray(image) if mode in DEEP_MODES else None
        if values is not None and values.min() < 0:
            return _facts_of_bands(Bands(values[..., None]), digest)
        brightest = None if values is None else int(values.max())
        # The second picture in a phone's MPO is a preview or a depth map, not a frame.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        width, height = Image.open(io.BytesIO(content), formats=image_formats()).size
        orientation = orientation_of(image.getexif())
        if orientation >= 5:
            width, height = height, width
        image = upright(image)
    except QuintetError as error:
        return str(error)
    except Exception as error:  # a damaged EXIF block or frame table
        return f"is damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    facts = ImageFacts(width, height, mode, digest, frames, brightest, bands_held, orientation=orientation)
    return replace(facts, fingerprint=fingerprint(image))


def _facts_of_bands(bands: Bands, digest: str) -> ImageFacts | str:
    values = bands.values
    height, width, number = values.shape
    if bands.numbers and not np.isfinite(values).all():
        return "holds values that are not finite (NaN or infinity)"
    low, high = values.min().item(), values.max().item()
    span = [float(low), float(high)] if bands.numbers else None
    brightest = None if bands.numbers or values.dtype == np.uint8 else high
    first = (values[..., 0].astype(np.float64) - low) * (255 / max(high - low, 1e-12))
    print_ = fingerprint(Image.fromarray(first.astype(np.uint8)))
    turned = bands.orientation
    return ImageFacts(width, height, bands.mode, digest, 1, brightest, number, bands.picture, span, print_, turned)


def fingerprint(image: Image.Image) -> str:
    """Bits of a picture that saving it again, smaller or with more loss, hardly changes: which of two neighbours on a
    coarse grid is brighter (the difference hash)."""
    gray = np.asarray(image.convert("L").resize((PRINT + 1, PRINT), Image.Resampling.BOX), np.int16)
    return np.packbits(gray[:, 1:] > gray[:, :-1]).tobytes().hex()


def relative(path: Path, root: Path) -> str:
    """A file's name as the user knows it: below their folder where it lies there."""
    folder = root if root.is_dir() else root.parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def refuse_unusable(faults: list[Fault], root: Path, skip: bool, known: bool) -> None:
    """Raises QuintetError where something stands in the way of training: a fault that is not or cannot be skipped.

    Args:
        faults: what an examination found.
        root: the user's folder.
        skip: faulty files are left out.
        known: the classes are those of a model, and nothing is trained.
    """
    if faults and not skip:
        raise refusal(faults, f"quintet inspect {root}")
    # What is wrong with the whole folder cannot be left out.
    if not known and (whole := [fault for fault in faults if fault.where == str(root)]):
        raise refusal(whole)


def usable(
    paths: Iterable[Path], faults: Sequence[Fault], root: Path, known: ImageDescription, skip: bool
) -> list[Path]:
    """The images that a model can predict, of those given; the others are refused, or said and left out."""
    paths = list(paths)
    facts, unreadable = scan(paths, root)
    faults = [*faults, *unreadable, *unlike(facts, known, root)]
    if faults and not (skip and facts):
        raise refusal(faults)
    for fault in faults:
        rank_zero_only(print)(printable(f"left out: {fault.where} {fault.what}"))
    return [path for path in paths if path in facts]


def unlike(facts: dict[Path, ImageFacts], known: ImageDescription, root: Path) -> list[Fault]:
    """Takes out images that a model cannot read as it was trained, and says why."""
    faults = other_bands(facts, known.channels, root) + too_bright(facts, known.bit_depth, root)
    if known.span is None:
        for path in [path for path, fact in facts.items() if fact.span is not None]:
            remedy = "convert it, or leave it out with data.on_error=skip"
            what = f"holds fractions or numbers with a sign ({facts.pop(path).mode}), the images trained on do not"
            faults.append(Fault(relative(path, root), what, remedy))
    return faults


def other_bands(facts: dict[Path, ImageFacts], channels: int, root: Path) -> list[Fault]:
    """Takes out images that cannot become so many channels, one fault a number of bands."""
    odd: dict[int, list[Path]] = defaultdict(list)
    for path, fact in facts.items():
        if fact.bands != channels and not (fact.picture and channels in (1, 3)):
            odd[fact.bands].append(path)
    faults = []
    for bands, paths in odd.items():
        like = f" ({len(paths)} images like it)" if len(paths) > 1 else ""
        has = "has 1 band" if bands == 1 else f"has {bands} bands"
        remedy = f"give data.channels={bands} data.normalization=data, or images of {channels} bands"
        faults.append(Fault(relative(paths[0], root), f"{has} and data.channels is {channels}{like}", remedy))
        for path in paths:
            del facts[path]
    return faults


def too_bright(facts: dict[Path, ImageFacts], bit_depth: int, root: Path) -> list[Fault]:
    """Takes out images whose values lie beyond what the model was trained on, one fault an image."""
    beyond = [path for path, fact in facts.items() if (fact.brightest or 0) >= 2**bit_depth]
    return [
        Fault(
            relative(path, root),
            f"holds the value {facts.pop(path).brightest}, the model was trained on {bit_depth}-bit images",
            "rescale it, or leave it out with data.on_error=skip",
        )
        for path in beyond
    ]


def twins(parts: Mapping[str, Sequence[Any]], facts: Mapping[Path, ImageFacts], root: Path, label: str) -> list[str]:
    """Remarks on equal files that stand in two parts, or that differ in their attribute `label`."""
    seen: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for part, entries in parts.items():
        for entry in entries:
            seen[facts[entry.path].digest].append((part, entry))
    equal = [found for found in seen.values() if len(found) > 1]
    remarks = []
    for what, key in (
        ("in two parts (leakage)", lambda item: item[0]),
        (f"under two {label}s", lambda item: getattr(item[1], label)),
    ):
        if found := [group for group in equal if len({key(item) for item in group}) > 1]:
            first, second = (relative(item[1].path, root) for item in found[0][:2])
            stand = "1 file stands" if len(found) == 1 else f"{len(found)} files stand"
            remarks.append(f"{stand} {what}, e.g. {first} = {second}")
    return remarks


def outliers(facts: Mapping[Path, ImageFacts], root: Path) -> list[str]:
    """A remark on images far larger or smaller than the others."""
    if len(facts) < 3:
        return []
    middle = median(fact.width * fact.height for fact in facts.values())
    odd = [path for path, fact in facts.items() if not middle / OUTLYING < fact.width * fact.height < middle * OUTLYING]
    if not odd:
        return []
    first = facts[odd[0]]
    sizes = Counter((fact.width, fact.height) for fact in facts.values())
    (width, height), _ = sizes.most_common(1)[0]
    are = "1 image has" if len(odd) == 1 else f"{len(odd)} images have"
    return [
        f"{are} far more or fewer pixels than the others ({width} x {height} mostly), "
        f"e.g. {relative(odd[0], root)} with {first.width} x {first.height}"
    ]


def near_twins(parts: Mapping[str, Sequence[Any]], facts: Mapping[Path, ImageFacts], root: Path) -> list[str]:
    """A remark on pictures that stand in two parts in nearly the same form: saved twice, or frames of one video."""
    words = range(0, PRINT * PRINT // 4, 16)
    prints = {
        part: np.array(
            [[int(facts[entry.path].fingerprint[at : at + 16], 16) for at in words] for entry in entries], np.uint64
        )
        for part, entries in parts.items()
    }
    found = []
    for part, other in combinations(reversed(parts), 2):
        pairs = len(parts[part]) * len(parts[other])
        # Of very many pairs an even choice: a leak of many images shows in it too.
        for index in range(0, len(parts[part]) if pairs else 0, max(1, -(-pairs // COMPARED))):
            path = parts[part][index].path
            distances = np.bitwise_count(prints[other] ^ prints[part][index]).sum(1)
            near = (parts[other][place].path for place in np.flatnonzero(distances <= ALIKE))
            twin = next((near_one for near_one in near if facts[near_one].digest != facts[path].digest), None)
            if twin is not None:
                found.append((path, twin))
    if not found:
        return []
    first, second = (relative(path, root) for path in found[0])
    number = len({path for path, _ in found})
    stand = "1 image stands" if number == 1 else f"{number} images stand"
    return [
        f"{stand} in two parts in nearly the same form (leakage), e.g. {first} ~ {second}; "
        "name what belongs together by data.group"
    ]


def bit_depth_of(facts: Iterable[ImageFacts]) -> int:
    """Bits that the images of more than 8 bits really use: many cameras put 12 bits into 16."""
    brightest = max((fact.brightest or 0 for fact in facts), default=0)
    return next((bits for bits in (8, 10, 12, 14, 16, 24) if brightest < 2**bits), 32)


def span_of(facts: Iterable[ImageFacts]) -> list[float] | None:
    """Least and largest value of the images of fractions or of numbers with a sign."""
    facts = list(facts)
    spans = [fact.span for fact in facts if fact.span is not None]
    if spans:
        spans += [[0.0, float(fact.brightest)] for fact in facts if fact.mode == "I" and fact.brightest is not None]
    return [min(low for low, _ in spans), max(high for _, high in spans)] if spans else None


class _Memory:
    """Facts of files seen before, in one JSON file a root folder and kind of facts."""

    def __init__(self, root: Path, kind: type, manner: str) -> None:
        self.kind = kind
        told = f"{root.resolve()}{'' if kind is ImageFacts else kind.__name__}{manner}"
        name = hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.file = cache_folder() / "images" / f"{name}.json"
        self.known: dict[str, list] = {}
        # What is no memory of ours, whatever it is, is forgotten.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            content = json.loads(self.file.read_text())
            if content["version"] == VERSION:
                self.known = dict(content["files"])

    def recall(self, path: Path) -> Any | None:
        entry = self.known.get(str(path.absolute()))
        return self.kind(**entry[1]) if entry and entry[0] == _stamp(path) else None

    def remember(self, facts: dict[Path, Any]) -> None:
        files = {str(path.absolute()): (_stamp(path), asdict(found)) for path, found in facts.items()}
        # Remembering only saves time: a cache that cannot be written is no reason not to train.
        with contextlib.suppress(OSError, QuintetError), written_whole(self.file, replace=True) as partial:
            partial.write_text(json.dumps({"version": VERSION, "files": files}))


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
