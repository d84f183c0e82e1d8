"""Augmentation recipes for photographs, images of many bands and tiny images, and the fixed way of evaluation.

Everything random comes from torchvision.transforms.v2, which draws from torch's generator: the data module seeds it for
each sample, so that augmentation does not depend on workers or resumption.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

Recipe = Literal["none", "light", "medium", "strong"]
Fit = Literal["crop", "pad", "stretch"]

# Share of the image that evaluation keeps along each side, cut from its middle.
KEPT = 0.95


class ResizeTo(nn.Module):
    """Brings a PIL image, or numbers (C, H, W), to exactly `image_size`.

    Args:
        image_size: height and width of the result.
        fit: "crop" cuts the middle out, "pad" shows all of it between gray bars, "stretch" distorts it.
    """

    def __init__(self, image_size: Sequence[int], fit: Fit = "crop") -> None:
        super().__init__()
        self.height, self.width = image_size
        self.fit = fit

    def forward(self, image: Image.Image | torch.Tensor) -> Image.Image | torch.Tensor:
        if isinstance(image, torch.Tensor):
            return self._of_numbers(image)
        size, bicubic = (self.width, self.height), Image.Resampling.BICUBIC
        if self.fit == "crop":
            return ImageOps.fit(image, size, bicubic, bleed=(1 - KEPT) / 2)
        if self.fit == "pad":
            return ImageOps.pad(image, size, bicubic, color="gray")
        return image.resize(size, bicubic)

    def _of_numbers(self, image: torch.Tensor) -> torch.Tensor:
        bicubic = {"interpolation": v2.InterpolationMode.BICUBIC, "antialias": True}
        height, width = image.shape[-2:]
        if self.fit == "crop":
            scale = KEPT * min(height / self.height, width / self.width)
            inner = max(1, round(self.height * scale)), max(1, round(self.width * scale))
            top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
            return v2.functional.resized_crop(image, top, left, *inner, [self.height, self.width], **bicubic)
        if self.fit == "pad":
            scale = min(self.height / height, self.width / width)
            inner = max(1, round(height * scale)), max(1, round(width * scale))
            down, right = self.height - inner[0], self.width - inner[1]
            edges = [right // 2, down // 2, right - right // 2, down - down // 2]
            return v2.functional.pad(v2.functional.resize(image, list(inner), **bicubic), edges, fill=0.5)
        return v2.functional.resize(image, [self.height, self.width], **bicubic)


class BandJitter(nn.Module):
    """Multiplies each band of numbers (C, H, W) by a random factor and adds a random offset, as light and sensors do.

    Args:
        strength: factors lie in 1 - strength to 1 + strength, offsets in a quarter of that around 0.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, *sample: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        pixels, *rest = sample
        gain, offset = (torch.rand(2, len(pixels), 1, 1) * 2 - 1) * self.strength
        changed = pixels * (1 + gain) + offset / 4
        if isinstance(pixels, tv_tensors.Image):
            changed = tv_tensors.Image(changed)
        return (changed, *rest) if rest else changed


def evaluation(image_size: Sequence[int], mean: Sequence[float], std: Sequence[float], fit: Fit = "crop") -> v2.Compose:
    """From a PIL image to the normalized tensor (C, H, W) a network sees; nothing random."""
    return v2.Compose([ResizeTo(image_size, fit), *_normalized(mean, std)])


