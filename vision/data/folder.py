"""Photographs of one's own: class folders, folders of splits or a CSV, looked through before training."""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from rich.table import Table
from torch.utils.data import Dataset

from ...core.data import Augmented, DataModule, Fault
from ...core.errors import QuintetError, nearest
from .images import (
    UNLABELLED,
    ImageDescription,
    ImageFiles,
    OnImage,
    channel_statistics,
    height_and_width,
    published_statistics,
)
from .mask_sources import holds_masks
from .report import report
from .scan import ImageFacts, bit_depth_of, refuse_unusable, relative, scan, too_bright, twins, usable
from .sources import Entry, find_labelled, find_unlabelled, holds_labelled_images, natural
from .splits import check_fractions, remedy_without, split_entries
from .transforms import Fit, Recipe, augmentation, evaluation

MEASURED = 1000  # training images from which mean and standard deviation are taken


@dataclass
class Examination:
    """What was found in a folder: usable images by part, facts of each file, what is wrong and what is remarkable."""

    parts: dict[str, list[Entry]]
    origins: dict[str, str]
    classes: list[str]
    facts: dict[Path, ImageFacts]
    faults: list[Fault]
    remarks: list[str]

    def counts(self, part: str) -> dict[str, int]:
        found = Counter(entry.label for entry in self.parts[part])
        return {name: found[name] for name in self.classes}


