"""Polygons and run lengths as COCO writes them, drawn as masks of classes.

Masks are drawn once, into the user's cache folder, and read like any others: 0 is background, the categories that are
drawn somewhere follow in the order of their ids. Paper: "Microsoft COCO: Common Objects in Context", arXiv 1405.0312.
"""

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.progress import track

from ...core.data import Fault
from ...core.errors import QuintetError, nearest
from ...core.pretrained import cache_folder
from .sources import SPLITS, subfolders

VERSION = 1  # of how masks are drawn; another number draws them anew
BACKGROUND = "background"
MOST = 254  # categories, so that background and the usual id of void fit into a byte
FOLDERS = ("images", "image", "img", "imgs", "photos", "jpegimages")
SHOWN_FROM = 300  # masks to draw from which a progress bar appears


class CocoFile(NamedTuple):
    """A file of annotations and the part it is given for."""

    path: Path
    split: str | None


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
        return [CocoFile(root, None)] if _is_coco(root) else []
    if not root.is_dir():
        return []
    places = [root, *(folder for folder in subfolders(root) if folder.name.lower() in ("annotations", *SPLITS))]
    files = [path for place in places for path in sorted(place.glob("*.json")) if _is_coco(path)]
    # The same images are published with key points and captions too.
    files = [path for path in files if path.name.startswith("instances")] or files
    return [CocoFile(path, _split_of(path)) for path in files]


def read_coco(files: Sequence[CocoFile], known: Sequence[str] | None = None) -> CocoListing:
    """Draws the masks of all images that the files name, and lists them.

    Within an image smaller objects lie over larger ones; what reaches outside is cut.

    Args:
        files: of one data set; their categories are told apart by name.
        known: classes of a model, background first, which then decides about the ids of masks.

    Raises QuintetError for files that are no such annotations, and where masks cannot be written.
    """
    listing = CocoListing()
    contents = [(file, _parsed(file.path)) for file in files]
    names = _categories(contents, known, listing)
    listing.classes = [BACKGROUND, *names]
    for file, content in contents:
        _read_file(file, content, {name: index for index, name in enumerate(names, 1)}, listing)
    return listing


def _is_coco(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    content = path.read_bytes()
    return all(key in content for key in (b'"images"', b'"annotations"', b'"segmentation"'))


def _split_of(path: Path) -> str | None:
    words = [path.parent.name.lower(), *re.split(r"[^a-z]+", path.stem.lower())]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise QuintetError(f"{path} is no JSON: {error}") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in lists):
        raise QuintetError(f"{path} lacks one of the lists {', '.join(lists)} of a COCO file of instances")
    for category in content["categories"]:
        if not isinstance(category, dict) or not isinstance(category.get("id"), int) or not category.get("name"):
            raise QuintetError(f"{path} has a category without a number for its id and a name: {category}")
    return content


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
        used.update(name_of.get(annotation.get("category_id")) for annotation in content["annotations"])
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
    """Adds the images of one file."""
    path, name = file.path, file.path.name
    category_ids = {item.get("id"): ids.get(str(item.get("name"))) for item in content["categories"]}
    of_image: dict[Any, list[dict]] = defaultdict(list)
    numbers = {item.get("id") for item in content["images"]}
    for annotation in content["annotations"]:
        number = annotation.get("image_id")
        if number not in numbers:
            what, remedy = f"names the image {number}, which the file does not list", "correct or delete it"
            listing.faults.append(Fault(f"{name} annotation {annotation.get('id')}", what, remedy))
        of_image[number].append(annotation)
    digest = hashlib.sha256(f"{VERSION}{sorted(ids.items())}".encode() + path.read_bytes()).hexdigest()[:16]
    folder = cache_folder() / "masks" / digest
    folders = _image_folders(path, file.split)
    reach: Counter[str] = Counter()
    bare = 0
    shown = track(content["images"], f"drawing {name}", transient=True, disable=len(content["images"]) < SHOWN_FROM)
    for item in shown:
        number, where = item.get("id"), f"{name} image {item.get('id')}"
        image = _image_file(str(item.get("file_name", "")), folders)
        if image is None:
            what = f"names {item.get('file_name')}, which does not exist"
            remedy = f"put it beside {name}, into images/ or into a folder of its part"
            listing.faults.append(Fault(where, what, remedy))
            continue
        size = item.get("height"), item.get("width")
        if not all(isinstance(side, int) and side > 0 for side in size):
            listing.faults.append(Fault(where, "has no height and width", "write those of the image, in pixels"))
            continue
        bare += not of_image[number]
        target = folder / f"{number}.png"
        reach.update(_reach(annotation, *size) for annotation in of_image[number])
        if not target.is_file():
            try:
                mask = draw(of_image[number], category_ids, *size)
            except QuintetError as error:
                listing.faults.append(Fault(where, str(error), "correct it, or leave it out with data.on_error=skip"))
                continue
            _write(Image.fromarray(mask), target)
        listing.found.append(Drawn(image, target, file.split, None, where))
    for what in ("reaches out of its image and is cut", "lies outside of its image"):
        if reach[what]:
            listing.remarks.append(f"{name}: {what}: {reach[what]} annotation{'s' * (reach[what] > 1)}")
    if bare:
        listing.remarks.append(f"{bare} images of {name} have no annotation and are all {BACKGROUND}")