def augmentation(
    recipe: Recipe,
    image_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool = True,
    fit: Fit = "crop",
) -> v2.Compose:
    """From a PIL image, or numbers (C, H, W), to a randomly changed, normalized tensor (C, H, W).

    - none: as in evaluation.
    - light: random crop of at least 60 % of the area, mirrored.
    - medium: random crop of at least 35 %, mirrored, RandAugment (arXiv 1909.13719) of magnitude 6, rare erasing.
    - strong: random crop of at least 8 %, mirrored, TrivialAugment (arXiv 2103.10158), erasing (arXiv 1708.04896).

    Args:
        recipe: which of them.
        image_size: height and width of the result.
        mean: of the normalization.
        std: of the normalization.
        flip: mirror left and right half of the time; off where that changes the class (letters, left hands).
        fit: how recipe "none" brings an image to its size; the random crops of the others need no such choice.
    """
    if recipe == "none":
        return evaluation(image_size, mean, std, fit)
    smallest, changes, erased = {
        "light": (0.6, [], 0.0),
        "medium": (0.35, [v2.RandAugment(magnitude=6, interpolation=v2.InterpolationMode.BILINEAR)], 0.1),
        "strong": (0.08, [v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)], 0.25),
    }[recipe]
    if len(mean) not in (1, 3):
        # Colour changes know three colours: of other bands each is made lighter or darker.
        changes = [BandJitter({"light": 0.0, "medium": 0.15, "strong": 0.3}[recipe])]
    crop = v2.RandomResizedCrop(tuple(image_size), (smallest, 1.0))
    mirror = [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([crop, *mirror, *changes, *_normalized(mean, std), *_erasing(erased)])


def tiny_augmentation(recipe: Recipe, image_size: Sequence[int]) -> v2.Compose:
    """Small shifts, rotations and scalings of a tensor (C, H, W) of a few pixels; never mirrored.

    light moves by at most a sixteenth of the image and turns by 5 degrees, medium by an eighth and 10 degrees, strong
    by an eighth and 15 degrees and erases a patch of every fourth image.
    """
    if recipe == "none":
        return v2.Compose([v2.Identity()])
    shift, degrees, scale, erased = {
        "light": (1 / 16, 5, 0.05, 0.0),
        "medium": (1 / 8, 10, 0.1, 0.0),
        "strong": (1 / 8, 15, 0.15, 0.25),
    }[recipe]
    moved = v2.RandomAffine(
        degrees, (shift, shift), (1 - scale, 1 + scale), interpolation=v2.InterpolationMode.BILINEAR
    )
    return v2.Compose([moved, *_erasing(erased)])


def _normalized(mean: Sequence[float], std: Sequence[float]) -> list[nn.Module]:
    return [
        Pixels(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(mean), list(std), inplace=True),
        v2.ToPureTensor(),
    ]


class Pixels(nn.Module):
    """A PIL image as a tensor (C, H, W); a tensor stays as it is."""

    def forward(self, image: Image.Image | torch.Tensor) -> torch.Tensor:
        return image if isinstance(image, torch.Tensor) else v2.functional.pil_to_tensor(image)


def _erasing(probability: float) -> list[nn.Module]:
    return [v2.RandomErasing(probability)] if probability else []


class PairedTransform:
    """From an image and its mask of class indices to tensors: the image normalized, the mask moved along with it.

    Only geometry touches the mask, by nearest neighbours; places that come from outside the image are ignored.

    Args:
        changes: transforms of torchvision.transforms.v2 for the pair (both uint8 tensors, or the image of numbers).
        mean: of the normalization.
        std: of the normalization.
        mask_changes: whether `changes` apply to the mask too; evaluation compares at the mask's own size.
    """

    def __init__(
        self, changes: Sequence[nn.Module], mean: Sequence[float], std: Sequence[float], mask_changes: bool = True
    ) -> None:
        self.changes = v2.Compose([*changes]) if changes else v2.Identity()
        self.normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))])
        self.mask_changes = mask_changes

    def __call__(
        self, image: Image.Image | torch.Tensor, mask: np.ndarray | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        pixels = tv_tensors.Image(Pixels()(image))
        indices = None if mask is None else tv_tensors.Mask(torch.from_numpy(mask))
        if indices is not None and self.mask_changes:
            pixels, indices = self.changes(pixels, indices)
        else:
            pixels = self.changes(pixels)
        return self.normalize(pixels.as_subclass(torch.Tensor)), (
            None if indices is None else indices.as_subclass(torch.Tensor)
        )


def paired_evaluation(
    image_size: Sequence[int], mean: Sequence[float], std: Sequence[float], fit: str = "stretch"
) -> PairedTransform:
    """The image as the network sees it, nothing random; the mask stays as it is."""
    resize = [v2.Resize(list(image_size), antialias=True)] if fit == "stretch" else []
    return PairedTransform(resize, mean, std, mask_changes=False)


def paired_augmentation(
    recipe: Recipe,
    image_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool = True,
    fit: str = "stretch",
    ignored: int = 255,
    numbers: bool = False,
) -> PairedTransform:
    """A randomly changed image of `image_size` with its mask.

    - none: as in evaluation, with fit "window" a random window.
    - light: random crop of at least half the area, mirrored, brightness and contrast a little changed.
    - medium: random crop of at least a quarter, mirrored, turned by up to 10 degrees, colours changed.
    - strong: random crop of at least a tenth, mirrored, turned by up to 20 degrees, colours changed strongly, blurred.

    Args:
        recipe: which of them.
        image_size: height and width of the result.
        mean: of the normalization.
        std: of the normalization.
        flip: mirror left and right half of the time.
        fit: "stretch" takes crops of the whole image, "window" of windows at the image's own scale.
        ignored: mask value of places from outside the image.
        numbers: images are numbers with white at 1 and not pictures with white at 255.
    """
    height, width = image_size
    fill = {
        tv_tensors.Image: list(mean) if numbers else [round(255 * value) for value in mean],
        tv_tensors.Mask: ignored,
    }
    smallest, degrees, jitter, blur = {
        "none": (1.0, 0, 0.0, False),
        "light": (0.5, 0, 0.2, False),
        "medium": (0.25, 10, 0.3, False),
        "strong": (0.1, 20, 0.5, True),
    }[recipe]
    changes: list[nn.Module] = []
    if fit == "window":
        # The window is first taken larger, as large as the crop below may enlarge what it keeps.
        margin = 1.0 if recipe == "none" else 1.25
        changes.append(v2.RandomCrop((round(height * margin), round(width * margin)), pad_if_needed=True, fill=fill))
        smallest = max(smallest, 0.5)
    if degrees:
        changes.append(v2.RandomRotation(degrees, v2.InterpolationMode.BILINEAR, fill=fill))
    if recipe != "none":
        # Proportions of the wanted size, and up to a quarter beside them.
        ratio = (0.8 * width / height, 1.25 * width / height)
        changes.append(v2.RandomResizedCrop((height, width), (smallest, 1.0), ratio, antialias=True))
    elif fit == "stretch":
        changes.append(v2.Resize([height, width], antialias=True))
    if recipe != "none" and flip:
        changes.append(v2.RandomHorizontalFlip())
    if jitter and len(mean) not in (1, 3):
        changes.append(BandJitter(jitter))
    elif jitter:
        # Hue costs more than all else together, and street signs, tissue and fruit are told by it.
        saturation = jitter if len(mean) == 3 else 0
        changes.append(v2.ColorJitter(jitter, jitter, saturation))
    if blur:
        changes.append(v2.RandomApply([v2.GaussianBlur(5, (0.1, 1.5))], 0.3))
    return PairedTransform(changes, mean, std)
