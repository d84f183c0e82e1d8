"""Polygons and run lengths as COCO writes them, drawn as masks of classes.

Masks are drawn once, into the user's cache folder, and read like any others: 0 is background, the categories that are
drawn somewhere follow in the order of their ids. Paper: "Microsoft COCO: Common Objects in Context", arXiv 1405.0312.
"""

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.progress import track

from ...core.data.faults import Fault
from ...core.errors import QuintetError, nearest
from ...core.weights.pretrained import cache_folder
from ...core.writing.files import written_whole
from .bands import MOST_PIXELS
from .coco_drawing import draw, reach
from .files import content_of, is_file, shortened
from .sources import SPLITS, images_below, subfolders

VERSION = 2  # of how masks are drawn; another number draws them anew
BACKGROUND = "background"
MOST = 254  # categories, so that background and the usual id of void fit into a byte
FOLDERS = ("images", "image", "img", "imgs", "photos", "jpegimages")
PLACES = ("annotations", *SPLITS)  # folders in which files of annotations lie
SHOWN_FROM = 300  # masks to draw from which a progress bar appears


class CocoFile(NamedTuple):
    """A file of annotations, the part it is given for, and the folder below which its images lie."""

    path: Path
    split: str | None
    below: Path


class Drawn(NamedTuple):
    """An image, its drawn mask, and where the file speaks of it; the fields of a MaskEntry in its order."""

    path: Path
    mask: Path
    split: str | None
    group: None
    where: str


@dataclass
class CocoListing:
    """What files of annotations hold: images with masks, names of classes, what is wrong or remarkable."""

    found: list[Drawn] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


def coco_files(root: Path) -> list[CocoFile]:
    """The files of annotations that a path means: itself, or those in a folder, its annotations/ or its parts."""
    if root.is_file():
        above = root.parent.parent if root.parent.name.lower() in PLACES else root.parent
        return [CocoFile(root, None, above)] if _is_coco(root) else []
    if not root.is_dir():
        return []
    places = [root, *(folder for folder in subfolders(root) if folder.name.lower() in PLACES)]
    files = [path for place in places for path in sorted(place.glob("*.json")) if _is_coco(path)]
    # The same images are published with key points and captions too.
    files = [path for path in files if path.name.startswith("instances")] or files
    return [CocoFile(path, _split_of(path), root) for path in files]


def read_coco(files: Sequence[CocoFile], known: Sequence[str] | None = None) -> CocoListing:
    """Draws the masks of all images that the files name, and lists them.

    Within an image smaller objects lie over larger ones; what reaches outside is cut.

    Args:
        files: of one data set; their categories are told apart by name.
        known: classes of a model, background first, which then decides about the ids of masks.

    Raises QuintetError for files that are no such annotations, and where masks cannot be written.
    """
    listing = CocoListing()
    contents = [(file, _parsed(file.path, listing)) for file in files]
    names = _categories(contents, known, listing)
    listing.classes = [BACKGROUND, *names]
    for file, content in contents:
        _read_file(file, content, {name: index for index, name in enumerate(names, 1)}, listing)
    return listing


def _is_coco(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not is_file(path):
        return False
    content = content_of(path)
    return all(key in content for key in (b'"images"', b'"annotations"', b'"segmentation"'))


def _split_of(path: Path) -> str | None:
    return next((SPLITS[word] for word in (path.parent.name.lower(), *_words(path.stem)) if word in SPLITS), None)


def _words(name: str) -> list[str]:
    return re.split(r"[^a-z]+", name.lower())


def _parsed(path: Path, listing: CocoListing) -> dict[str, list[dict]]:
    """The three lists of a file; what is no record in them, or names nothing, is left out and a fault."""
    try:
        content = json.loads(content_of(path))
    except (ValueError, RecursionError) as error:
        raise QuintetError(f"{path} is no JSON: {error}") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in lists):
        raise QuintetError(f"{path} lacks one of the lists {', '.join(lists)} of a COCO file of instances")
    numbers = set()
    for category in content["categories"]:
        number = category.get("id") if isinstance(category, dict) else None
        if type(number) is not int or not category.get("name"):
            shown = shortened(str(category))
            raise QuintetError(f"{path} has a category without a number for its id and a name: {shown}")
        if number in numbers:
            raise QuintetError(f"{path} has two categories of the id {number}; give each its own")
        numbers.add(number)
    images = _records(path, content["images"], "images", "id", listing)
    annotations = _records(path, content["annotations"], "annotations", "image_id", listing)
    return {"images": images, "annotations": annotations, "categories": content["categories"]}


