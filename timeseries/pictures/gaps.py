"""Gaps in series and what they were filled with, and the error by the length of the gap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from ...core.pictures.palette import BLUE, GREEN, VERMILION
from .forecasts import SEEN, reach_over, say_nothing_known

GAPS = 12  # panels of a figure
# Okabe and Ito's colours, which every kind of colour vision tells apart; marks and line styles say the same again.
STYLES = {
    "model": (BLUE, "-", "o"),
    "linear_interpolation": (VERMILION, "--", "x"),
    "last_value": (GREEN, ":", "+"),
}


@dataclass
class GapPanel:
    """A window of one channel.

    Args:
        title: series and channel.
        unit: of the values, "" where unknown.
        stamps: of the rows.
        seen: values (T), NaN in the gaps.
        truth: what was hidden (T), NaN elsewhere and where it is not known.
        filled: by name, what the gaps were filled with (T), NaN elsewhere.
    """

    title: str
    unit: str
    stamps: pd.Index
    seen: np.ndarray
    truth: np.ndarray
    filled: Mapping[str, np.ndarray]


def gap_panels(panels: Sequence[GapPanel], title: str) -> Figure:
    """Panels in rows of three, each with its own axes, and one legend for all."""
    columns = min(3, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    figure = Figure(figsize=(max(7.0, 4.6 * columns + 0.4), 2.6 * rows + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries), frameon=False)
    return figure


def _draw(axis: Axes, panel: GapPanel) -> None:
    stamps = panel.stamps.tz_localize(None) if getattr(panel.stamps, "tz", None) is not None else panel.stamps
    axis.plot(stamps, panel.seen, color=SEEN, linewidth=1.1, label="seen")
    # A single cell between two gaps would be no line.
    alone = np.isfinite(panel.seen) & np.isnan(np.roll(panel.seen, 1)) & np.isnan(np.roll(panel.seen, -1))
    axis.plot(stamps[alone], panel.seen[alone], ".", color=SEEN, markersize=3)
    if np.isfinite(panel.truth).any():
        axis.plot(stamps, panel.truth, ".", color="black", markersize=5, label="hidden truth")
    for name, values in reversed(list(panel.filled.items())):
        colour, style, mark = STYLES[name]
        axis.plot(
            stamps,
            values,
            color=colour,
            linestyle=style,
            linewidth=0.9,
            marker=mark,
            markersize=3.5,
            fillstyle="none",
            label=name.replace("_", " "),
        )
    reach_over(axis, stamps)
    axis.set_title(panel.title, fontsize=10, parse_math=False)
    if panel.unit:
        axis.set_ylabel(panel.unit, fontsize=9, parse_math=False)
    axis.tick_params(labelsize=8)
    if isinstance(stamps, pd.DatetimeIndex):
        axis.xaxis.set_major_formatter(ConciseDateFormatter(axis.xaxis.get_major_locator()))
    axis.grid(alpha=0.25)


def error_by_gap(errors: Mapping[str, np.ndarray], lengths: Sequence[int], what: str) -> Figure:
    """One line a way of filling: its mean error in gaps of each length.

    Args:
        errors: of the model and the baselines, one number a length; NaN where no gap had it.
        lengths: rows from which on a gap counts there.
        what: the error is, for the axis.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    ends = [*(f"{low}" if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise(lengths))]
    names = [*ends, f"{lengths[-1]}+"]
    used = [at for at in range(len(names)) if any(np.isfinite(values[at]) for values in errors.values())]
    for name, values in errors.items() if used else ():
        colour, style, mark = STYLES[name]
        own = np.asarray(values)[used]
        axis.plot(range(len(used)), own, color=colour, linestyle=style, marker=mark, label=name.replace("_", " "))
    axis.set_xticks(range(len(used)), [names[at] for at in used])
    axis.set(xlabel="rows of the gap", ylabel=what)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False) if used else say_nothing_known(axis)
    return figure
