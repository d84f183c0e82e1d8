"""Names of classes and files are text: neither formulas, which end in an error where they are none, nor left out."""

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from quintet.core.pictures.embeddings import projection
from quintet.vision.pictures import Shown, ShownMask, class_bars, image_grid, mask_rows, overlay_grid
from quintet.vision.pictures.contact_sheet import contact_sheet
from quintet.vision.pictures.extremes import EACH, Extremes, batch_sheet, extremes_sheet
from quintet.vision.pictures.labels import ShownLabels, label_grid

FORMULA = "$x_$"  # one dollar alone is no formula; this is a wrong one
CLASSES = [FORMULA, "_b"]  # matplotlib leaves names with a leading underscore out of legends
PALETTE = [[0, 0, 0], [255, 0, 0]]
PIXELS = torch.zeros(3, 4, 4)


def masks() -> list[ShownMask]:
    return [ShownMask(PIXELS, *torch.zeros(2, 4, 4, dtype=torch.uint8), 0.5, FORMULA)]


def extremes() -> Extremes:
    found = Extremes(lambda image: image)
    probabilities = torch.linspace(0, 1, 3 * EACH)
    probabilities = torch.stack([probabilities, 1 - probabilities], 1)
    found.add(PIXELS.expand(3 * EACH, -1, -1, -1), probabilities, torch.zeros(3 * EACH, dtype=torch.long))
    return found


PICTURES = {
    "images": lambda: image_grid([Shown(PIXELS, 0, 0.9, 0), Shown(PIXELS, 1, 0.9, 0)], CLASSES, FORMULA),
    "labels": lambda: label_grid([ShownLabels(PIXELS, torch.tensor([0.9, 0.1]))], CLASSES, FORMULA),
    "rows of masks": lambda: mask_rows(masks(), CLASSES, PALETTE, FORMULA),
    "masks": lambda: overlay_grid(masks(), CLASSES, PALETTE, FORMULA),
    "bars": lambda: class_bars(torch.tensor([0.5, 0.2]), torch.tensor([0.5, 0.5]), CLASSES, FORMULA),
    "extremes": lambda: extremes_sheet(extremes(), CLASSES),
    "batch": lambda: batch_sheet([PIXELS], [FORMULA], FORMULA),
    "contact sheet": lambda: contact_sheet({FORMULA: [(Image.new("RGB", (4, 4)), FORMULA)]}, FORMULA),
    "embeddings": lambda: projection(torch.rand(4, 2).numpy(), [*CLASSES, None, FORMULA], FORMULA),
}


def written(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_parse_math")))


@pytest.mark.parametrize("name", PICTURES)
def test_a_name_that_is_a_wrong_formula_is_drawn_as_it_is(name):
    figure = PICTURES[name]()
    FigureCanvasAgg(figure).draw()
    assert FORMULA in written(figure)


@pytest.mark.parametrize("name", ["rows of masks", "masks", "embeddings"])
def test_a_class_with_a_leading_underscore_stands_in_the_legend(name):
    (legend,) = PICTURES[name]().legends
    assert any(text.get_text().startswith("_b") for text in legend.get_texts())
