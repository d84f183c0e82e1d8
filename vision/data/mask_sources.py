"""Finds images and their masks where people keep them: two folders with equal names in them, or a CSV."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...core.data.faults import Fault
from ...core.errors import QuintetError, nearest
from .coco import CocoFile, coco_files, read_coco
from .files import is_file, shortened, text_of
from .sources import SPLITS, check_folder, images_below, nothing_found, subfolders
from .tables import header_of, is_table, rows_of

IMAGE_FOLDERS = ("images", "image", "img", "imgs", "photos", "jpegimages", "input", "inputs")
MASK_FOLDERS = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "annots",
    "annot",
    "segmentation",
    "segmentationclass",
    "gt",
    "groundtruth",
    "targets",
)
# Folders of masks are called by words too, as 1st_manual or expert_b.
MASK_WORDS = re.compile(
    r"mask|manual|label|annot|segment|truth|target|expert|observer|(^|[^a-z])(gt|fov|roi)([^a-z]|$)"
)
NOT_CLASSES = ("segmentationobject",)  # beside segmentationclass in PASCAL VOC
# What a mask's name may have behind its image's, and a folder of masks behind that of images.
ENDINGS = ("", *(f"{joint}{name}" for name in (*MASK_FOLDERS, "seg", "labelids") for joint in ("_", "-", "")))


@dataclass(frozen=True)
class MaskEntry:
    """An image with its mask as the user listed them; what they did not say is None, `where` names a CSV's row."""

    path: Path
    mask: Path
    split: str | None = None
    group: str | None = None
    where: str | None = None
    label: str = ""  # splits are not stratified: an image holds many classes


@dataclass
class MaskListing:
    """What lies in the user's folder: pairs, what is wrong or remarkable about them, and names of classes, if any."""

    entries: list[MaskEntry] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    classes: list[str] | None = None
    pattern: str | None = None  # of groups, where they are not a column


def find_masks(
    root: Path, group: str | None = None, known: Sequence[str] | None = None, masks: str | None = None
) -> MaskListing:
    """Images with masks of the same name, in one of

        root/images/*  root/masks/*                       split here
        root/images/{train,val,test}/*  root/masks/...    or with the two levels the other way round
        root/{train,val,test}/*  root/{train,val,test}annot/*
        root.csv with image,mask[,split][,group]          paths relative to the CSV
        root.json                                         polygons as COCO writes them
        root/**/*.json beside or above the images         the same for each part (quintet.vision.data.coco)

    `images` and `masks` have the usual other names too, and root/classes.txt may name the classes, one a line.

    `group` is a column of the CSV or a pattern, `known` the classes of a model, `masks` the name of the folder of masks
    where several may be it. Raises QuintetError where there is nothing to read, and where several may be and none is
    named.
    """
    if masks is not None and not root.is_dir():
        raise QuintetError(f"data.masks names a folder, and {root} is none")
    if masks is None and (files := _drawable(root)):
        coco = read_coco(files, known)
        return MaskListing([MaskEntry(*found) for found in coco.found], coco.faults, coco.remarks, coco.classes, group)
    if root.is_file():
        return read_mask_csv(root, group)
    check_folder(root)
    listing = MaskListing(pattern=group)
    read: set[Path] = set()
    for images, candidates, split in _pairs_of_folders(root, masks):
        folder = _only_one(candidates, images, root)
        _match(images, folder, split, listing, root)
        read |= {images, folder}
    if read and (unread := [str(folder.relative_to(root)) for folder in _unread(root, read)]):
        listing.remarks.append(f"folders without a partner are not read: {', '.join(unread)}")
    if not listing.entries and not listing.faults:
        if any(images_below(root)):
            if masks is not None:
                raise QuintetError(f"{root} holds no folder data.masks={masks} beside images/, train/, val/ or test/")
            raise QuintetError(
                f"{root} holds images but no folders images/ and masks/; put masks of the same names beside the images "
                "so, or give a CSV of image,mask"
            )
        raise QuintetError(nothing_found(root))
    names = root / "classes.txt"
    if names.exists():
        listing.classes = [line.strip() for line in text_of(names).splitlines() if line.strip()]
    return listing


def holds_masks(root: Path) -> bool:
    """Whether a path looks like something `find_masks` reads; looks at no more than it must."""
    if root.is_file() and is_table(root):
        return {"image", "mask"} <= {name.lower() for name in header_of(root)}
    return (root.is_dir() and any(True for _ in _pairs_of_folders(root))) or bool(_drawable(root))


def _drawable(root: Path) -> list[CocoFile]:
    """Files of annotations, unless there are masks already."""
    if root.is_dir() and any(any(images_below(masks[0])) for _, masks, _ in _pairs_of_folders(root)):
        return []
    return coco_files(root)


