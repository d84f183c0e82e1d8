"""Finds images and their labels where people keep them: class folders, folders of splits, a CSV, or loose files."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...core.data.faults import Fault
from ...core.errors import QuintetError, nearest
from .files import image_suffixes, is_file, shortened
from .several_labels import Labels, labels_of
from .tables import header_of, is_table, rows_of

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

CLEANUP = "remove it, or put images in"


@dataclass(frozen=True)
class Entry:
    """One image as the user listed it; what they did not say is None, `where` names a CSV's row.

    Where images may have several labels, `labels` holds them, maybe none, and `label` is the text of all.
    """

    path: Path
    label: str | None = None
    split: str | None = None
    group: str | None = None
    where: str | None = None
    labels: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The classes of the image."""
        if self.labels is not None:
            return self.labels
        return () if self.label is None else (self.label,)


@dataclass
class Listing:
    """What lies in the user's folder: images, what is wrong with their arrangement, and what is worth a remark."""

    entries: list[Entry] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    pattern: str | None = None  # of groups, where they are not a column
    several: bool = False  # labels an image
    columns: list[str] | None = None  # the classes, where each has a column


def find_labelled(root: Path, group: str | None = None, separator: str | None = None) -> Listing:
    """Images with labels: `root/<class>/*`, `root/{train,val,test}/<class>/*` or a CSV of path,label[,split][,group].

    `group` is a column of the CSV or a pattern, `separator` stands between several labels of an image. Raises
    QuintetError where there is nothing to read.
    """
    if root.is_file():
        return read_csv(root, group=group, separator=separator)
    if separator is not None:
        raise QuintetError(f"data.label_separator is of a CSV; {root} is a folder, in which each image has one label")
    check_folder(root)
    listing = Listing(pattern=group)
    folders = subfolders(root)
    splits = [folder for folder in folders if folder.name.lower() in SPLITS and subfolders(folder)]
    if splits:
        for folder in splits:
            _read_classes(folder, SPLITS[folder.name.lower()], listing, root)
        if others := [folder.name for folder in folders if folder not in splits and any(images_below(folder))]:
            listing.remarks.append(f"folders beside the splits are not read: {', '.join(others)}")
    else:
        _read_classes(root, None, listing, root)
    if not listing.entries and any(images_below(root)):
        raise QuintetError(
            f"{root} holds images but no class folders; sort them into {root.name}/CLASS/ or give a CSV of path,label"
        )
    if not listing.entries:
        raise QuintetError(nothing_found(root))
    return listing


def find_unlabelled(root: Path) -> Listing:
    """Every image below a folder, a single image, or the `path` column of a CSV. Raises QuintetError where none is."""
    if root.is_file():
        return read_csv(root, labelled=False) if is_table(root) else Listing([Entry(root)])
    check_folder(root)
    listing = Listing([Entry(path) for path in images_below(root)])
    if not listing.entries:
        raise QuintetError(nothing_found(root))
    return listing


def holds_labelled_images(root: Path) -> bool:
    """Whether a path looks like something `find_labelled` reads; looks at no more than it must."""
    if root.is_file():
        header = [name.lower() for name in header_of(root)] if is_table(root) else []
        several = labels_of(root, None, "") if "path" in header else None
        return "path" in header and ("label" in header or several is not None)
    return root.is_dir() and any(True for folder in subfolders(root) for _ in images_below(folder))


