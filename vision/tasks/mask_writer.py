"""Writes predicted masks as they come: one file an image, an overlay to look at, and a table of all."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor

from ...core.writing.cells import path_cell, write_table
from ...core.writing.files import OutputNames, refuse_existing, written_whole
from ..data.images import display_image
from ..data.masks import MaskDescription, mask_image
from ..pictures import ShownMask, overlay_grid

LONGEST = 1280  # pixels of the longer side of an overlay
SHOWN = 12  # images of the sheet


class MaskWriter:
    """Files of predictions below a folder:

        masks/<name>.png      class ids as in the training masks, in the colours of their palette
        overlays/<name>.jpg   the image under its mask
        predictions.csv       path, mask, and the share of each class (quintet.core.writing.cells)
        predictions.png       a sheet of the first images

    Args:
        folder: where to; it is created, and no file of it is overwritten.
        description: of the masks the model was trained on.
        root: folder of the images; names below it are kept, but for what would lead out of `folder`.

    Raises QuintetError where predictions lie there already, or a file cannot be written.
    """

    def __init__(self, folder: Path, description: MaskDescription, root: Path | None = None) -> None:
        self.folder, self.description, self.root = Path(folder), description, root
        self.table, self.sheet = self.folder / "predictions.csv", self.folder / "predictions.png"
        for path in (self.table, self.sheet, self.folder / "masks", self.folder / "overlays"):
            refuse_existing(path, "folder")
        self.rows: list[list[str]] = []
        self.shown: list[ShownMask] = []
        self.names = [(OutputNames(self.folder / kind), end) for kind, end in (("masks", ".png"), ("overlays", ".jpg"))]

    def add(self, path: str, mask: Tensor, shown: ShownMask | None = None) -> None:
        """Writes one mask of class indices (height, width); `shown` is its image for the sheet."""
        kept = self._below_root(Path(path))
        # Both are asked for the same names in the same order, so that an overlay is called as its mask.
        target, overlay = (names.path(kept, ending) for names, ending in self.names)
        with written_whole(target, remedy="give another folder") as file:
            mask_image(mask, self.description).save(file, optimize=False)
        with written_whole(overlay, remedy="give another folder") as file:
            self._overlay(path, mask).save(file, quality=90)
        counts = np.bincount(mask.numpy().ravel(), minlength=len(self.description.classes))
        shares = [f"{share:.6f}" for share in counts / mask.numel()]
        self.rows.append([path_cell(path), target.relative_to(self.folder).as_posix(), *shares])
        if shown is not None and len(self.shown) < SHOWN:
            self.shown.append(shown)

    def close(self) -> list[Path]:
        """Writes table and sheet; returns what a person opens."""
        classes = self.description.classes
        write_table(self.table, ["path", "mask", *(f"share_{name}" for name in classes)], self.rows)
        total, shown = len(self.rows), len(self.shown)
        title = f"{total} images" if shown == total else f"the first {shown} of {total} images"
        with written_whole(self.sheet, remedy="give another folder") as file:
            overlay_grid(self.shown, classes, self.description.palette, title).savefig(file, dpi=120)
        return [self.table, self.folder / "masks", self.folder / "overlays", self.sheet]

    def _below_root(self, path: Path) -> Path:
        """The image's name below the root, and outside of it the name alone."""
        inside = self.root is not None and path.is_relative_to(self.root)
        return path.relative_to(self.root) if inside else Path(path.name)

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
