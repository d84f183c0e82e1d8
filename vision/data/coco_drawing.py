"""Polygons and run lengths of COCO drawn as masks, none of which reaches a decoder unless it fits its image."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ...core.errors import QuintetError

FAR = 3  # sizes of the image by which a polygon may reach out of it: what is further off takes for ever to draw


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
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise QuintetError("needs pycocotools to be drawn: pip install pycocotools") from None
    layers = []
    for annotation in annotations:
        try:
            number = annotation.get("category_id")
            value = ids.get(number) if isinstance(number, Hashable) else None
            if value is None:
                raise QuintetError(f"has the category {number}, which is not known")
            layers.append((_runs(annotation.get("segmentation"), height, width), value))
        except QuintetError as error:
            raise QuintetError(f"has annotation {annotation.get('id')}, which {error}") from None
    mask = np.zeros((height, width), np.uint8)
    for runs, value in sorted(layers, key=lambda layer: -int(coco.area(layer[0]))):
        mask[coco.decode(runs).astype(bool)] = value
    return mask


def reach(annotation: Mapping[str, Any], height: int, width: int) -> str:
    """Whether polygons leave their image by more than rounding; empty where they do not, or cannot be read."""
    polygons = annotation.get("segmentation")
    try:
        x, y = np.concatenate([np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]).T
        if x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height:
            return "lies outside of its image"
    except (TypeError, ValueError, OverflowError):
        return ""
    outside = x.min() < -1 or y.min() < -1 or x.max() > width + 1 or y.max() > height + 1
    return "reaches out of its image and is cut" if outside else ""


def _runs(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """The pixels of one annotation as pycocotools' run lengths."""
    from pycocotools import mask as coco

    try:
        if isinstance(segmentation, Mapping):
            if list(segmentation["size"]) != [height, width]:
                raise QuintetError(f"has run lengths of size {segmentation['size']} for an image {[height, width]}")
            counts = _counts(segmentation["counts"], height * width)
            return coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        return coco.merge(coco.frPyObjects(_polygons(segmentation, height, width), height, width))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise QuintetError(f"has a segmentation that cannot be read ({error})") from None


def _polygons(segmentation: Any, height: int, width: int) -> list[list[float]]:
    if not segmentation:
        raise QuintetError("has no polygon, only a box perhaps")
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        raise QuintetError("has a segmentation that is no list of polygons")
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
        raise QuintetError("has a polygon of fewer than three points")
    points = [np.asarray(polygon, np.float64) for polygon in segmentation]
    if any(polygon.ndim > 1 or not np.isfinite(polygon).all() for polygon in points):
        raise QuintetError("has a polygon with places that are no numbers")
    furthest = max((float(value) for polygon in points for value in polygon), key=abs)
    if abs(furthest) > (FAR + 1) * max(height, width):
        raise QuintetError(f"has a polygon that reaches to {furthest:g}, far out of its image of {width} x {height}")
    return [polygon.tolist() for polygon in points]


def _counts(counts: Any, pixels: int) -> list[int]:
    """Lengths of the runs, checked: pycocotools writes them into memory without looking."""
    numbers = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
        raise QuintetError("has run lengths that are no whole numbers from 0 on")
    if (found := sum(numbers)) != pixels:
        raise QuintetError(f"has run lengths of {found} pixels for one of {pixels}")
    return numbers


def _uncompressed(text: str) -> list[int]:
    """Run lengths written as text: 5 bits a character from "0" on, lowest first, from the third on as differences."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            raise QuintetError("has run lengths that cannot be read")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value |= -1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise QuintetError("has run lengths that end in the middle")
    return counts
