"""Scikit-learn's handwritten digits: 1,797 real scans of 8 x 8 pixels that need no download."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from rich.table import Table
from torch.nn.functional import interpolate
from torchvision.transforms import v2

from ...core.data.module import Augmented, DataModule
from ...core.errors import QuintetError
from .images import ImageDescription, ImagesInMemory, OnImage
from .splits import stratified_split
from .transforms import Recipe, tiny_augmentation


class Digits(DataModule):
    """Optical recognition of handwritten digits (UCI, 1998): 10 classes, grayscale, split here by class and seed.

    Prediction reads the test part again, as there are no unlabelled digits.

    Args:
        image_size: side of the square the network sees; 8 is the original, more enlarges bilinearly.
        augmentation: none, light, medium or strong small shifts, turns and scalings; digits are never mirrored.
        val_fraction: share of each class for validation.
        test_fraction: share of each class for the test.
        batch_size: images in a batch.
        num_workers: processes that read data; everything lies in memory, so 0 is fastest.
        seed: of the split, the order and the augmentation.
    """

    files: ClassVar[str | None] = None

    fixed: ClassVar[frozenset[str]] = frozenset({"image_size"})

    def __init__(
        self,
        image_size: int = 8,
        augmentation: Recipe = "light",
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        if image_size < 8:
            raise QuintetError(f"data.image_size is {image_size}; the digits have 8 x 8 pixels, give 8 or more")
        if not (0 < val_fraction < 1 and 0 < test_fraction < 1 and val_fraction + test_fraction < 1):
            raise QuintetError(
                "data.val_fraction and data.test_fraction are shares above 0 that leave some for training"
            )
        self.image_size = image_size
        self.augmentation = augmentation
        # Here, because loading scikit-learn takes longer than everything else of this package.
        from sklearn.datasets import load_digits

        raw = load_digits()
        images = torch.from_numpy(raw.images).float()[:, None] / 16
        if image_size != 8:
            images = interpolate(images, size=image_size, mode="bilinear", align_corners=False)
        self.images, self.labels = images, raw.target.tolist()
        self.parts = stratified_split(self.labels, {"val": val_fraction, "test": test_fraction}, seed)

    def description(self) -> ImageDescription:
        if self._described:
            return self._described
        train = self.images[self.parts["train"]]
        labels = [self.labels[index] for index in self.parts["train"]]
        return ImageDescription(
            classes=[str(digit) for digit in range(10)],
            channels=1,
            image_size=[self.image_size] * 2,
            mean=[train.mean().item()],
            std=[train.std().item()],
            class_counts=[labels.count(digit) for digit in range(10)],
            fit="stretch",
        )

    def prepare(self, stages: tuple[str, ...]) -> None:
        known = self.description()
        if known.image_size != [self.image_size] * 2 or known.channels != 1:
            raise QuintetError(
                f"the model sees {known.channels} channels of {known.image_size}, these digits have 1 of "
                f"{[self.image_size] * 2}; set data.image_size"
            )
        normalize = v2.Normalize(known.mean, known.std)
        for stage in stages:
            indices = self.parts["test" if stage == "predict" else stage]
            if stage == "train":
                changed = v2.Compose([tiny_augmentation(self.augmentation, known.image_size), normalize])
                self.datasets[stage] = Augmented(self._images(indices, self.images[indices]), OnImage(changed))
            else:
                self.datasets[stage] = self._images(indices, normalize(self.images[indices]))

    def table(self) -> Table:
        table = Table(
            "part", "images", "images a class", title=f"Digits, {self.image_size} x {self.image_size} grayscale"
        )
        for part, indices in self.parts.items():
            labels = [self.labels[index] for index in indices]
            counts = [labels.count(digit) for digit in range(10)]
            table.add_row(part, f"{len(indices):,}", f"{min(counts)} to {max(counts)}")
        return table

    def _images(self, indices: Sequence[int], images: torch.Tensor) -> ImagesInMemory:
        return ImagesInMemory(
            images, [self.labels[index] for index in indices], [f"digits/{index}" for index in indices]
        )