def _records(path: Path, items: list[Any], what: str, key: str, listing: CocoListing) -> list[dict]:
    """Those of `items` that are records with an id under `key`; of images of one id the first."""
    sound, numbers = [], set()
    for place, item in enumerate(items):
        number = item.get(key) if isinstance(item, dict) else None
        named = isinstance(number, str) or (type(number) in (int, float) and math.isfinite(number))
        if not named:
            shown = shortened(str(item))
            listing.faults.append(
                Fault(f"{path.name} {what}[{place}]", f"is no record with {key}: {shown}", "correct or delete it")
            )
        elif what == "images" and number in numbers:
            listing.faults.append(
                Fault(f"{path.name} {what}[{place}]", f"has the id {number} of another image", "give it its own")
            )
        else:
            numbers.add(number)
            sound.append(item)
    return sound


def _categories(
    contents: Iterable[tuple[CocoFile, dict]], known: Sequence[str] | None, listing: CocoListing
) -> list[str]:
    """Names of the categories that are drawn, by id; or those a model knows."""
    used: Counter[str] = Counter()
    order: dict[str, int] = {}
    for _, content in contents:
        name_of = {category.get("id"): str(category.get("name")) for category in content["categories"]}
        for number in sorted(name_of):
            order.setdefault(name_of[number], number)
        numbers = (annotation.get("category_id") for annotation in content["annotations"])
        used.update(name_of[number] for number in numbers if type(number) is int and number in name_of)
    names = [name for name in sorted(order, key=order.__getitem__) if used[name]]
    if known is not None:
        expected = list(known[1:])
        for name in names:
            if name not in expected:
                remedy = f"test on the categories trained on; {nearest(name, expected)}"
                listing.faults.append(Fault(name, "is a category the model does not know", remedy))
        return expected
    if absent := [name for name in order if not used[name]]:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        listing.remarks.append(f"categories without annotations are no classes: {', '.join(absent[:5])}{more}")
    if len(names) > MOST:
        raise QuintetError(f"the annotations have {len(names)} categories, and a mask holds at most {MOST}")
    return names


def _read_file(file: CocoFile, content: Mapping[str, Any], ids: Mapping[str, int], listing: CocoListing) -> None:
    """Adds the images of one file, and draws their masks."""
    path, name = file.path, file.path.name
    category_ids = {item.get("id"): ids.get(str(item.get("name"))) for item in content["categories"]}
    of_image: dict[Any, list[dict]] = defaultdict(list)
    numbers = {item.get("id") for item in content["images"]}
    for annotation in content["annotations"]:
        number = annotation.get("image_id")
        if number not in numbers:
            what = f"names the image {shortened(str(number))}, which the file does not list"
            where = f"{name} annotation {shortened(str(annotation.get('id')))}"
            listing.faults.append(Fault(where, what, "correct or delete it"))
        of_image[number].append(annotation)
    digest = hashlib.sha256(f"{VERSION}{sorted(ids.items())}".encode() + content_of(path)).hexdigest()[:16]
    folder = cache_folder() / "masks" / digest
    pictures = _Pictures(file)
    reached: Counter[str] = Counter()
    bare = 0
    shown = track(content["images"], f"drawing {name}", transient=True, disable=len(content["images"]) < SHOWN_FROM)
    for place, item in enumerate(shown):
        number, where = item["id"], f"{name} image {shortened(str(item['id']))}"
        try:
            image = pictures.find(item.get("file_name"))
            height, width = _size_of(item)
            # An id may hold any text and be no name of a file; the digest makes the place in the list one.
            target = folder / f"{place}.png"
            mask = None if is_file(target) else _drawn(of_image[number], category_ids, height, width)
        except _Unusable as error:
            listing.faults.append(Fault(where, str(error), error.remedy))
            continue
        if mask is not None:
            with written_whole(target, replace=True, remedy="set QUINTET_CACHE to a folder with room") as partial:
                Image.fromarray(mask).save(partial)
        bare += not of_image[number]
        reached.update(reach(annotation, height, width) for annotation in of_image[number])
        listing.found.append(Drawn(image, target, file.split, None, where))
    for what in ("reaches out of its image and is cut", "lies outside of its image"):
        if reached[what]:
            listing.remarks.append(f"{name}: {what}: {reached[what]} annotation{'s' * (reached[what] > 1)}")
    if bare:
        listing.remarks.append(f"{bare} images of {name} have no annotation and are all {BACKGROUND}")


