"""The load of a household with that of its appliances, as they were and as they are estimated; and their energy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from ...core.pictures.palette import BLUE, GRAY, VERMILION
from .forecasts import SEEN, reach_over

COLUMNS = 3  # stretches of time side by side
MODEL, TRUTH = BLUE, "black"
BARS = {"truth": GRAY, "model": BLUE, "share": VERMILION}


@dataclass
class LoadPanel:
    """A stretch of time of one household.

    Args:
        title: of the column.
        stamps: of the rows.
        load: of the whole household (T), NaN where it was not observed.
        estimates: of the appliances (T, A).
        truth: of the appliances (T, A), NaN where it is not known.
    """

    title: str
    stamps: pd.Index
    load: np.ndarray
    estimates: np.ndarray
    truth: np.ndarray


def load_panels(
    panels: Sequence[LoadPanel], appliances: Sequence[str], thresholds: Sequence[float], unit: str, title: str
) -> Figure:
    """A column for each stretch: the whole load on top, an axis for each appliance below it.

    Args:
        panels: what to draw.
        appliances: names of the rows.
        thresholds: of running, drawn as a dotted line.
        unit: of all loads.
        title: of the figure.
    """
    rows, columns = 1 + len(appliances), max(1, len(panels))
    figure = Figure(figsize=(max(7.0, 4.4 * columns + 0.6), 1.5 * rows + 1.2), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots(rows, columns, squeeze=False, sharex="col")
    for column, panel in enumerate(panels):
        stamps = panel.stamps.tz_localize(None) if getattr(panel.stamps, "tz", None) is not None else panel.stamps
        axes[0, column].fill_between(stamps, panel.load, step="mid", color=SEEN, alpha=0.35, linewidth=0)
        axes[0, column].set_title(panel.title, fontsize=10, parse_math=False)
        for row, threshold in enumerate(thresholds, start=1):
            axis = axes[row, column]
            axis.plot(stamps, panel.truth[:, row - 1], color=TRUTH, linewidth=1.2, label="truth")
            axis.plot(stamps, panel.estimates[:, row - 1], color=MODEL, linewidth=1.4, linestyle="--", label="model")
            reach_over(axis, stamps)
            axis.axhline(threshold, color=SEEN, linewidth=0.8, linestyle=":", label="runs from")
        if isinstance(stamps, pd.DatetimeIndex):
            axes[-1, column].xaxis.set_major_formatter(ConciseDateFormatter(axes[-1, column].xaxis.get_major_locator()))
    for row, name in enumerate(["whole load", *appliances]):
        axes[row, 0].set_ylabel(f"{name} [{unit}]", fontsize=9, parse_math=False)
    for axis in axes.flat:
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    if panels and len(appliances):
        handles, labels = axes[1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def mean_loads(means: Mapping[str, np.ndarray], appliances: Sequence[str], unit: str) -> Figure:
    """Bars of the mean load of each appliance: as it was, as estimated, and by its share in the training rows.

    Args:
        means: (A) by name: truth, model, share.
        appliances: names of the groups.
        unit: of all loads.
    """
    figure = Figure(figsize=(max(5.0, 1.6 * len(appliances) + 2), 3.6), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(means)
    places = np.arange(len(appliances))
    for number, (name, values) in enumerate(means.items()):
        bars = axis.bar(places + (number - (len(means) - 1) / 2) * width, values, width, color=BARS[name], label=name)
        axis.bar_label(bars, fmt="{:,.3g}", fontsize=8, padding=2)
    axis.set_xticks(places, appliances, parse_math=False)
    axis.set_ylabel(f"mean load [{unit}]", parse_math=False)
    axis.margins(y=0.12)  # room for the numbers above
    axis.grid(axis="y", alpha=0.25)
    axis.legend(frameon=False)
    return figure
