"""What a person looks at: forecasts beside truth and baselines in small multiples, and the error of each step.

The colours are those of Okabe and Ito, which every kind of colour vision tells apart; line styles say the same again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from ...core.pictures.palette import BLUE, GRAY, GREEN, VERMILION

SHOWN = 12  # panels of a figure
SEEN = GRAY
STYLES = {
    "model": (BLUE, "-"),
    "ridge": (VERMILION, "--"),
    "seasonal_naive": (GREEN, ":"),
}


@dataclass
class Panel:
    """One window of one channel: what was seen, what came, what was forecast.

    Args:
        title: series and channel.
        unit: of the values, "" where unknown.
        stamps: of context and forecast, one after the other.
        context: what was seen (L), NaN where nothing was observed.
        truth: what came (H), NaN where it is not known.
        forecast: the point forecast (H).
        quantiles: (levels, H), None of a point forecast.
        baselines: point forecasts (H) by name.
    """

    title: str
    unit: str
    stamps: pd.Index
    context: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    quantiles: np.ndarray | None = None
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)


def forecast_panels(panels: Sequence[Panel], title: str, levels: Sequence[float] = ()) -> Figure:
    """Panels in rows of three, each with its own axes, and one legend for all.

    Args:
        panels: what to draw.
        title: of the figure.
        levels: of the panels' quantiles.
    """
    columns = min(3, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    width = max(7.0, 4.6 * columns + 0.4)
    figure = Figure(figsize=(width, 2.7 * rows + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, axis in zip(panels, axes, strict=False):
        _draw(axis, panel, levels)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if panels:
        # A panel whose truth is unknown has fewer entries than another.
        entries = {
            label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside lower center",
            ncols=min(len(entries), int(width / 1.7)),
            frameon=False,
        )
    return figure


def _draw(axis: Axes, panel: Panel, levels: Sequence[float]) -> None:
    """One panel: the context ends where the forecast begins, and lines join there."""
    stamps = panel.stamps.tz_localize(None) if getattr(panel.stamps, "tz", None) is not None else panel.stamps
    # No more context than three horizons, so that the forecast is seen.
    kept = min(len(panel.context), 3 * len(panel.forecast))
    length = len(panel.context)
    seen, coming = stamps[length - kept : length], stamps[length:]
    joint, last = stamps[length - 1 :], panel.context[-1]
    mark = "." if kept < 40 else ""
    axis.plot(seen, panel.context[-kept:], color=SEEN, linewidth=1.1, marker=mark, label="seen")
    if np.isfinite(panel.truth).any():
        axis.plot(joint, [last, *panel.truth], color="black", linewidth=1.3, label="truth")
    for name, values in panel.baselines.items():
        colour, style = STYLES[name]
        axis.plot(joint, [last, *values], color=colour, linestyle=style, linewidth=1.2, label=name.replace("_", " "))
    colour, style = STYLES["model"]
    if panel.quantiles is not None:
        for low in range(len(levels) // 2):
            high = len(levels) - 1 - low
            share = levels[high] - levels[low]
            label = f"{share:.0%} band" if low == 0 else None
            axis.fill_between(
                coming, panel.quantiles[low], panel.quantiles[high], color=colour, alpha=0.18, linewidth=0, label=label
            )
    label = "model" if panel.quantiles is None else "model (median)"
    axis.plot(joint, [last, *panel.forecast], color=colour, linestyle=style, linewidth=1.7, label=label)
    axis.axvline(stamps[length - 1], color=SEEN, linewidth=0.8, linestyle=(0, (2, 3)))
    reach_over(axis, stamps[length - kept :])
    axis.set_title(panel.title, fontsize=10, parse_math=False)
    if panel.unit:
        axis.set_ylabel(panel.unit, fontsize=9, parse_math=False)
    axis.tick_params(labelsize=8)
    if isinstance(stamps, pd.DatetimeIndex):
        axis.xaxis.set_major_formatter(ConciseDateFormatter(axis.xaxis.get_major_locator()))
    axis.grid(alpha=0.25)


def error_by_step(errors: Mapping[str, np.ndarray], what: str) -> Figure:
    """One line a forecaster: its mean error (H) at each step of the horizon.

    Args:
        errors: of the model and of the baselines, by name.
        what: the error is, for the axis.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    known = {name: values for name, values in errors.items() if np.isfinite(values).any()}
    for name, values in known.items():
        colour, style = STYLES[name]
        steps = np.arange(1, len(values) + 1)
        mark = "." if len(values) < 30 else ""
        label = f"{name.replace('_', ' ')} ({np.nanmean(values):.3f})"
        axis.plot(steps, values, color=colour, linestyle=style, marker=mark, label=label)
    axis.set(xlabel="steps ahead", ylabel=what)
    say_nothing_known(axis) if not known else axis.legend(frameon=False)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    return figure


def say_nothing_known(axis: Axes) -> None:
    """Says in an empty picture why it is empty."""
    axis.text(0.5, 0.5, "nothing was observed that it could be measured by", ha="center", transform=axis.transAxes)


def reach_over(axis: Axes, stamps: pd.Index) -> None:
    """Lets an axis of time reach over these stamps: where nothing is drawn it would begin in 1970."""
    if len(stamps) > 1:
        margin = (stamps[-1] - stamps[0]) * 0.02
        axis.set_xlim(stamps[0] - margin, stamps[-1] + margin)
