"""Writes predicted masks as they come: one file an image, an overlay to look at, and a table of all."""

import csv
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor

from ...core.errors import QuintetError
from ..data.images import display_image
from ..data.masks import MaskDescription, mask_image
from ..pictures import ShownMask, overlay_grid

LONGEST = 1280  # pixels of the longer side of an overlay
SHOWN = 12  # images of the sheet


class MaskWriter:
    """Files of predictions below a folder:

        masks/<name>.png      class ids as in the training masks, in the colours of their palette
        overlays/<name>.jpg   the image under its mask
        predictions.csv       path, mask, and the share of each class
        predictions.png       a sheet of the first images

    Args:
        folder: where to; it is created, and no file of it is overwritten.
        description: of the masks the model was trained on.
        root: folder of the images; names below it are kept.

    Raises QuintetError where predictions lie there already.
    """

    def __init__(self, folder: Path, description: MaskDescription, root: Path | None = None) -> None:
        self.folder, self.description, self.root = Path(folder), description, root
        self.table, self.sheet = self.folder / "predictions.csv", self.folder / "predictions.png"
        for path in (self.table, self.sheet, self.folder / "masks", self.folder / "overlays"):
            if path.exists():
                raise QuintetError(f"{path} exists and is not overwritten; give another folder or remove it")
        self.rows: list[list[str]] = []
        self.shown: list[ShownMask] = []
        self.used: set[str] = set()

    def add(self, path: str, mask: Tensor, shown: ShownMask | None = None) -> None:
        """Writes one mask of class indices (height, width); `shown` is its image for the sheet."""
        name = self._name(Path(path))
        target, overlay = self.folder / "masks" / f"{name}.png", self.folder / "overlays" / f"{name}.jpg"
        for file in (target, overlay):
            file.parent.mkdir(parents=True, exist_ok=True)
        image = mask_image(mask, self.description)
        image.save(target, optimize=False)
        self._overlay(path, mask).save(overlay, quality=90)
        counts = np.bincount(mask.numpy().ravel(), minlength=len(self.description.classes))
        shares = counts / mask.numel()
        self.rows.append([path, str(target.relative_to(self.folder)), *(f"{share:.6f}" for share in shares)])
        if shown is not None and len(self.shown) < SHOWN:
            self.shown.append(shown)

    def close(self) -> list[Path]:
        """Writes table and sheet; returns what a person opens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        classes = self.description.classes
        with self.table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "mask", *(f"share_{name}" for name in classes)])
            writer.writerows(self.rows)
        total, shown = len(self.rows), len(self.shown)
        title = f"{total} images" if shown == total else f"the first {shown} of {total} images"
        overlay_grid(self.shown, classes, self.description.palette, title).savefig(self.sheet, dpi=120)
        return [self.table, self.folder / "masks", self.folder / "overlays", self.sheet]

    def _name(self, path: Path) -> str:
        """The image's name below the root without its suffix, and a number where another image has the same."""
        inside = self.root is not None and path.is_relative_to(self.root)
        kept = path.relative_to(self.root) if inside else Path(path.name)
        stem = kept.with_suffix("").as_posix()
        names = chain([stem], (f"{stem}_{number}" for number in count(2)))
        name = next(name for name in names if name.lower() not in self.used)
        self.used.add(name.lower())
        return name

    def _overlay(self, path: str, mask: Tensor) -> Image.Image:
        image = display_image(path, self.description)
        factor = min(1.0, LONGEST / max(image.size))
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(self.description.palette)] = self.description.palette
        small = Image.fromarray(mask.numpy()).resize(size, Image.Resampling.NEAREST)
        painted = Image.fromarray(colours[np.asarray(small)])
        return Image.blend(image.resize(size, Image.Resampling.BILINEAR), painted, 0.5)


class WriteEach(BasePredictionWriter):
    """Hands each batch of predictions to a `MaskWriter`, so that none stays in memory."""

    def __init__(self, writer: MaskWriter) -> None:
        super().__init__("batch")
        self.writer = writer

    def write_on_batch_end(self, trainer: Trainer, pl_module: LightningModule, prediction: Any, *_: Any) -> None:
        prediction.write(self.writer)