def draw(
    annotations: Sequence[Mapping[str, Any]], ids: Mapping[Any, int | None], height: int, width: int
) -> UInt8[np.ndarray, "{height} {width}"]:
    """The mask of an image's annotations: smaller ones lie over larger ones, later over earlier ones of equal size.

    Args:
        annotations: with `category_id` and `segmentation`: polygons, or run lengths as numbers or as text.
        ids: value in the mask of each category.
        height: of the image.
        width: of the image.

    Raises QuintetError, naming the annotation, for other segmentations.
    """
    layers = []
    for annotation in annotations:
        try:
            value = ids.get(annotation.get("category_id"))
            if value is None:
                raise QuintetError(f"has the category {annotation.get('category_id')}, which is not known")
            layers.append((_covered(annotation.get("segmentation"), height, width), value))
        except QuintetError as error:
            raise QuintetError(f"has annotation {annotation.get('id')}, which {error}") from None
    mask = np.zeros((height, width), np.uint8)
    for covered, value in sorted(layers, key=lambda layer: -int(layer[0].sum())):
        mask[covered] = value
    return mask


def _covered(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The pixels of one annotation."""
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise QuintetError("needs pycocotools to be drawn: pip install pycocotools") from None
    try:
        if isinstance(segmentation, Mapping):
            if list(segmentation["size"]) != [height, width]:
                raise QuintetError(f"has run lengths of size {segmentation['size']} for an image {[height, width]}")
            plain = isinstance(segmentation["counts"], list)
            if plain and (found := sum(segmentation["counts"])) != height * width:
                raise QuintetError(f"has run lengths of {found} pixels for one of {height * width}")
            runs = coco.frPyObjects(dict(segmentation), height, width) if plain else dict(segmentation)
        else:
            if not segmentation:
                raise QuintetError("has no polygon, only a box perhaps")
            if any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
                raise QuintetError("has a polygon of fewer than three points")
            points = [np.asarray(polygon, np.float64) for polygon in segmentation]
            if not all(np.isfinite(polygon).all() for polygon in points):
                raise QuintetError("has a polygon with places that are no numbers")
            runs = coco.merge(coco.frPyObjects([polygon.tolist() for polygon in points], height, width))
        return coco.decode(runs).astype(bool)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise QuintetError(f"has a segmentation that cannot be read ({error})") from None


def _reach(annotation: Mapping[str, Any], height: int, width: int) -> str:
    """Whether polygons leave their image by more than rounding; empty where they do not, or cannot be read."""
    polygons = annotation.get("segmentation")
    try:
        x, y = np.concatenate([np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]).T
    except (TypeError, ValueError):
        return ""
    if x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height:
        return "lies outside of its image"
    outside = x.min() < -1 or y.min() < -1 or x.max() > width + 1 or y.max() > height + 1
    return "reaches out of its image and is cut" if outside else ""


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


def _image_file(name: str, folders: Sequence[Path]) -> Path | None:
    name = name.replace("\\", "/")
    return next((folder / name for folder in folders if name and (folder / name).is_file()), None)


def _write(mask: Image.Image, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.partial")
        mask.save(partial, format="PNG")
        os.replace(partial, target)
    except OSError as error:
        raise QuintetError(
            f"masks are drawn into {target.parent}, which cannot be written ({error.strerror}); set QUINTET_CACHE"
        ) from None
