"""Gaps with what they were filled with, and errors by the length of the gap."""

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quintet.timeseries.pictures.gaps import GapPanel, error_by_gap, gap_panels


def panel(truth: bool) -> GapPanel:
    seen = np.arange(6.0)
    seen[2:4] = np.nan
    inside = np.where(np.isnan(seen), 2.5, np.nan)
    stamps = pd.date_range("2024", periods=6, freq="h", tz="UTC")
    hidden = inside if truth else np.full(6, np.nan)
    return GapPanel("store $1 a", "kW", stamps, seen, hidden, {"model": inside, "last_value": inside - 1})


def test_truth_is_drawn_where_it_is_known():
    figure = gap_panels([panel(True), panel(False)], "t")
    FigureCanvasAgg(figure).draw()
    assert [axis.get_title() for axis in figure.axes] == ["store $1 a"] * 2
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"seen", "hidden truth", "model", "last value"}


def test_lengths_that_no_gap_has_are_left_out():
    figure = error_by_gap({"model": np.array([0.1, np.nan, 0.3])}, (1, 2, 4), "error")
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert labels == ["1", "4+"]
