"""Series by class, and single ones under what they were taken for."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quintet.timeseries.pictures.classes import CLASSES, ShownSeries, class_panels, series_panels


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
