"""Pictures: bounded, a fair sample, right and wrong told apart without colour, safe for any class name."""

import sys

import pytest
import torch

from quintet.vision.pictures import Gallery, Shown, image_grid


def titles(figure) -> list[str]:
    return [panel.get_title() for panel in figure.axes]


def fill(gallery: Gallery, batches: int, size: int = 10) -> None:
    for batch in range(batches):
        images = torch.arange(batch * size, (batch + 1) * size).float()[:, None, None, None].expand(-1, 1, 4, 4)
        probabilities = torch.tensor([[0.9, 0.1]] * size)
        gallery.add(images, probabilities, torch.arange(size) % 2)


def test_the_sample_is_bounded_and_drawn_from_everywhere():
    gallery = Gallery(lambda image: image / 1000, size=20)
    fill(gallery, 100)
    assert len(gallery.images) == 20
    positions = torch.tensor([item.image.max().item() for item in gallery.images])
    # 20 uniform draws from 0..1 that all lie in one half would be a chance of one in half a million.
    assert positions.min() < 0.5 < positions.max()
    assert len(set(positions.tolist())) == 20


def test_kept_images_do_not_hold_on_to_their_batch():
    gallery = Gallery(lambda image: image, size=3)
    gallery.add(torch.rand(50, 3, 8, 8), torch.rand(50, 2), torch.zeros(50, dtype=torch.long))
    assert all(item.image.untyped_storage().nbytes() == 3 * 8 * 8 * 4 for item in [*gallery.images, *gallery.mistakes])


def test_mistakes_are_the_most_confident_ones():
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(60, 3, generator=generator).softmax(1)
    labels = torch.randint(3, (60,), generator=generator)
    gallery = Gallery(lambda image: image, size=5)
    for start in range(0, 60, 7):
        chosen = slice(start, start + 7)
        gallery.add(torch.zeros(len(labels[chosen]), 1, 2, 2), probabilities[chosen], labels[chosen])
    confidence, predicted = probabilities.max(1)
    expected = confidence[predicted != labels].sort(descending=True).values[:5]
    torch.testing.assert_close(torch.tensor([item.confidence for item in gallery.mistakes]), expected)
    assert all(item.wrong for item in gallery.mistakes)


def test_collecting_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    fill(Gallery(lambda image: image), 3)
    assert torch.equal(torch.rand(3), expected)


def test_wrong_ones_are_marked_by_more_than_colour():
    items = [
        Shown(torch.zeros(1, 8, 8), 0, 0.9, 0),
        Shown(torch.zeros(3, 80, 70), 1, 0.6, 0),
        Shown(torch.zeros(3, 8, 8), 1, 0.5),
    ]
    figure = image_grid(items, ["cat", "dog"], "title")
    assert titles(figure)[:3] == ["\N{CHECK MARK} cat (90%)", "\N{BALLOT X} dog (60%)\ntrue: cat", "dog (50%)"]
    assert figure.axes[0].get_images()[0].get_interpolation() == "nearest"
    assert figure.axes[1].get_images()[0].get_interpolation() == "antialiased"


@pytest.mark.parametrize("count", [1, 5, 7, 24])
def test_grids_of_any_length_can_be_drawn(count, tmp_path):
    items = [Shown(torch.rand(3, 10, 12), 0, 0.5, 0)] * count
    image_grid(items, ["$x_{"], "a $ title").savefig(tmp_path / "grid.png", dpi=40)


def test_no_global_state_of_matplotlib():
    code = "import quintet.vision.pictures, sys; assert 'matplotlib.pyplot' not in sys.modules"
    if "matplotlib.pyplot" not in sys.modules:
        exec(code)