def read_csv(path: Path, labelled: bool = True, group: str | None = None, separator: str | None = None) -> Listing:
    """Rows of path,label and optionally split and group; paths are relative to the CSV. Faults name row numbers.

    With a `separator`, or one column of 0 and 1 a class in place of `label`, an image has several labels, or none.

    `group` names another column of groups; what is no column is a pattern, for the listing to hand on.
    """
    if not is_table(path):
        raise QuintetError(f"{path} is neither a folder nor a CSV of path,label")
    header = [name.lower() for name in header_of(path)]
    column = (group or "group").strip().lower()
    labels = labels_of(path, separator, column) if labelled else None
    needed = ["path", "label"] if labelled and (labels is None or labels.columns is None) else ["path"]
    if missing := [name for name in needed if name not in header]:
        raise QuintetError(
            f"{path} has no column {' and no column '.join(repr(name) for name in missing)}; "
            f"its first row says {', '.join(header) or 'nothing'}, expected path,label and optionally split,group"
        )
    listing = Listing(
        pattern=None if group is None or column in header else group,
        several=labels is not None,
        columns=list(labels.columns.values()) if labels and labels.columns else None,
    )
    for row in rows_of(path):
        entry = _entry(row.fields, row.where, path.parent, labelled, listing.faults, column, labels)
        if row.fault is not None:
            listing.faults.append(row.fault)
        elif entry is not None:
            listing.entries.append(entry)
    if not listing.entries and not listing.faults:
        raise QuintetError(f"{path} has a header but no rows; add one row an image")
    return listing


def _entry(
    value: dict[str, str],
    where: str,
    folder: Path,
    labelled: bool,
    faults: list[Fault],
    column: str = "group",
    labels: Labels | None = None,
) -> Entry | None:
    """The image of one row, or None and a fault."""
    file, label, split = value["path"], value.get("label", ""), value.get("split", "").lower()
    if not file:
        faults.append(Fault(where, "has no path", "fill it in or delete the row"))
    elif labelled and not label and labels is None:
        faults.append(Fault(where, f"has no label for {shortened(file)}", "fill it in or delete the row"))
    elif labelled and split and split not in SPLITS:
        faults.append(Fault(where, f"has the split '{shortened(split)}'", "write train, val or test"))
    elif not is_file(folder / file):
        remedy = "paths are relative to the CSV; correct it"
        faults.append(Fault(where, f"names {shortened(file)}, which does not exist", remedy))
    else:
        entry = Entry(folder / file, label or None, SPLITS.get(split), value.get(column) or None, where)
        if labels is None:
            return entry
        try:
            names = labels.of(value)
        except QuintetError as error:
            faults.append(Fault(where, str(error), "write 0 or 1"))
            return None
        return replace(entry, label="; ".join(names) or "none", labels=names)
    return None


def _read_classes(folder: Path, split: str | None, listing: Listing, root: Path) -> None:
    """Adds the images of each class folder, natural order: class 2 comes before class 10."""
    for class_folder in subfolders(folder):
        paths = list(images_below(class_folder))
        where = str(class_folder.relative_to(root))
        if not paths:
            listing.faults.append(Fault(where, "is a class folder without images", CLEANUP))
        listing.entries += [Entry(path, class_folder.name, split) for path in paths]
        if others := _other_files(class_folder):
            listing.remarks.append(f"{where} also holds {others}, which are not read")
    loose = [path for path in folder.iterdir() if path.is_file() and _is_image(path)]
    if loose and subfolders(folder):
        listing.remarks.append(
            f"{len(loose)} images lie in {folder.name} beside the class folders and have no label, e.g. {loose[0].name}"
        )


def check_folder(root: Path) -> None:
    if not root.is_dir():
        siblings = [path.name for path in root.parent.iterdir()] if root.parent.is_dir() else []
        hint = f"; {nearest(root.name, siblings)}" if siblings else ""
        raise QuintetError(f"no folder or CSV {root}{hint}")


def nothing_found(root: Path) -> str:
    others = _other_files(root)
    return f"{root} holds no images Pillow reads" + (f", only {others}; convert them to JPEG or PNG" if others else "")


def subfolders(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))]
    return sorted(found, key=lambda path: natural(path.name))


def natural(name: str) -> tuple[bool, int, str]:
    """Sorts names that are numbers by their value, before all others."""
    number = name.isascii() and name.isdigit()
    return (not number, int(name) if number else 0, name)


def _files_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def images_below(folder: Path) -> Iterator[Path]:
    return (path for path in _files_below(folder) if _is_image(path))


def _other_files(folder: Path) -> str:
    """What else lies below a folder, e.g. `3 .heic, 1 .txt`."""
    kinds = Counter(path.suffix.lower() or path.name for path in _files_below(folder) if not _is_image(path))
    del kinds[".db"]  # thumbnails a file manager left
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in image_suffixes() and not path.name.startswith(".")
