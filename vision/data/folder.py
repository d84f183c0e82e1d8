"""Photographs of one's own: class folders, folders of splits or a CSV, looked through before training."""

import random
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from PIL import Image
from rich.table import Table
from torch.utils.data import Dataset

from ...core.data.faults import Fault
from ...core.data.module import Augmented, DataModule
from ...core.errors import QuintetError, nearest
from ...core.pictures.charts import shortened
from ..pictures.contact_sheet import COLUMNS, contact_sheet
from .examination import Examination
from .images import (
    UNLABELLED,
    ImageDescription,
    ImageFiles,
    OnImage,
    channel_statistics,
    check_channels,
    display_image,
    height_and_width,
    published_statistics,
)
from .mask_sources import holds_masks
from .partners import excluded, masks_among
from .report import report
from .scan import (
    bit_depth_of,
    near_twins,
    other_bands,
    outliers,
    refuse_unusable,
    relative,
    scan,
    span_of,
    twins,
    unlike,
    usable,
)
from .several_labels import rarest
from .sources import Entry, Listing, find_labelled, find_unlabelled, holds_labelled_images, natural
from .splits import check_fractions, divided_groups, named_groups, remedy_without, say_part, split_entries
from .transforms import Fit, Recipe, augmentation, evaluation

MEASURED = 1000  # training images from which mean and standard deviation are taken


