"""Pictures of masks: bounded, the worst and the best found, mistakes seen, safe for any class name."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from quintet.vision.pictures import MaskGallery, ShownMask, class_bars, mask_rows, overlay_grid, painted
from quintet.vision.pictures.images import WRONG
from quintet.vision.pictures.masks import FALSE_ALARM, KEPT, LONGEST, mistakes, overlaid

PALETTE = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]


def mask(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.uint8)


def item(score=0.5) -> ShownMask:
    return ShownMask(
        torch.rand(3, 8, 10), torch.zeros(8, 10, dtype=torch.uint8), torch.zeros(8, 10, dtype=torch.uint8), score
    )


def fill(gallery: MaskGallery, scores) -> None:
    for number, score in enumerate(scores):
        gallery.add(torch.rand(3, 8, 10), mask([0, 1]), mask([0, 0]), score, f"{number}.png")


def test_the_gallery_is_bounded_and_finds_the_extremes():
    scores = [(37 * number % 200) / 200 for number in range(200)]
    gallery = MaskGallery(lambda image: image, size=2)
    fill(gallery, [*scores, math.nan])
    assert len(gallery.images) == KEPT
    found = [shown.score for shown in gallery.extremes()]
    assert found[:2] == [0, 0.005]
    assert found[-2:] == [0.99, 0.995]
    assert all(abs(score - 0.5) < 0.05 for score in found[2:4])


def test_few_images_stand_once():
    gallery = MaskGallery(lambda image: image, size=2)
    assert gallery.extremes() == []
    fill(gallery, [0.2, 0.4, 0.6, 0.8, 0.9])
    assert [shown.score for shown in gallery.extremes()] == [0.2, 0.4, 0.6, 0.8, 0.9]


def test_kept_images_are_small():
    gallery = MaskGallery(lambda image: image)
    gallery.add(
        torch.rand(3, 900, 1200), torch.zeros(900, 1200, dtype=torch.uint8), mask([0]).expand(900, 1200), 0.5, "a"
    )
    (kept,) = gallery.images
    assert kept.image.shape == (3, 240, LONGEST)
    assert kept.predicted.shape == kept.true.shape == (240, LONGEST)


def test_colours_of_masks_and_mistakes():
    assert painted(mask([0, 1, 255]), PALETTE).tolist() == [[[0, 0, 0], [1, 0, 0], [1, 1, 1]]]
    image = torch.full((1, 1, 3), 0.5)
    over = overlaid(image, mask([0, 1, 255]), PALETTE)
    assert over.tolist() == [[[0.25] * 3, [0.75, 0.25, 0.25], [0.5] * 3]]
    shown = ShownMask(torch.full((3, 1, 4), 0.5), mask([0, 1, 0, 1]), mask([0, 0, 1, 255]))
    drawn = mistakes(shown, classes=2)[0]
    assert np.allclose(drawn[0], 0.7)
    assert np.allclose(drawn[1], to_rgb(FALSE_ALARM))
    assert np.allclose(drawn[2], to_rgb(WRONG))
    assert np.allclose(drawn[3], 1)
    assert np.allclose(mistakes(shown, classes=3)[0][1], to_rgb(WRONG))


@pytest.mark.parametrize("count", [1, 6])
def test_rows_can_be_drawn(count, tmp_path):
    figure = mask_rows([item(), *[item(math.nan)] * (count - 1)], ["$x_{", "b", "c"], PALETTE, "a $ title")
    figure.savefig(tmp_path / "rows.png", dpi=40)
    assert [panel.get_title() for panel in figure.axes[:4]] == ["image", "truth", "prediction", "error"]
    assert figure.axes[2].get_xlabel() == "mean IoU 50%"
    assert figure.axes[3].get_xlabel() == "0% of the pixels wrong"


@pytest.mark.parametrize("count", [0, 1, 9])
def test_sheets_can_be_drawn(count, tmp_path):
    names = [f"class $ {number}" for number in range(60)]
    palette = [[number, 0, 0] for number in range(60)]
    overlay_grid([item()] * count, names, palette, "title").savefig(tmp_path / "sheet.png", dpi=40)


def test_bars_of_classes(tmp_path):
    scores = torch.tensor([0.5, math.nan, 0.25])
    figure = class_bars(scores, torch.tensor([0.7, 0.0, 0.3]), ["a $", "b", "c"], "test")
    figure.savefig(tmp_path / "bars.png", dpi=40)
    left = figure.axes[0]
    assert [label.get_text() for label in left.get_yticklabels()] == ["b", "c", "a $"]
    written = [text.get_text() for text in left.texts]
    assert written == ["occurs nowhere", "25.0%", "50.0%", "mean 37.5%"]
    class_bars(torch.tensor([math.nan] * 2), torch.zeros(2), ["a", "b"], "test").savefig(tmp_path / "none.png", dpi=40)
