"""Series with scores, threshold, true and found anomalies."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from quintet.timeseries.pictures.anomalies import AnomalyPanel, anomaly_panels


@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("stamps", [pd.RangeIndex(20), pd.date_range("2024", periods=20, freq="h", tz="UTC")])
def test_two_panels_a_series(channels, stamps):
    scores = np.full(20, 0.5)
    scores[:4], scores[10:12] = np.nan, 3.0
    truth = np.zeros(20, dtype=bool)
    truth[9:12] = True
    names = list("abcdefgh")[:channels]
    values = np.random.default_rng(0).normal(size=(20, channels))
    figure = anomaly_panels(
        [
            AnomalyPanel("store $1", stamps, values, names, scores, 1.0, truth),
            AnomalyPanel("y", stamps, values, names, scores, 9.0),
        ],
        "t",
    )
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == 4
    assert figure.axes[0].get_title() == "store $1"
    (legend,) = figure.legends
    assert {"score", "threshold", "found", "true anomaly"} <= {text.get_text() for text in legend.get_texts()}
