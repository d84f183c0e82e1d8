"""Images of several classes: what was found, missed and wrongly found is said in words and signs."""

import pytest
import torch

from quintet.vision.pictures.images import NEUTRAL, RIGHT, WRONG
from quintet.vision.pictures.labels import LINES, LabelGallery, ShownLabels, label_grid

CLASSES = ["cat", "dog", "cow"]


def said(figure, panel: int = 0) -> list[tuple[str, str]]:
    return [(text.get_text(), text.get_color()) for text in figure.axes[panel].texts]


def item(*probabilities: float, true=None, side: int = 4, channels: int = 3) -> ShownLabels:
    known = None if true is None else torch.tensor(true)
    return ShownLabels(torch.rand(channels, side, side), torch.tensor(probabilities), known)


def test_found_missed_and_wrong_the_most_probable_first():
    figure = label_grid([item(0.2, 0.9, 0.6, true=[1.0, 1.0, 0.0])], CLASSES, "$t")
    assert said(figure) == [("✓ dog (90%)", RIGHT), ("✗+ cow (60%)", WRONG), ("✗\N{MINUS SIGN} cat (20%)", WRONG)]
    assert figure.get_suptitle() == "$t"


def test_without_truth_only_what_was_found_and_no_class_where_nothing_was():
    figure = label_grid([item(0.2, 0.9, 0.6), item(0.1, 0.1, 0.5)], CLASSES, "t")
    assert said(figure) == [("dog (90%)", NEUTRAL), ("cow (60%)", NEUTRAL)]
    assert said(figure, 1) == [("no class", NEUTRAL)]
    assert said(label_grid([item(0.2, 0.9, 0.6)], CLASSES, "t", threshold=0.7)) == [("dog (90%)", NEUTRAL)]


def test_more_classes_than_lines_are_counted():
    figure = label_grid([item(*[0.9] * (LINES + 2))], [f"c{index}" for index in range(LINES + 2)], "t")
    assert [text for text, _ in said(figure)][-1] == "and 3 more"
    assert len(said(figure)) == LINES
    assert len(said(label_grid([item(*[0.9] * LINES)], [f"c{index}" for index in range(LINES)], "t"))) == LINES


def test_images_stand_in_rows_of_six_and_gray_ones_stay_gray():
    figure = label_grid([item(0.9, 0.1, 0.1, channels=1 if index == 0 else 3) for index in range(7)], CLASSES, "t")
    assert len(figure.axes) == 12
    drawn = [panel.images[0] if panel.images else None for panel in figure.axes]
    assert [image is not None for image in drawn] == [True] * 7 + [False] * 5
    assert (drawn[0].get_array().ndim, drawn[0].get_clim(), drawn[0].get_cmap().name) == (2, (0, 1), "gray")
    assert drawn[1].get_array().ndim == 3


def test_the_most_surprising_are_kept_with_images_of_their_own():
    gallery = LabelGallery(lambda image: image * 2, size=2)
    images = torch.arange(4.0)[:, None, None, None].expand(-1, 3, 2, 2) / 10
    probabilities = torch.tensor([[0.4, 0.0], [0.9, 0.0], [0.0, 0.4], [0.7, 0.0]])
    gallery.add(images, probabilities, torch.tensor([[0.0, 0], [0, 0], [0, 1], [0, 0]]))
    assert [round(found.surprise, 4) for found in gallery.mistakes] == [0.9, 0.7]
    assert [found.image.max().item() for found in gallery.mistakes] == pytest.approx([0.2, 0.6])
    assert all(found.image.untyped_storage().nbytes() == 3 * 2 * 2 * 4 for found in gallery.mistakes)
    assert len(gallery.images) == 2
    assert item(0.3, 0.3, 0.3).surprise == 0.0