class ImageFolder(DataModule):
    """Classified photographs from the user's own files, and unclassified ones for prediction.

    Training, validation and test read one of

        root/<class>/*.jpg                        split here: seeded, stratified, equal files kept together
        root/{train,val,test}/<class>/*.jpg       or valid, validation; a missing part is split off train
        root.csv with path,label[,split][,group]  paths relative to the CSV; images of one group stay in one part

    and prediction any folder, file or CSV of images. Every image Pillow reads is taken, upright, as RGB or grayscale.
    All files are decoded once before training; what was found of them is remembered in the user's cache folder.

    Args:
        root: the folder or CSV.
        image_size: what the network sees, one number or height and width.
        channels: 3 for RGB, 1 for grayscale.
        augmentation: none, light, medium or strong (quintet.vision.data.transforms).
        flip: mirror training images; off where left and right matter.
        fit: how evaluation brings an image to its size: cut the middle out ("crop"), "pad" or "stretch".
        val_fraction: share of the images for validation where the user has not split them.
        test_fraction: share for the test; 0 for none, 1 to test on everything.
        normalization: subtract and divide by the statistics of published weights, or of these images ("data").
        on_error: "raise" refuses files, rows and folders that cannot be used, "skip" leaves them out and says so.
        batch_size: images in a batch.
        num_workers: processes that decode images; 0 decodes in the training process.
        seed: of the split, the order and the augmentation.

    Raises:
        QuintetError: from `setup`, where there is nothing to learn from or files cannot be used.
    """

    def __init__(
        self,
        root: str | Path,
        image_size: int | tuple[int, int] | list[int] = 224,
        channels: Literal[1, 3] = 3,
        augmentation: Recipe = "medium",
        flip: bool = True,
        fit: Fit = "crop",
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
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
        self.channels = channels
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
            entries = self._usable().parts[stage]
            if entries:
                self.datasets[stage] = self._dataset_of(entries, stage)
            elif stage != "test":
                remedy = remedy_without(stage, self.fractions, "images a class")
                raise QuintetError(f"{self.root} leaves no {stage} images; {remedy}")

    def description(self) -> ImageDescription:
        return self._described or self._measured

    def faults(self) -> list[Fault]:
        return self.examination.faults

    def table(self) -> Table:
        seen = self._described.image_size if self._described else self.image_size
        return report(self.root, self.examination, seen, skipped=self.on_error == "skip")

    @cached_property
    def examination(self) -> Examination:
        """The user's folder, looked through once; faults are listed, not raised."""
        listing = find_labelled(self.root)
        facts, faults = scan([entry.path for entry in listing.entries], self.root)
        described = self._described
        if described:
            faults += too_bright(facts, described.bit_depth, self.root)
        readable = [entry for entry in listing.entries if entry.path in facts]
        parts, origins = split_entries(readable, facts, self.fractions, self.seed)
        classes = described.classes if described else sorted({entry.label for entry in parts["train"]}, key=natural)
        if not described and len(classes) < 2:
            found = f"only the class '{classes[0]}'" if classes else "no class"
            faults = [Fault(str(self.root), f"has {found} to train on", "a classifier needs two"), *faults]
        known = set(classes)
        for part, entries in parts.items():
            parts[part] = [entry for entry in entries if entry.label in known]
            faults += self._unknown_labels([entry for entry in entries if entry.label not in known], classes, part)
        return Examination(
            parts,
            origins,
            classes,
            facts,
            [*listing.faults, *faults],
            listing.remarks + twins(parts, facts, self.root, "label"),
        )

    def _usable(self) -> Examination:
        """The examination, once nothing stands in the way of training."""
        found = self.examination
        skip, known = self.on_error == "skip", self._described is not None
        refuse_unusable(found.faults, found.classes, self.root, skip, known)
        return found

    def _unknown_labels(self, entries: list[Entry], classes: list[str], part: str) -> list[Fault]:
        """Labels that training never sees, one fault a label."""
        examples: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            examples[str(entry.label)].append(entry)
        return [
            Fault(
                found[0].where or relative(found[0].path, self.root),
                f"has the label '{label}', which {'the model' if self._described else 'train'} does not know "
                f"({len(found)} image{'s' * (len(found) > 1)} of {part})",
                f"correct it or add it to train; {nearest(label, classes)}",
            )
            for label, found in examples.items()
        ]

    @cached_property
    def _measured(self) -> ImageDescription:
        """The description of these images, from the training part."""
        found = self._usable()
        counts = found.counts("train")
        description = ImageDescription(
            classes=list(counts),
            channels=self.channels,
            image_size=self.image_size,
            mean=[0.0] * self.channels,
            std=[1.0] * self.channels,
            class_counts=list(counts.values()),
            bit_depth=bit_depth_of(found.facts.values()),
            fit=self.fit,
        )
        if self.normalization == "data":
            description.mean, description.std = self._statistics(description, found.parts["train"])
        else:
            description.mean, description.std = published_statistics(self.normalization, self.channels)
        return description

    def _statistics(self, description: ImageDescription, entries: list[Entry]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over a seeded sample of the training images."""
        chosen = random.Random(self.seed).sample(entries, min(MEASURED, len(entries)))
        seen = evaluation(description.image_size, description.mean, description.std, description.fit)
        images = ImageFiles([entry.path for entry in chosen], [UNLABELLED] * len(chosen), description, seen)
        return channel_statistics(images)

    def _dataset_of(self, entries: list[Entry], stage: str) -> Dataset:
        known = self.description()
        label_of = {name: label for label, name in enumerate(known.classes)}
        paths, labels = [entry.path for entry in entries], [label_of[entry.label] for entry in entries]
        if stage != "train":
            return ImageFiles(paths, labels, known, evaluation(known.image_size, known.mean, known.std, known.fit))
        changed = augmentation(self.augmentation, known.image_size, known.mean, known.std, self.flip, known.fit)
        return Augmented(ImageFiles(paths, labels, known), OnImage(changed))

    def _unlabelled(self) -> Dataset:
        if self._described is None:
            raise QuintetError(
                "predicting needs a model's description: give ckpt_path, or data.adopt(task.description)"
            )
        known, listing = self._described, find_unlabelled(self.root)
        found = [entry.path for entry in listing.entries]
        paths = usable(found, listing.faults, self.root, known.bit_depth, skip=self.on_error == "skip")
        return ImageFiles(
            paths, [UNLABELLED] * len(paths), known, evaluation(known.image_size, known.mean, known.std, known.fit)
        )