def read_mask_csv(path: Path, group: str | None = None) -> MaskListing:
    """Rows of image,mask and optionally split and group; paths are relative to the CSV. Faults name row numbers.

    `group` names another column of groups; what is no column is a pattern, for the listing to hand on.
    """
    if not is_table(path):
        raise QuintetError(f"{path} is neither a folder nor a CSV of image,mask")
    header = [name.lower() for name in header_of(path)]
    if missing := [name for name in ("image", "mask") if name not in header]:
        raise QuintetError(
            f"{path} has no column {' and no column '.join(repr(name) for name in missing)}; "
            f"its first row says {', '.join(header) or 'nothing'}, expected image,mask and optionally split,group"
        )
    column = (group or "group").strip().lower()
    listing = MaskListing(pattern=None if group is None or column in header else group)
    for row in rows_of(path):
        value, where = row.fields, row.where
        split = value.get("split", "").lower()
        empty = [name for name in ("image", "mask") if not value[name]]
        absent = [value[name] for name in ("image", "mask") if not is_file(path.parent / value[name])]
        if row.fault is not None:
            listing.faults.append(row.fault)
        elif empty:
            listing.faults.append(Fault(where, f"has no {empty[0]}", "fill it in or delete the row"))
        elif split and split not in SPLITS:
            listing.faults.append(Fault(where, f"has the split '{shortened(split)}'", "write train, val or test"))
        elif absent:
            remedy = "paths are relative to the CSV; correct it"
            listing.faults.append(Fault(where, f"names {shortened(absent[0])}, which does not exist", remedy))
        else:
            image, mask = path.parent / value["image"], path.parent / value["mask"]
            listing.entries.append(MaskEntry(image, mask, SPLITS.get(split), value.get(column) or None, where))
    if not listing.entries and not listing.faults:
        raise QuintetError(f"{path} has a header but no rows; add one row an image")
    return listing


def images_with_masks(root: Path, known: Sequence[str]) -> tuple[list[Path], list[Fault]]:
    """The images alone of what `find_masks` reads, those without a mask too, and what is wrong with others."""
    folders = [images for images, _, _ in _pairs_of_folders(root)] if root.is_dir() else []
    if folders:
        return [path for folder in folders for path in images_below(folder)], []
    listing = find_masks(root, known=known)
    return [entry.path for entry in listing.entries], listing.faults


def _pairs_of_folders(root: Path, chosen: str | None = None) -> Iterable[tuple[Path, list[Path], str | None]]:
    """Folders of images, the folders that may be their masks, and the part they are given for."""
    folders = {folder.name.lower(): folder for folder in subfolders(root)}
    images = next((folders[name] for name in IMAGE_FOLDERS if name in folders), None)
    masks = [folder for name, folder in folders.items() if folder != images and _may_be_masks(name, folder, chosen)]
    if images and masks:
        parts = [{folder.name.lower(): folder for folder in subfolders(folder)} for folder in masks]
        splits = [folder for folder in subfolders(images) if folder.name.lower() in SPLITS]
        for folder in splits:
            name = folder.name.lower()
            if beside := [inner[name] for inner in parts if name in inner]:
                yield folder, beside, SPLITS[name]
        if not splits:
            yield images, masks, None
        return
    for name, folder in folders.items():
        if name not in SPLITS:
            continue
        beside = [folders[name + ending] for ending in ENDINGS[1:] if name + ending in folders]
        if chosen is not None:
            beside = [masks for masks in beside if masks.name == chosen]
        if beside:
            yield folder, beside, SPLITS[name]
            continue
        for inner_images, inner_masks, split in _pairs_of_folders(folder, chosen):
            if split is None:
                yield inner_images, inner_masks, SPLITS[name]


def _may_be_masks(name: str, folder: Path, chosen: str | None) -> bool:
    if chosen is not None:
        return name == chosen.lower()
    named = name in MASK_FOLDERS or MASK_WORDS.search(name)
    return bool(named) and name not in (*NOT_CLASSES, *SPLITS, *IMAGE_FOLDERS) and any(images_below(folder))


def _only_one(candidates: Sequence[Path], images: Path, root: Path) -> Path:
    if len(candidates) > 1:
        names = [folder.name for folder in candidates]
        raise QuintetError(
            f"{root} holds {len(names)} folders that may be the masks of {images.relative_to(root)}/: "
            f"{', '.join(names)}; say data.masks={names[0]} or another"
        )
    return candidates[0]


def _unread(folder: Path, read: set[Path]) -> Iterable[Path]:
    """Folders of images that no pair covers, the uppermost of each."""
    for inner in subfolders(folder):
        if inner in read or not any(images_below(inner)):
            continue
        if any(used.is_relative_to(inner) for used in read):
            yield from _unread(inner, read)
        else:
            yield inner


def _match(images: Path, masks: Path, split: str | None, listing: MaskListing, root: Path) -> None:
    """Pairs of equal names below two folders; what has no partner is a fault."""
    found: dict[str, list[Path]] = defaultdict(list)
    for mask in images_below(masks):
        found[str(mask.relative_to(masks).with_suffix(""))].append(mask)
    by_lower = {name.lower(): name for name in found}
    unused = set(found)
    for image in images_below(images):
        stem = str(image.relative_to(images).with_suffix(""))
        name = next((by_lower[(stem + end).lower()] for end in ENDINGS if (stem + end).lower() in by_lower), None)
        where = str(image.relative_to(root))
        if name is None:
            hint = nearest(stem, found) if len(found) < 5000 else "names must be equal but for the suffix"
            folder = masks.relative_to(root)
            listing.faults.append(Fault(where, f"has no mask of its name in {folder}/", f"add it; {hint}"))
            continue
        unused.discard(name)
        if len(found[name]) > 1:
            others = " and ".join(path.name for path in found[name][:2])
            listing.faults.append(Fault(where, f"has several masks, {others}", "keep one of them"))
            continue
        listing.entries.append(MaskEntry(image, found[name][0], split))
    for name in sorted(unused):
        where = str(found[name][0].relative_to(root))
        listing.faults.append(Fault(where, f"has no image of its name in {images.relative_to(root)}/", "add or delete"))
