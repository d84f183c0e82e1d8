"""Augmentation recipes for photographs and for tiny images, and the fixed way images are seen in evaluation.

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
    """Brings a PIL image to exactly `image_size`.

    Args:
        image_size: height and width of the result.
        fit: "crop" cuts the middle out, "pad" shows all of it between gray bars, "stretch" distorts it.
    """

    def __init__(self, image_size: Sequence[int], fit: Fit = "crop") -> None:
        super().__init__()
        self.height, self.width = image_size
        self.fit = fit

    def forward(self, image: Image.Image) -> Image.Image:
        size, bicubic = (self.width, self.height), Image.Resampling.BICUBIC
        if self.fit == "crop":
            return ImageOps.fit(image, size, bicubic, bleed=(1 - KEPT) / 2)
        if self.fit == "pad":
            return ImageOps.pad(image, size, bicubic, color="gray")
        return image.resize(size, bicubic)


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
    """From a PIL image to a randomly changed, normalized tensor (C, H, W).

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
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(mean), list(std), inplace=True),
        v2.ToPureTensor(),
    ]


def _erasing(probability: float) -> list[nn.Module]:
    return [v2.RandomErasing(probability)] if probability else []


class PairedTransform:
    """From a PIL image and its mask of class indices to tensors: the image normalized, the mask moved along with it.

    Only geometry touches the mask, by nearest neighbours; places that come from outside the image are ignored.

    Args:
        changes: transforms of torchvision.transforms.v2 for the pair (both uint8 tensors).
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

    def __call__(self, image: Image.Image, mask: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        pixels = tv_tensors.Image(v2.functional.pil_to_tensor(image))
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
    """
    height, width = image_size
    fill = {tv_tensors.Image: [round(255 * value) for value in mean], tv_tensors.Mask: ignored}
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
    if jitter:
        # Hue costs more than all else together, and street signs, tissue and fruit are told by it.
        saturation = jitter if len(mean) == 3 else 0
        changes.append(v2.ColorJitter(jitter, jitter, saturation))
    if blur:
        changes.append(v2.RandomApply([v2.GaussianBlur(5, (0.1, 1.5))], 0.3))
    return PairedTransform(changes, mean, std)
