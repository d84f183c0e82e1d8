"""The worst, the median and the best images, and the sheet of a batch."""

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quintet.vision.pictures.extremes import EACH, KEPT, Extremes, batch_sheet, extremes_sheet


def filled(count: int, batch: int = 7) -> Extremes:
    extremes = Extremes(lambda image: image)
    for start in range(0, count, batch):
        numbers = torch.arange(start, min(count, start + batch))
        true = numbers.float() / count  # the probability of the true class rises with the number
        probabilities = torch.stack([true, 1 - true], 1)
        labels = torch.zeros(len(numbers), dtype=torch.long)
        extremes.add(numbers.float()[:, None, None, None].expand(-1, 1, 2, 2), probabilities, labels)
    return extremes


def test_a_row_of_each():
    count = 200
    numbers = [int(item.image[0, 0, 0]) for item in filled(count).images()]
    assert numbers[:EACH] == list(range(EACH))
    assert numbers[2 * EACH :] == list(range(count - EACH, count))
    middle = numbers[EACH : 2 * EACH]
    assert all(abs(number - count / 2) < count / 4 for number in middle)
    assert len(set(numbers)) == 3 * EACH


def test_what_is_kept_is_bounded():
    extremes = filled(1000)
    assert (len(extremes.worst), len(extremes.best), len(extremes.sample)) == (EACH, EACH, KEPT)


def test_of_few_images_there_is_nothing_in_the_middle():
    assert filled(3 * EACH - 1).images() == []


def test_a_sheet_of_a_batch():
    images = [torch.rand(3, 8, 8) for _ in range(11)]
    figure = batch_sheet(images, [f"a very long name of class {number}" for number in range(11)], "a batch")
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert len(axes.images) == 11
    assert axes.texts[3].get_text() == "a very long nam\N{HORIZONTAL ELLIPSIS}"
    FigureCanvasAgg(batch_sheet([torch.rand(1, 4, 4)], ["a"], "one")).draw()


def test_a_sheet_of_the_extremes_says_what_was_wrong():
    figure = extremes_sheet(filled(100), ["cat", "dog"])
    FigureCanvasAgg(figure).draw()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0] == "\N{BALLOT X} dog\ntrue: cat"
    assert texts[3 * EACH - 1] == "\N{CHECK MARK} cat"
    assert texts[3 * EACH :] == ["worst", "median", "best"]
    assert extremes_sheet(filled(3), ["cat", "dog"]) is None
