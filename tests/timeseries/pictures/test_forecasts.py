"""Pictures are drawn for every kind of panel, with names, units and a legend."""

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quintet.timeseries.pictures import Panel, error_by_step, forecast_panels


def panel(quantiles: bool, truth: bool, stamps: pd.Index | None = None) -> Panel:
    rising = np.linspace(0, 1, 6)
    return Panel(
        title="store $1_a",
        unit="kW",
        stamps=pd.date_range("2024", periods=18, freq="h", tz="UTC") if stamps is None else stamps,
        context=np.concatenate([[np.nan], np.linspace(0, 1, 11)]),
        truth=rising if truth else np.full(6, np.nan),
        forecast=rising + 0.1,
        quantiles=np.stack([rising - 1, rising + 0.1, rising + 1]) if quantiles else None,
        baselines={"ridge": rising, "seasonal_naive": rising - 0.2} if truth else {},
    )


def test_small_multiples():
    figure = forecast_panels(
        [panel(True, True), panel(False, False), panel(False, True, pd.RangeIndex(18))], "t", [0.1, 0.5, 0.9]
    )
    FigureCanvasAgg(figure).draw()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["store $1_a"] * 3
    assert figure.axes[0].get_ylabel() == "kW"
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert {"seen", "truth", "ridge", "seasonal naive", "80% band", "model (median)"} <= set(words)


def test_no_more_context_than_three_horizons():
    figure = forecast_panels([panel(False, True)], "t")
    seen = figure.axes[0].get_lines()[0]
    assert len(seen.get_xdata()) == 12


def test_error_by_step():
    figure = error_by_step({"model": np.array([1.0, 2.0]), "ridge": np.array([2.0, 3.0])}, "error")
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words == ["model (1.500)", "ridge (2.500)"]
