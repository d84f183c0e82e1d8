"""Series by class, and single ones under what they were taken for."""

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quintet.timeseries.data.classes import LabelledBatch
from quintet.timeseries.pictures.classes import CLASSES, SeriesGallery, ShownSeries, class_panels, series_panels


def test_a_column_a_class_and_a_row_a_channel():
    groups = {f"class $ {number}": [np.zeros((5 + number, 4))] * 30 for number in range(CLASSES + 2)}
    figure = class_panels(groups, list("abcd"), ["kW", "", "", ""])
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == 3 * CLASSES
    assert figure.axes[0].get_title() == "class $ 0 (30)"
    assert figure.axes[0].get_ylabel() == "a [kW]"
    assert figure.get_suptitle() == f"training series by class ({CLASSES} of {CLASSES + 2} classes, 3 of 4 channels)"


def test_mistakes_say_what_is_true():
    items = [ShownSeries(1, np.zeros((5, 8)), 0, 0.9, 1), ShownSeries(0, np.zeros((5, 8)), 1, 0.6)]
    figure = series_panels(items, ["first", "second"], ["up", "down"], list("abcdefgh"), "mistakes")
    FigureCanvasAgg(figure).draw()
    assert figure.axes[0].get_title() == "second\n\N{BALLOT X} up (90%), true: down"
    assert figure.axes[1].get_title() == "first\ndown (60%)"
    (legend,) = figure.legends
    assert legend.get_texts()[-1].get_text() == "f (and 2 more, not drawn)"


def test_the_surest_mistakes_and_the_first_right_ones_are_kept_in_the_users_units():
    gallery = SeriesGallery(mean=[10.0, 0.0], std=[2.0, 1.0], size=3)
    confidences, truth = torch.linspace(0.51, 0.9, 40), torch.arange(40) % 2
    truth[5] = -1
    order = torch.arange(39, -1, -1)  # batches come in any order
    for rows in order.split(7):
        values = rows[:, None, None].float().expand(-1, 4, 2)
        mask = torch.arange(4) < torch.where(rows % 3 == 0, 2, 4)[:, None]
        batch = LabelledBatch(values, mask, truth[rows], rows)
        gallery.add(batch, torch.stack([confidences[rows], 1 - confidences[rows]], 1))
    assert [item.index for item in gallery.mistakes] == [39, 37, 35]
    assert [(item.index, item.true) for item in gallery.right] == [(0, 0), (2, 0), (4, 0)]
    assert np.array_equal(gallery.mistakes[0].values, [[88.0, 39.0]] * 2)
    assert gallery.mistakes[1].values.shape == (4, 2)
    assert [item.index for item in gallery.right if item.wrong] == []