class ImageFolder(DataModule):
    """Classified photographs from the user's own files, and unclassified ones for prediction.

    Training, validation and test read one of

        root/<class>/*.jpg                        split here: seeded, stratified, equal files kept together
        root/{train,val,test}/<class>/*.jpg       or valid, validation; a missing part is split off train
        root.csv with path,label[,split][,group]  paths relative to the CSV; images of one group stay in one part
        root.csv with path,<class>,<class>,...    0 or 1 in each class's column: several labels an image, or none

    and prediction any folder, file or CSV of images. Every image Pillow reads is taken, upright, as RGB or grayscale;
    so are TIFF of any number of bands and arrays (.npy).
    All files are decoded once before training; what was found of them is remembered in the user's cache folder.

    Args:
        root: the folder or CSV.
        image_size: what the network sees, one number or height and width.
        channels: 3 for RGB, 1 for grayscale, or the number of bands, with normalization="data".
        augmentation: none, light, medium or strong (quintet.vision.data.transforms).
        flip: mirror training images; off where left and right matter.
        fit: how evaluation brings an image to its size: cut the middle out ("crop"), "pad" or "stretch".
        val_fraction: share of the images for validation where the user has not split them.
        test_fraction: share for the test; 0 for none, 1 to test on everything.
        group: what names a group of images that must stay in one part: a column of the CSV, or a regular expression
            for the path of an image below root, e.g. "(patient[0-9]+)" (the bracket, else the whole match).
        exclude: patterns of files below root that are not read, e.g. "*_mask.png"; none ([]) where files of one name
            are all photographs, None refuses them where one may be the mask of the other.
        label_separator: what stands between the labels of an image in the CSV's column, e.g. ";" in "cat;dog"; None
            means one label an image.
        normalization: subtract and divide by the statistics of published weights, or of these images ("data").
        on_error: "raise" refuses files, rows and folders that cannot be used, "skip" leaves them out and says so.
        batch_size: images in a batch.
        num_workers: processes that decode images; 0 decodes in the training process.
        seed: of the split, the order and the augmentation.

    Raises:
        QuintetError: from `setup`, where there is nothing to learn from or files cannot be used.
    """

    fixed: ClassVar[frozenset[str]] = frozenset({"image_size", "channels", "fit", "normalization"})

    def __init__(
        self,
        root: str | Path,
        image_size: int | tuple[int, int] | list[int] = 224,
        channels: int = 3,
        augmentation: Recipe = "medium",
        flip: bool = True,
        fit: Fit = "crop",
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        group: str | None = None,
        exclude: str | list[str] | None = None,
        label_separator: str | None = None,
        normalization: Literal["imagenet", "inception", "clip", "data"] = "imagenet",
        on_error: Literal["raise", "skip"] = "raise",
        *,
        batch_size: int = 32,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.root = Path(root).expanduser()
        self.image_size = height_and_width(image_size)
        check_fractions(val_fraction, test_fraction)
        check_channels(channels, normalization)
        self.channels = channels
        self.group = group
        self.exclude = [exclude] if isinstance(exclude, str) else exclude
        if label_separator is not None and not label_separator.strip():
            raise QuintetError("data.label_separator is blank; give what stands between labels, such as ';' or '|'")
        self.label_separator = label_separator
        self.augmentation = augmentation
        self.flip = flip
        self.fit = fit
        self.fractions = {"val": val_fraction, "test": test_fraction}
        self.normalization = normalization
        self.on_error = on_error

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds_labelled_images(path) and not holds_masks(path)

    def adopt(self, description: ImageDescription) -> None:
        super().adopt(description)
        self.__dict__.pop("examination", None)

    def prepare(self, stages: tuple[str, ...]) -> None:
        for stage in stages:
            if stage == "predict":
                self.datasets[stage] = self._unlabelled()
                continue
            found = self._usable()
            entries = found.parts[stage]
            if entries:
                say_part(stage, found.parts, found.origins, self.root, self._described is not None)
                self.datasets[stage] = self._dataset_of(entries, stage)
            elif stage != "test":
                remedy = remedy_without(stage, self.fractions, "images a class")
                raise QuintetError(f"{self.root} leaves no {stage} images; {remedy}")

    def description(self) -> ImageDescription:
        return self._described or self._measured

    def unlabelled_description(self) -> ImageDescription:
        """How to read the images, whatever they show: a description without classes."""
        listing = self._to_predict()
        facts, faults = scan([entry.path for entry in listing.entries], self.root)
        faults += other_bands(facts, self.channels, self.root)
        refuse_unusable(faults, self.root, self.on_error == "skip", known=True)
        entries = [Entry(path) for path in facts]
        return self._described_by(Examination({"train": entries}, {}, [], facts, faults, []))

    def labelled_parts(self) -> dict[str, tuple[str, str]]:
        """The label and the part of each image by its path, whatever classes a model knows; empty without labels."""
        if not holds_labelled_images(self.root):
            return {}
        listing = self._labelled()
        grouped, _ = named_groups(listing.entries, listing.pattern, self.root, lambda path: relative(path, self.root))
        facts, _ = scan([entry.path for entry in grouped], self.root)
        readable = [entry for entry in grouped if entry.path in facts]
        stratum = rarest(readable) if listing.several else attrgetter("label")
        parts, _ = split_entries(readable, facts, self.fractions, self.seed, label_of=stratum)
        return {str(entry.path): (entry.label, part) for part, entries in parts.items() for entry in entries}

    def faults(self) -> list[Fault]:
        return self.examination.faults

    def table(self) -> Table:
        seen = self._described.image_size if self._described else self.image_size
        return report(self.root, self.examination, seen, skipped=self.on_error == "skip")

    @cached_property
    def examination(self) -> Examination:
        """The user's folder, looked through once; faults are listed, not raised."""
        listing = self._labelled()
        grouped, ungrouped = named_groups(
            listing.entries, listing.pattern, self.root, lambda path: relative(path, self.root)
        )
        facts, faults = scan([entry.path for entry in grouped], self.root)
        described = self._described
        faults = [
            *ungrouped,
            *faults,
            *other_bands(facts, described.channels if described else self.channels, self.root),
        ]
        if described:
            faults += unlike(facts, described, self.root)
        readable = [entry for entry in grouped if entry.path in facts]
        if self.exclude is None:
            paired, may_be_masks = masks_among(readable, facts, self.root)
            readable = [entry for entry in readable if entry not in paired]
            faults += may_be_masks
        if described and listing.several and not described.multi_label:
            raise QuintetError(f"{self.root} gives images several labels, the model was trained to give them one")
        stratum = rarest(readable) if listing.several else attrgetter("label")
        parts, origins = split_entries(readable, facts, self.fractions, self.seed, label_of=stratum)
        seen = {name for entry in parts["train"] for name in entry.names}
        classes = sorted(seen, key=natural)
        if listing.columns:
            classes = [name for name in listing.columns if name in seen]
        if described:
            classes = described.classes
        if not described and len(classes) < 2:
            found = f"only the class '{classes[0]}'" if classes else "no class"
            lacking = Fault(str(self.root), f"has {found} to train on", "a classifier needs two")
            # Where nothing could be read, the reason comes first.
            faults = [lacking, *faults] if classes else [*faults, lacking]
        known = set(classes)
        for part, entries in parts.items():
            parts[part] = [entry for entry in entries if known.issuperset(entry.names)]
            unknown = [entry for entry in entries if not known.issuperset(entry.names)]
            faults += self._unknown_labels(unknown, classes, part)
        return Examination(
            parts,
            origins,
            classes,
            facts,
            [*listing.faults, *faults],
            [
                *listing.remarks,
                *divided_groups(parts),
                *twins(parts, facts, self.root, "label"),
                *near_twins(parts, facts, self.root),
                *outliers(facts, self.root),
                *self._separators(listing),
            ],
            listing.several,
        )

    def _labelled(self) -> Listing:
        """What the user's files hold with labels, but for what they exclude."""
        listing = find_labelled(self.root, self.group, self.label_separator)
        listing.entries, remarks = excluded(listing.entries, self.exclude or [], self.root)
        listing.remarks += remarks
        return listing

    def _to_predict(self) -> Listing:
        """All images of the user's, but for what they exclude. Raises QuintetError where that leaves none."""
        listing = find_unlabelled(self.root)
        listing.entries, remarks = excluded(listing.entries, self.exclude or [], self.root)
        if not listing.entries and not listing.faults:
            raise QuintetError(f"data.exclude={self.exclude} leaves no image of {self.root}; give other patterns")
        for remark in remarks:
            rank_zero_only(print)(remark)
        return listing

    def _separators(self, listing: Listing) -> Iterator[str]:
        """A remark where labels look like several."""
        for mark in ";|,":
            if not listing.several and (found := [entry for entry in listing.entries if mark in (entry.label or "")]):
                yield (
                    f"{len(found)} labels hold '{mark}', e.g. '{found[0].label}'; if those are several labels of an "
                    f"image, say data.label_separator='{mark}'"
                )

    def _usable(self) -> Examination:
        """The examination, once nothing stands in the way of training."""
        found = self.examination
        skip, known = self.on_error == "skip", self._described is not None
        refuse_unusable(found.faults, self.root, skip, known)
        return found

    def _unknown_labels(self, entries: list[Entry], classes: list[str], part: str) -> list[Fault]:
        """Labels that training never sees, one fault a label."""
        examples: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            for name in set(entry.names).difference(classes):
                examples[name].append(entry)
        return [
            Fault(
                found[0].where or relative(found[0].path, self.root),
                f"has the label '{label}', which {'the model' if self._described else 'train'} does not know "
                f"({len(found)} image{'s' * (len(found) > 1)} of {part})",
                f"correct it or add it to train; {nearest(label, classes)}",
            )
            for label, found in examples.items()
        ]

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        """A contact sheet: some images of each class, training images first."""
        found = self.examination
        known, draw = self._described or self._unmeasured(found), random.Random(self.seed)
        images: dict[str, list[tuple[Image.Image, str]]] = {name: [] for name in found.classes}
        for entries in found.parts.values():
            for entry in draw.sample(entries, len(entries)):
                for name in entry.names:
                    if len(images[name]) < COLUMNS:
                        images[name].append((display_image(entry.path, known), entry.path.name))
        if found.classes:
            yield "contact_sheet", contact_sheet(images, f"{shortened(self.root.name, 40)}: images of each class")

    @cached_property
    def _measured(self) -> ImageDescription:
        """The description of these images, from the training part."""
        return self._described_by(self._usable())

    def _described_by(self, found: Examination) -> ImageDescription:
        description = self._unmeasured(found)
        if self.normalization == "data":
            description.mean, description.std = self._statistics(description, found.parts["train"])
        else:
            description.mean, description.std = published_statistics(self.normalization, self.channels)
        return description

    def _unmeasured(self, found: Examination) -> ImageDescription:
        """The description but for the statistics."""
        counts = found.counts("train")
        return ImageDescription(
            classes=list(counts),
            channels=self.channels,
            image_size=self.image_size,
            mean=[0.0] * self.channels,
            std=[1.0] * self.channels,
            class_counts=list(counts.values()),
            bit_depth=bit_depth_of(found.facts.values()),
            fit=self.fit,
            span=span_of(found.facts[entry.path] for entry in found.parts["train"]),
            multi_label=found.several,
            training_images=len(found.parts["train"]),
        )

    def _statistics(self, description: ImageDescription, entries: list[Entry]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over a seeded sample of the training images."""
        chosen = random.Random(self.seed).sample(entries, min(MEASURED, len(entries)))
        seen = evaluation(description.image_size, description.mean, description.std, description.fit)
        images = ImageFiles([entry.path for entry in chosen], [UNLABELLED] * len(chosen), description, seen)
        return channel_statistics(images)

    def _dataset_of(self, entries: list[Entry], stage: str) -> Dataset:
        known = self.description()
        label_of = {name: label for label, name in enumerate(known.classes)}
        paths = [entry.path for entry in entries]
        labels = [[label_of[name] for name in entry.names] for entry in entries]
        if known.multi_label:
            none = torch.zeros(len(label_of))
            labels = [none.index_fill(0, torch.tensor(own, dtype=torch.long), 1) for own in labels]
        else:
            labels = [own for (own,) in labels]
        if stage != "train":
            return ImageFiles(paths, labels, known, evaluation(known.image_size, known.mean, known.std, known.fit))
        changed = augmentation(self.augmentation, known.image_size, known.mean, known.std, self.flip, known.fit)
        return Augmented(ImageFiles(paths, labels, known), OnImage(changed))

    def _unlabelled(self) -> Dataset:
        known, listing = self.adopted(), self._to_predict()
        found = [entry.path for entry in listing.entries]
        paths = usable(found, listing.faults, self.root, known, skip=self.on_error == "skip")
        return ImageFiles(
            paths, [UNLABELLED] * len(paths), known, evaluation(known.image_size, known.mean, known.std, known.fit)
        )
