"""Loads of a household: each line what its name says, each bar its number."""

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quintet.timeseries.pictures.loads import LoadPanel, load_panels, mean_loads

STAMPS = pd.date_range("2024-01-01", periods=4, freq="min", tz="Europe/Vienna")


def panel() -> LoadPanel:
    load, truth = np.array([100.0, 300, np.nan, 120]), np.array([[0.0, 1], [200, 2], [200, np.nan], [0, 4]])
    return LoadPanel("house $1", STAMPS, load, truth + 10, truth)


def test_every_appliance_has_its_truth_its_estimate_and_where_it_runs_from():
    figure = load_panels([panel(), panel()], ["kettle", "fridge"], [50.0, 3.0], "W", "t")
    FigureCanvasAgg(figure).draw()
    axes = np.array(figure.axes).reshape(3, 2)
    assert [axis.get_title() for axis in axes[0]] == ["house $1"] * 2
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["whole load [W]", "kettle [W]", "fridge [W]"]
    for row, threshold in ((1, 50.0), (2, 3.0)):
        for axis in axes[row]:
            lines = {line.get_label(): np.asarray(line.get_ydata(), float) for line in axis.get_lines()}
            np.testing.assert_array_equal(lines["truth"], panel().truth[:, row - 1])
            np.testing.assert_array_equal(lines["model"], panel().truth[:, row - 1] + 10)
            np.testing.assert_array_equal(lines["runs from"], [threshold, threshold])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["truth", "model", "runs from"]
    (whole,) = axes[0, 0].collections
    assert np.nanmax(whole.get_paths()[0].vertices[:, 1]) == 300
    # The clock of the house, not the world's.
    first = pd.Timestamp(axes[1, 0].get_lines()[0].get_xdata()[0])
    assert (first.hour, first.tzinfo) == (0, None)
    assert all(axis.get_ylim()[0] <= 0 for axis in axes.flat)


def test_bars_stand_side_by_side_with_their_numbers():
    means = {"truth": np.array([10.0, 1.5]), "model": np.array([1234.5, 0.0]), "share": np.array([3.0, 4.0])}
    axis = mean_loads(means, ["kettle", "fridge"], "W").axes[0]
    bars = axis.patches
    assert [bar.get_height() for bar in bars] == [10.0, 1.5, 1234.5, 0.0, 3.0, 4.0]
    np.testing.assert_allclose([bar.get_x() for bar in bars[::2]], [-0.4, -0.4 + 0.8 / 3, -0.4 + 1.6 / 3])
    np.testing.assert_allclose([bar.get_x() + 0.4 for bar in bars[1::2]], [1.0, 1 + 0.8 / 3, 1 + 1.6 / 3])
    assert [text.get_text() for text in axis.texts] == ["10", "1.5", "1.23e+03", "0", "3", "4"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["kettle", "fridge"]
    assert axis.get_ylabel() == "mean load [W]"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(means)
