"""Names of series, channels, classes and units are text: neither formulas, which may be wrong ones, nor left out."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quintet.timeseries.pictures.anomalies import AnomalyPanel, anomaly_panels
from quintet.timeseries.pictures.classes import ShownSeries, class_panels, series_panels
from quintet.timeseries.pictures.forecasts import Panel, forecast_panels
from quintet.timeseries.pictures.gaps import GapPanel, gap_panels
from quintet.timeseries.pictures.loads import LoadPanel, load_panels, mean_loads

FORMULA = "$x_$"  # one dollar alone is no formula; this is a wrong one
NAMES = [FORMULA, "_b"]  # matplotlib leaves names with a leading underscore out of legends
STAMPS, ONES = pd.RangeIndex(4), np.ones(4)
PAIR = np.ones((4, 2))


def anomalies(channels: int):
    values = PAIR[:, :channels]
    return anomaly_panels([AnomalyPanel(FORMULA, STAMPS, values, NAMES, ONES, 2.0)], FORMULA)


PICTURES = {
    "anomalies of one channel": lambda: anomalies(1),
    "anomalies": lambda: anomalies(2),
    "training series": lambda: class_panels({FORMULA: [PAIR]}, NAMES, [FORMULA, ""]),
    "series": lambda: series_panels([ShownSeries(0, PAIR, 0, 0.5, 1)], [FORMULA], NAMES, NAMES, FORMULA),
    "forecasts": lambda: forecast_panels(
        [Panel(FORMULA, FORMULA, STAMPS, context=ONES[:3], truth=ONES[:1], forecast=ONES[:1])], FORMULA
    ),
    "gaps": lambda: gap_panels(
        [GapPanel(FORMULA, FORMULA, STAMPS, seen=ONES, truth=ONES, filled={"model": ONES})], FORMULA
    ),
    "loads": lambda: load_panels(
        [LoadPanel(FORMULA, STAMPS, ONES, PAIR, truth=PAIR)], NAMES, [1.0, 1.0], unit=FORMULA, title=FORMULA
    ),
    "mean loads": lambda: mean_loads({"truth": ONES[:2]}, NAMES, FORMULA),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_name_that_is_a_wrong_formula_is_drawn_as_it_is(name):
    figure = PICTURES[name]()
    FigureCanvasAgg(figure).draw()
    texts = figure.findobj(lambda artist: hasattr(artist, "get_parse_math"))
    assert any(FORMULA in text.get_text() for text in texts)


@pytest.mark.parametrize("name", ["anomalies", "series"])
def test_a_channel_with_a_leading_underscore_stands_in_the_legend(name):
    (legend,) = PICTURES[name]().legends
    assert "_b" in [text.get_text() for text in legend.get_texts()]
