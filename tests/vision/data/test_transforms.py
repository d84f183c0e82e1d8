"""Recipes: sizes, determinism, what is mirrored and what never is."""

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from quintet.core.data import Augmented, Draw
from quintet.vision.data.images import ImageSample, OnImage
from quintet.vision.data.transforms import Recipe, augmentation, evaluation, tiny_augmentation

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


def test_normalization():
    image = evaluation((8, 8), (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))(Image.new("RGB", (8, 8), "white"))
    torch.testing.assert_close(image.mean((1, 2)), torch.tensor([1.0, 3.0, 0.5]))