class _Unusable(QuintetError):
    """What is wrong with an image, and what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


def _size_of(item: Mapping[str, Any]) -> tuple[int, int]:
    height, width = size = item.get("height"), item.get("width")
    if not all(type(side) is int and side > 0 for side in size):
        raise _Unusable("has no height and width", "write those of the image, in pixels")
    if height * width > MOST_PIXELS:
        raise _Unusable(f"is said to be {width} x {height}, more than can be drawn", "write the size of the image")
    return height, width


def _drawn(
    annotations: Sequence[Mapping[str, Any]], ids: Mapping[int, int | None], height: int, width: int
) -> UInt8[np.ndarray, "{height} {width}"]:
    try:
        return draw(annotations, ids, height, width)
    except QuintetError as error:
        raise _Unusable(str(error), "correct it, or leave it out with data.on_error=skip") from None


class _Pictures:
    """Finds the images that a file names: where they usually lie, and else anywhere below its folder."""

    def __init__(self, file: CocoFile) -> None:
        self.file = file
        self.folders = _image_folders(file.path, file.split)

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in images_below(self.file.below):
            found[path.name].append(path)
        return found

    def find(self, name: Any) -> Path:
        """The image of a name; raises `_Unusable` where there is none or several are meant."""
        if not isinstance(name, str) or not name:
            raise _Unusable("has no file_name", "write the name of the image's file")
        parts = PureWindowsPath(name).parts  # Windows paths are names too, whatever system reads them
        plain = name.replace("\\", "/")
        usual = next((folder / plain for folder in self.folders if is_file(folder / plain)), None)
        if usual is not None:
            return usual
        found = self.by_name.get(parts[-1], []) if parts else []
        # Of several the one in a folder of the file's part, then the one that lies in more of the folders named.
        for nearer in (lambda path: self._in_part(path), lambda path: path.parts[-len(parts) :] == parts):
            found = [path for path in found if nearer(path)] or found
        if not found:
            remedy = f"put it anywhere below {self.file.below}"
            raise _Unusable(f"names {shortened(name)}, which does not exist", remedy)
        if len(found) > 1:
            first, second = (str(path.relative_to(self.file.below)) for path in found[:2])
            remedy = "write the folder into file_name"
            raise _Unusable(f"names {shortened(name)}, which may be {first} or {second}", remedy)
        return found[0]

    def _in_part(self, path: Path) -> bool:
        words = (word for folder in path.relative_to(self.file.below).parts[:-1] for word in _words(folder))
        return self.file.split is None or any(SPLITS.get(word) == self.file.split for word in words)


def _image_folders(path: Path, split: str | None) -> list[Path]:
    """Where the images of a file may lie: beside it or above it, and there in folders for images or for its part."""
    part = path.stem.removeprefix("instances_")
    parts = [part, *(name for name, meaning in SPLITS.items() if meaning == split)]
    places = [path.parent, path.parent.parent]
    named = {name.lower(): name for place in places for name in (folder.name for folder in subfolders(place))}
    inner = [named[name] for name in FOLDERS if name in named]
    return [
        folder
        for place in places
        for folder in (
            place,
            *(place / name for name in inner),
            *(place / name for name in parts),
            *(place / name / other for name in inner for other in parts),
        )
        if folder.is_dir()
    ]
