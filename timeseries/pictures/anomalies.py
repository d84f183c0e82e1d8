"""Series with their scores below: the threshold, the true anomalies as bands, and what was found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from ...core.pictures.charts import name_in_legend
from ..metrics.anomalies import stretches
from .forecasts import SEEN, reach_over

SERIES = 4  # of a figure
CHANNELS = 6  # drawn of one series
# Okabe and Ito's colours, which every kind of colour vision tells apart.
TRUE, FOUND, SCORE = "#E69F00", "#D55E00", "#0072B2"
COLOURS = (SEEN, "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#000000")


@dataclass
class AnomalyPanel:
    """One series with its scores.

    Args:
        title: of the series.
        stamps: of the rows.
        values: (T, C) in the user's units.
        channels: their names.
        scores: (T), NaN where there is none.
        threshold: above which a row is flagged.
        truth: (T), True where a row is anomalous; None where that is not known.
    """

    title: str
    stamps: pd.Index
    values: np.ndarray
    channels: Sequence[str]
    scores: np.ndarray
    threshold: float
    truth: np.ndarray | None = None


def anomaly_panels(panels: Sequence[AnomalyPanel], title: str) -> Figure:
    """Two panels a series, one above the other: its values and its scores."""
    rows = max(1, len(panels))
    figure = Figure(figsize=(11.5, 3.6 * rows + 0.7), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots(2 * rows, 1, squeeze=False, height_ratios=(3, 2) * rows).ravel()
    lines = {}  # of the channels, by name
    for number, panel in enumerate(panels):
        above, below = axes[2 * number : 2 * number + 2]
        below.sharex(above)
        stamps = panel.stamps.tz_localize(None) if getattr(panel.stamps, "tz", None) is not None else panel.stamps
        several = panel.values.shape[1] > 1
        for channel, values in enumerate(panel.values.T[:CHANNELS]):
            if several:  # channels of any unit on one axis
                values = (values - np.nanmean(values)) / max(np.nanstd(values), 1e-12)
            (lines[panel.channels[channel]],) = above.plot(stamps, values, color=COLOURS[channel], linewidth=0.8)
        above.set_title(panel.title, fontsize=10, parse_math=False)
        above.set_ylabel("standardized" if several else panel.channels[0], fontsize=9, parse_math=False)
        below.plot(stamps, panel.scores, color=SCORE, linewidth=0.8, label="score")
        below.axhline(panel.threshold, color=FOUND, linestyle="--", linewidth=1.0, label="threshold")
        below.set_ylabel("score", fontsize=9)
        reach_over(below, stamps)
        flags = np.nan_to_num(panel.scores, nan=-np.inf) > panel.threshold
        at = np.flatnonzero(flags)
        below.plot(stamps[at], panel.scores[at], ".", color=FOUND, markersize=4, label="found")
        for axis in (above, below):
            for begin, end in stretches(panel.truth) if panel.truth is not None else ():
                axis.axvspan(stamps[begin], stamps[end], color=TRUE, alpha=0.3, linewidth=0, label="true anomaly")
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.25)
        for begin, end in stretches(flags):
            above.axvspan(stamps[begin], stamps[end], ymax=0.03, color=FOUND, label="found")
        if isinstance(stamps, pd.DatetimeIndex):
            below.xaxis.set_major_formatter(ConciseDateFormatter(below.xaxis.get_major_locator()))
        above.tick_params(labelbottom=False)
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if entries:
        handles, names = [*lines.values(), *entries.values()], [*lines, *entries]
        look = {"ncols": min(len(names), 8), "frameon": False}
        name_in_legend(figure, handles, names, loc="outside lower center", **look)
    return figure
