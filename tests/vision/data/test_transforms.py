"""Recipes: sizes, determinism, what is mirrored and what never is."""

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from quintet.core.data.module import Augmented, Draw
from quintet.vision.data.images import ImageSample, OnImage
from quintet.vision.data.transforms import (
    Recipe,
    augmentation,
    evaluation,
    paired_augmentation,
    paired_evaluation,
    tiny_augmentation,
)

RECIPES = get_args(Recipe)
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def left_dark(size=(60, 40), mode: str = "RGB") -> Image.Image:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, size[0] // 2 :] = 255
    return Image.fromarray(pixels).convert(mode)


def brighter_on_the_right(image: torch.Tensor) -> bool:
    left, right = image.mean((0, 1)).chunk(2)
    return bool(right.mean() > left.mean())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("image_size", [(32, 32), (24, 40)])
def test_size_type_and_finiteness(recipe, mode, image_size):
    channels = 3 if mode == "RGB" else 1
    transform = augmentation(recipe, image_size, [0.5] * channels, [0.25] * channels)
    for seed in range(12):
        torch.manual_seed(seed)
        image = transform(left_dark(mode=mode))
        assert type(image) is torch.Tensor
        assert (image.shape, image.dtype) == ((channels, *image_size), torch.float32)
        assert image.isfinite().all()
        assert image.abs().max() <= 2


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_draw_decides(recipe):
    class Photographs(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return ImageSample(left_dark(), 0, "a")

    images = Augmented(Photographs(), OnImage(augmentation(recipe, (32, 32), *PLAIN)))
    first, again = images[Draw(0, 5)].image, images[Draw(0, 5)].image
    assert torch.equal(first, again)
    if recipe != "none":
        assert not torch.equal(first, images[Draw(0, 6)].image)


def test_flip_off_never_mirrors():
    mirrored = {}
    for flip in (True, False):
        transform = augmentation("light", (32, 32), *PLAIN, flip=flip)
        torch.manual_seed(0)
        # A crop may lie in one half alone, where there is no left and right to compare.
        seen = [image for image in (transform(left_dark()) for _ in range(40)) if image.std() > 0.1]
        mirrored[flip] = sum(not brighter_on_the_right(image) for image in seen) / len(seen)
    assert 0.2 < mirrored[True] < 0.8
    assert mirrored[False] == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_tiny_images_move_a_little_and_are_never_mirrored(recipe):
    image = torch.zeros(1, 8, 8)
    image[:, :, 5:] = 1
    transform = tiny_augmentation(recipe, (8, 8))
    torch.manual_seed(0)
    for _ in range(50):
        changed = transform(image)
        assert changed.shape == image.shape
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert brighter_on_the_right(changed)


def test_evaluation_keeps_the_middle_without_distortion():
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, 40:80] = 255
    image = evaluation((40, 40), *PLAIN)(Image.fromarray(pixels))
    assert image[:, :, 2:-2].min() > 0.99


def test_pad_shows_all_and_stretch_fills():
    image = Image.new("RGB", (120, 40), "white")
    padded = evaluation((40, 40), *PLAIN, fit="pad")(image)
    assert (padded.mean((0, 2)) > 0.99).sum() in (13, 14)
    assert torch.equal(evaluation((40, 40), *PLAIN, fit="stretch")(image), torch.ones(3, 40, 40))


