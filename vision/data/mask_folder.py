"""Images with masks of one's own: two folders or a CSV, looked through before training."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ...core.data.faults import Fault
from ...core.data.module import Augmented, DataModule
from ...core.errors import QuintetError
from ...core.pictures.charts import shortened
from ..pictures import ShownMask, overlay_grid
from ..pictures.masks import reduced
from .images import channel_statistics, check_channels, display_image, height_and_width, published_statistics
from .mask_classes import examine
from .mask_doubts import turned_with
from .mask_report import MaskExamination, report
from .mask_sources import MaskEntry, find_masks, holds_masks, images_with_masks
from .masks import MaskDescription, MaskFiles, MaskReader, MaskSample, collate_masks, index_table
from .scan import bit_depth_of, refuse_unusable, span_of, usable
from .sources import find_unlabelled
from .splits import check_fractions, remedy_without, say_part
from .transforms import PairedTransform, Recipe, paired_augmentation, paired_evaluation

SHOWN = 16  # images of the contact sheet
MEASURED = 500  # training images from which mean and standard deviation are taken


class OnPair:
    """Applies a transform to image and mask of a sample and leaves the rest alone."""

    def __init__(self, transform: PairedTransform) -> None:
        self.transform = transform

    def __call__(self, sample: MaskSample) -> MaskSample:
        image, mask = self.transform(sample.image, sample.mask)
        return sample._replace(image=image, mask=mask)


class MaskFolder(DataModule):
    """Images with masks of classes from the user's own files, and images alone for prediction.

    Training, validation and test read one of

        root/images/* and root/masks/*            equal names; split here: seeded, equal files kept together
        root/images/{train,val,test}/* ...        or root/{train,val,test}/{images,masks}/*, or train/ and trainannot/
        root.csv with image,mask[,split][,group]  paths relative to the CSV; images of one group stay in one part
        root.json, or a folder with such files    polygons and run lengths as COCO writes them, for each part or for all

    and prediction any folder, file or CSV of images. Images are what Pillow reads, TIFF of any number of bands,
    and arrays (.npy). A mask holds class ids, as gray values or as indices of a palette; masks of 0 and 255 alone are
    read as background and foreground. Classes are what the training masks hold, or what
    `classes` (or root/classes.txt, one name a line) names. All files are decoded once before training.

    Args:
        root: the folder or CSV.
        image_size: what the network sees in training, one number or height and width.
        fit: "stretch" resizes every image to `image_size`; "window" leaves images at their scale, trains on random
            windows of this size and predicts by sliding one over the image.
        masks: name of the folder of masks, where several beside the images may be it.
        classes: names in the order of the ids; None takes classes.txt, or numbers.
        ignore_index: ids that count nowhere, e.g. void; one number, several, or none. "ask" leaves 255 out where it can
            be nothing else (seldom, and beside ids 0, 1, 2, ...), and refuses where it may be a class.
        threshold: gray value from which masks are read as 255, and as 0 below: for masks of dark and bright with soft
            edges, JPEG among them.
        mask_orientation: of masks without an EXIF tag beside images that one turns: "upright" where they were drawn on
            what is seen, "stored" on the pixels as stored; None refuses them where both may be.
        channels: 3 for RGB, 1 for grayscale, or the number of bands, with normalization="data".
        augmentation: none, light, medium or strong (quintet.vision.data.transforms).
        flip: mirror training images; off where left and right matter.
        val_fraction: share of the images for validation where the user has not split them.
        test_fraction: share for the test; 0 for none, 1 to test on everything.
        group: what names a group of images that must stay in one part: a column of the CSV, or a regular expression
            for the path of an image below root, e.g. "^(patient[0-9]+)/" (the bracket, else the whole match).
        normalization: subtract and divide by the statistics of published weights, or of these images ("data").
        on_error: "raise" refuses files, rows and folders that cannot be used, "skip" leaves them out and says so.
        batch_size: images in a batch.
        num_workers: processes that decode images; 0 decodes in the training process.
        seed: of the split, the order and the augmentation.

    Raises:
        QuintetError: from `setup`, where there is nothing to learn from or files cannot be used.
    """

    fixed: ClassVar[frozenset[str]] = frozenset(
        {"image_size", "fit", "classes", "ignore_index", "channels", "normalization"}
    )

    def __init__(
        self,
        root: str | Path,
        image_size: int | tuple[int, int] | list[int] = 256,
        fit: Literal["stretch", "window"] = "stretch",
        masks: str | None = None,
        classes: list[str] | None = None,
        ignore_index: int | list[int] | Literal["ask"] | None = "ask",
        threshold: int | None = None,
        mask_orientation: Literal["upright", "stored"] | None = None,
        channels: int = 3,
        augmentation: Recipe = "medium",
        flip: bool = True,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        group: str | None = None,
        normalization: Literal["imagenet", "inception", "clip", "data"] = "imagenet",
        on_error: Literal["raise", "skip"] = "raise",
        *,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.root = Path(root).expanduser()
        self.image_size = height_and_width(image_size)
        check_fractions(val_fraction, test_fraction)
        if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
            raise QuintetError(f"data.classes is {classes}; give two or more different names")
        self.fit = fit
        self.masks, self.classes = masks, classes
        given = [ignore_index] if isinstance(ignore_index, int) else list(ignore_index or [])
        given = [] if ignore_index == "ask" else given
        if wrong := [value for value in given if not 0 <= value <= 65535]:
            raise QuintetError(f"data.ignore_index holds {wrong[0]}; ids in mask files lie between 0 and 65535")
        self.ignored_ids = None if ignore_index == "ask" else sorted(set(given))
        if threshold is not None and not 1 <= threshold <= 65535:
            raise QuintetError(f"data.threshold is {threshold}; give a gray value from 1 on, such as 128")
        self.threshold = threshold
        self.mask_orientation = mask_orientation
        check_channels(channels, normalization)
        self.channels = channels
        self.group = group
        self.augmentation = augmentation
        self.flip = flip
        self.fractions = {"val": val_fraction, "test": test_fraction}
        self.normalization = normalization
        self.on_error = on_error

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds_masks(path)

    def adopt(self, description: MaskDescription) -> None:
        super().adopt(description)
        self.__dict__.pop("examination", None)

    def collate(self) -> Callable[[Sequence[MaskSample]], MaskSample]:
        return collate_masks

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
                remedy = remedy_without(stage, self.fractions, "images")
                raise QuintetError(f"{self.root} leaves no {stage} images; {remedy}")

    def description(self) -> MaskDescription:
        return self._described or self._measured

    def faults(self) -> list[Fault]:
        return self.examination.faults

    def table(self) -> Table:
        seen = self._described.image_size if self._described else self.image_size
        return report(self.root, self.examination, seen, self.fit, skipped=self.on_error == "skip")

    @cached_property
    def examination(self) -> MaskExamination:
        """The user's folder, looked through once; faults are listed, not raised."""
        described = self._described
        listing = find_masks(self.root, self.group, described.classes if described else None, self.masks)
        return examine(
            self.root,
            listing,
            names=self.classes or listing.classes,
            ignored_ids=self.ignored_ids,
            fractions=self.fractions,
            seed=self.seed,
            channels=described.channels if described else self.channels,
            group=listing.pattern,
            described=described,
            threshold=self.threshold,
            orientation=self.mask_orientation,
        )

    @property
    def _reader(self) -> MaskReader:
        """How the masks that were examined are read."""
        found = self.examination
        entries = [entry for entries in found.parts.values() for entry in entries]
        pairs = {entry.mask: (found.mask_facts[entry.mask], found.facts[entry.path]) for entry in entries}
        turned = {mask: turned_with(*facts, self.mask_orientation) for mask, facts in pairs.items()}
        return MaskReader(
            self.threshold, {mask: orientation for mask, orientation in turned.items() if orientation > 1}
        )

    def _usable(self) -> MaskExamination:
        """The examination, once nothing stands in the way of training."""
        found = self.examination
        skip, known = self.on_error == "skip", self._described is not None
        refuse_unusable(found.faults, self.root, skip, known)
        return found

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        """A contact sheet: images under their masks, so chosen that every class is seen where there is room."""
        found = self.examination
        entries = [(part, entry) for part, entries in found.parts.items() for entry in entries]
        if not entries or not found.ids:
            return
        entries = random.Random(self.seed).sample(entries, len(entries))
        ids_of = {entry: found.mask_facts[entry.mask].ids for _, entry in entries}
        rare_first = sorted(found.ids, key=lambda value: sum(value in ids for ids in ids_of.values()))
        covering = [next((item for item in entries if value in ids_of[item[1]]), None) for value in rare_first]
        chosen = list(dict.fromkeys(item for item in (*covering, *entries) if item is not None))[:SHOWN]
        known = self._described or self._unmeasured(found)
        table, read, items = index_table(known), self._reader, []
        for part, entry in chosen:
            pixels = v2.functional.pil_to_tensor(display_image(entry.path, known)) / 255
            mask = torch.from_numpy(table[read(entry.mask)])
            items.append(reduced(ShownMask(pixels, mask, name=f"{part}: {entry.path.name}")))
        yield (
            "contact_sheet",
            overlay_grid(items, known.classes, known.palette, f"{shortened(self.root.name, 40)}: images and masks"),
        )

    @cached_property
    def _measured(self) -> MaskDescription:
        """The description of these images and masks, from the training part."""
        found = self._usable()
        description = self._unmeasured(found)
        if self.normalization == "data":
            entries = found.parts["train"]
            chosen = random.Random(self.seed).sample(entries, min(MEASURED, len(entries)))
            seen = paired_evaluation(self.image_size, description.mean, description.std)
            images = MaskFiles([entry.path for entry in chosen], None, description, seen)
            description.mean, description.std = channel_statistics(images)
        else:
            description.mean, description.std = published_statistics(self.normalization, self.channels)
        return description

    def _unmeasured(self, found: MaskExamination) -> MaskDescription:
        """The description but for the statistics."""
        pixels = found.pixels("train")
        return MaskDescription(
            classes=found.classes,
            channels=self.channels,
            image_size=self.image_size,
            mean=[0.0] * self.channels,
            std=[1.0] * self.channels,
            class_counts=[pixels[value] for value in found.ids],
            bit_depth=bit_depth_of(found.facts.values()),
            fit=self.fit,
            span=span_of(found.facts[entry.path] for entry in found.parts["train"]),
            ids=found.ids,
            ignored_ids=found.ignored_ids,
            palette=found.palette,
        )

    def _dataset_of(self, entries: list[MaskEntry], stage: str) -> Dataset:
        known = self.description()
        images, masks = [entry.path for entry in entries], [entry.mask for entry in entries]
        seen = (known.image_size, known.mean, known.std)
        read = self._reader
        if stage != "train":
            return MaskFiles(images, masks, known, paired_evaluation(*seen, fit=known.fit), read)
        changed = paired_augmentation(self.augmentation, *seen, flip=self.flip, fit=known.fit, numbers=known.numbers)
        return Augmented(MaskFiles(images, masks, known, read=read), OnPair(changed))

    def _unlabelled(self) -> Dataset:
        known = self.adopted()
        if holds_masks(self.root):
            paths, faults = images_with_masks(self.root, known.classes)
        else:
            unlabelled = find_unlabelled(self.root)
            paths, faults = [entry.path for entry in unlabelled.entries], unlabelled.faults
        paths = usable(paths, faults, self.root, known, skip=self.on_error == "skip")
        seen = paired_evaluation(known.image_size, known.mean, known.std, fit=known.fit)
        return MaskFiles(paths, None, known, seen)
