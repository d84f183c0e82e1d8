"""What was predicted over what was measured: the model in colour, a baseline in grey behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...core.pictures.charts import shortened
from ...core.pictures.palette import BLUE, NEUTRAL

MOST = 3000  # points of a panel, a seeded sample of more
PANELS = 9


@dataclass
class Parity:
    """One target of the test graphs that know it, in the user's units."""

    name: str
    truth: Float[np.ndarray, " graphs"]
    model: Float[np.ndarray, " graphs"]
    baseline: Float[np.ndarray, " graphs"] | None = None


def parity_panels(targets: Sequence[Parity], model: str, baseline: str) -> Figure:
    """A panel a target: predictions over measurements, both axes alike, the line of equality between.

    Args:
        targets: at most nine are drawn.
        model: what the coloured points are called.
        baseline: what the grey ones are called.
    """
    shown = targets[:PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    side = 4.6 if len(shown) == 1 else 3.4
    figure = Figure(figsize=(side * columns, side * rows + 0.5), layout="constrained")
    left_out = f", the first {PANELS} of {len(targets)} targets" if len(targets) > PANELS else ""
    figure.suptitle(f"test graphs: predicted over measured{left_out}", fontsize=11)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel, target in zip(panels, shown, strict=False):
        _draw(panel, target, model, baseline)
    return figure


def _draw(panel: Axes, target: Parity, model: str, baseline: str) -> None:
    chosen = np.random.default_rng(0).permutation(len(target.truth))[:MOST]
    size = 22 if len(chosen) < 300 else 8
    series = [(target.baseline, baseline, "#B0B0B0", "s"), (target.model, model, BLUE, "o")]
    for values, name, colour, mark in series:
        if values is not None:
            error = np.sqrt(np.mean((values - target.truth) ** 2)) if len(values) else np.nan
            look = {"c": colour, "marker": mark, "s": size, "alpha": 0.7, "linewidths": 0}
            panel.scatter(target.truth[chosen], values[chosen], label=f"{name}, RMSE {error:.3g}", **look)
    drawn = [values for values in (target.truth, target.model, target.baseline) if values is not None and len(values)]
    low, high = (min(map(np.min, drawn)), max(map(np.max, drawn))) if drawn else (0.0, 1.0)
    margin = 0.04 * (high - low or 1.0)
    limits = (low - margin, high + margin)
    panel.plot(limits, limits, color=NEUTRAL, linewidth=0.8, linestyle="--", zorder=0)
    panel.set(xlim=limits, ylim=limits, aspect="equal")
    name = shortened(target.name, 30)
    panel.set_xlabel(f"measured {name}", parse_math=False)
    panel.set_ylabel(f"predicted {name}", parse_math=False)
    panel.set_title(f"{len(target.truth):,} graphs", fontsize=9)
    panel.legend(frameon=False, fontsize=8, loc="upper left")
    panel.spines[["top", "right"]].set_visible(False)