PARTS = {
    # rotation in degrees, smallest share of a crop, brightness and contrast, blurred
    "none": (0, None, None, False),
    "light": (0, 0.5, 0.2, False),
    "medium": (10, 0.25, 0.3, False),
    "strong": (20, 0.1, 0.5, True),
}


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_recipe_does_to_images_with_masks(recipe, channels, flip):
    """By name and number; hue is left alone, and gray images have no saturation."""
    degrees, smallest, jitter, blurred = PARTS[recipe]
    transform = paired_augmentation(recipe, (32, 48), [0.5] * channels, [0.5] * channels, flip=flip)
    parts = {type(part).__name__: part for part in transform.changes.transforms}
    expected = {"RandomRotation"} if degrees else set()
    expected |= {"RandomResizedCrop"} if smallest else {"Resize"}
    expected |= {"RandomHorizontalFlip"} if flip and recipe != "none" else set()
    expected |= {"BandJitter" if channels == 5 else "ColorJitter"} if jitter else set()
    expected |= {"RandomApply"} if blurred else set()
    assert set(parts) == expected
    if degrees:
        assert parts["RandomRotation"].degrees == [-degrees, degrees]
    if smallest:
        assert parts["RandomResizedCrop"].scale == (smallest, 1.0)
        assert parts["RandomResizedCrop"].ratio == pytest.approx((1.2, 1.875))
    if jitter and channels != 5:
        colours, span = parts["ColorJitter"], pytest.approx((1 - jitter, 1 + jitter))
        assert colours.brightness == colours.contrast == span
        assert colours.saturation == (span if channels == 3 else None)
        assert colours.hue is None


def test_normalization():
    image = evaluation((8, 8), (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))(Image.new("RGB", (8, 8), "white"))
    torch.testing.assert_close(image.mean((1, 2)), torch.tensor([1.0, 3.0, 0.5]))


# Images with masks


def halves(size=(60, 40)) -> tuple[Image.Image, np.ndarray]:
    """An image that is white where its mask says 1."""
    image = left_dark(size)
    return image, (np.asarray(image)[..., 0] > 127).astype(np.uint8)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("fit", ["stretch", "window"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_mask_moves_with_its_image(recipe, fit, mode):
    channels = 3 if mode == "RGB" else 1
    transform = paired_augmentation(recipe, (32, 48), [0.5] * channels, [0.5] * channels, fit=fit)
    image, mask = halves()
    agreeing = []
    for seed in range(12):
        torch.manual_seed(seed)
        seen, moved = transform(image.convert(mode), mask)
        assert type(seen) is type(moved) is torch.Tensor
        assert (seen.shape, seen.dtype) == ((channels, 32, 48), torch.float32)
        assert (moved.shape, moved.dtype) == ((32, 48), torch.uint8)
        assert set(moved.unique().tolist()) <= {0, 1, 255}
        counted = moved != 255
        # Only brightness changes colours here, and only the edge between the halves is blurred.
        agreeing.append(((seen[0] > seen[0].mean()) == (moved == 1))[counted].float().mean().item())
    one_half = [value for value in agreeing if value < 0.5]  # a window that shows a single half has no edge
    assert np.mean([value for value in agreeing if value not in one_half]) > 0.95
    assert len(one_half) < 6


def test_windows_of_small_images_are_filled_up_and_ignored():
    transform = paired_augmentation("none", (64, 64), (0.5,) * 3, (0.5,) * 3, fit="window")
    seen, mask = transform(*halves((60, 40)))
    assert seen.shape == (3, 64, 64)
    assert (mask == 255).sum() == 64 * 64 - 60 * 40
    assert seen[:, mask == 255].abs().max() < 0.01  # the mean of the images


def test_evaluation_leaves_the_mask_alone():
    image, mask = halves()
    seen, same = paired_evaluation((20, 30), *PLAIN)(image, mask)
    assert seen.shape == (3, 20, 30)
    assert (same.numpy() == mask).all()
    seen, nothing = paired_evaluation((20, 30), *PLAIN, fit="window")(image, None)
    assert seen.shape == (3, 40, 60)
    assert nothing is None


def test_pairs_are_mirrored_only_where_that_is_wanted():
    image, mask = halves()
    mirrored = {}
    for flip in (True, False):
        transform = paired_augmentation("light", (32, 48), *PLAIN, flip=flip)
        torch.manual_seed(0)
        masks = [transform(image, mask)[1].float() for _ in range(40)]
        mirrored[flip] = np.mean([mask[:, 0].mean() > mask[:, -1].mean() for mask in masks])
    assert 0.2 < mirrored[True] < 0.8
    assert mirrored[False] == 0
