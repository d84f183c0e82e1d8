"""Looks into every image file before training: can it be decoded whole, how large is it, has its content a twin.

What was found of a good file is remembered under the user's cache folder by path, size and time of change, so that only
new and changed files are decoded the next time.
"""

import contextlib
import hashlib
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from PIL import ExifTags, Image
from rich.progress import track

from ...core.data import Fault
from ...core.errors import QuintetError
from ...core.pretrained import cache_folder
from .images import DEEP_MODES, open_image, upright

VERSION = 1  # of what is remembered; another number forgets it
SHOWN_FROM = 300  # files to decode from which a progress bar appears


@dataclass(frozen=True)
class ImageFacts:
    """What a decoded file is: size, Pillow mode, sha256 of its bytes, frames, and its largest value beyond 8 bits."""

    width: int
    height: int
    mode: str
    digest: str
    frames: int = 1
    brightest: int | None = None


def scan(
    paths: Iterable[Path], root: Path, kind: type = ImageFacts, read: Callable[[Path], Any] | None = None
) -> tuple[dict[Path, Any], list[Fault]]:
    """Facts of every file that can be decoded, and a fault for every other one.

    Args:
        paths: the files.
        root: the user's folder; names in faults are relative to it.
        kind: dataclass of the facts.
        read: from a path to its facts, or to a text that says what is wrong with it; None reads photographs.
    """
    paths = list(dict.fromkeys(paths))
    read = read or facts_of
    memory = _Memory(root, kind)
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
        content = path.read_bytes()
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    try:
        # At 1/8 size a JPEG's bytes are still read to their end, which finds a truncated one at half the cost.
        image = open_image(content, at_least=64)
        mode = image.mode
        brightest = int(np.asarray(image).max()) if mode in DEEP_MODES else None
        # The second picture in a phone's MPO is a preview or a depth map, not a frame.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        width, height = Image.open(io.BytesIO(content)).size
        if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
            width, height = height, width
        upright(image)
    except QuintetError as error:
        return str(error)
    except Exception as error:  # a damaged EXIF block or frame table
        return f"is damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return ImageFacts(width, height, mode, hashlib.sha256(content).hexdigest(), frames, brightest)


def relative(path: Path, root: Path) -> str:
    """A file's name as the user knows it: below their folder where it lies there."""
    folder = root if root.is_dir() else root.parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def refusal(faults: list[Fault], more: str = "") -> QuintetError:
    """The first fault as an error, and how many there are."""
    first = faults[0]
    others = f" ({len(faults)} {more})" if len(faults) > 1 else ""
    return QuintetError(f"{first.where} {first.what}; {first.remedy}{others}")


def refuse_unusable(faults: list[Fault], classes: Sequence[str], root: Path, skip: bool, known: bool) -> None:
    """Raises QuintetError where something stands in the way of training: a fault that is not skipped, too few classes.

    Args:
        faults: what an examination found.
        classes: what it found to train on.
        root: the user's folder.
        skip: faulty files are left out.
        known: the classes are those of a model, and nothing is trained.
    """
    if faults and not skip:
        raise refusal(faults, f"faults in all: quintet inspect {root}")
    if not known and len(classes) < 2:
        raise refusal([fault for fault in faults if fault.where == str(root)])


def usable(paths: Iterable[Path], faults: Sequence[Fault], root: Path, bit_depth: int, skip: bool) -> list[Path]:
    """The images that a model can predict, of those given; the others are refused, or said and left out."""
    paths = list(paths)
    facts, unreadable = scan(paths, root)
    faults = [*faults, *unreadable, *too_bright(facts, bit_depth, root)]
    if faults and not (skip and facts):
        raise refusal(faults, "faults in all")
    for fault in faults:
        rank_zero_only(print)(f"left out: {fault.where} {fault.what}")
    return [path for path in paths if path in facts]


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


def bit_depth_of(facts: Iterable[ImageFacts]) -> int:
    """Bits that the images of more than 8 bits really use: many cameras put 12 bits into 16."""
    brightest = max((fact.brightest for fact in facts if fact.mode in DEEP_MODES), default=0)
    return next((bits for bits in (8, 10, 12, 14, 16) if brightest < 2**bits), 16)


class _Memory:
    """Facts of files seen before, in one JSON file a root folder and kind of facts."""

    def __init__(self, root: Path, kind: type) -> None:
        self.kind = kind
        name = hashlib.sha256(f"{root.resolve()}{'' if kind is ImageFacts else kind.__name__}".encode()).hexdigest()[
            :16
        ]
        self.file = cache_folder() / "images" / f"{name}.json"
        self.known: dict[str, list] = {}
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self.file.read_text())
            if content.get("version") == VERSION:
                self.known = content["files"]

    def recall(self, path: Path) -> Any | None:
        entry = self.known.get(str(path.absolute()))
        return self.kind(**entry[1]) if entry and entry[0] == _stamp(path) else None

    def remember(self, facts: dict[Path, Any]) -> None:
        files = {str(path.absolute()): (_stamp(path), asdict(found)) for path, found in facts.items()}
        # Remembering only saves time: a cache that cannot be written is no reason not to train.
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            partial = self.file.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(json.dumps({"version": VERSION, "files": files}))
            os.replace(partial, self.file)


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
