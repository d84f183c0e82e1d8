"""Pictures any domain has: learning curves from the rows of metrics.csv, and the confusion matrix of a classifier."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.artist import Artist
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..writing.console import printable
from .palette import BLUE, VERMILION

BLUES = LinearSegmentedColormap.from_list("blues", ["#FFFFFF", "#9CCBE6", BLUE, "#003A5C"])
NAMED = 40  # classes up to which a confusion matrix names each one
COUNTED = 20  # classes up to which it writes the counts


def learning_curves(rows: list[dict[str, Any]]) -> Figure:
    """Training and validation curves over epochs, one panel a quantity.

    Args:
        rows: rows of metrics.csv as `quintet.core.run.metrics_file.read_metrics` returns them.
    """
    # What was never a number, as a measure of more samples than there are, has no panel.
    names = {key for row in rows for key, value in row.items() if key.startswith(("train/", "val/")) and value == value}
    quantities = sorted({name.split("/", 1)[1] for name in names}, key=lambda name: (name != "loss", name))
    columns = min(3, max(1, len(quantities)))
    lines = -(-max(1, len(quantities)) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, quantity in zip(panels, quantities, strict=False):
        for stage, colour in (("train", BLUE), ("val", VERMILION)):
            points = [(row["epoch"] + 1, row[f"{stage}/{quantity}"]) for row in rows if f"{stage}/{quantity}" in row]
            if points:
                panel.plot(
                    *zip(*points, strict=True), color=colour, label=stage, marker="." if len(points) < 30 else ""
                )
        panel.set_title(quantity.replace("_", " "), parse_math=False)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    for panel in panels[len(quantities) :]:
        panel.set_axis_off()
    return figure


def confusion_matrix(
    counts: Int[Tensor, "classes classes"], classes: Sequence[str], what: str = "test samples"
) -> Figure:
    """Rows are true classes, columns predicted ones; colour is the share of the row, numbers are counts.

    Counts of more than five digits are written as shares of their row. With many classes the numbers, and then the
    names, are left out and the most frequent confusions are listed beside.

    Args:
        counts: of each pair of classes.
        classes: their names.
        what: is counted, for the title.
    """
    number = len(classes)
    values = counts.cpu().numpy()
    shares = values / np.maximum(values.sum(1, keepdims=True), 1)
    side = min(11.0, max(4.2, 0.42 * number + 1.6))
    figure = Figure(figsize=(side + 3.2, side), layout="constrained")
    panel, aside = figure.subplots(1, 2, width_ratios=(side, 2.6))
    # The square root of the share, so that rare confusions are seen beside a full diagonal.
    image = panel.imshow(shares, cmap=BLUES, norm=PowerNorm(0.5, 0, 1))
    panel.set(xlabel="predicted", ylabel="true")
    panel.set_title(f"{values.trace() / max(values.sum(), 1):.1%} of {values.sum():,} {what} right", fontsize=11)
    if number <= NAMED:
        names = [shortened(name, 18) for name in classes]
        upright = max(map(len, names)) > 3
        panel.set_xticks(range(number), names, rotation=90 if upright else 0, fontsize=9, parse_math=False)
        panel.set_yticks(range(number), names, fontsize=9, parse_math=False)
    few = values.max() < 100_000
    if number <= COUNTED:
        for row, column in zip(*values.nonzero(), strict=True):
            shade = "white" if shares[row, column] > 0.3 else "black"
            text = f"{values[row, column]:,}" if few else f"{shares[row, column]:.0%}"
            if few or shares[row, column] >= 0.005:
                panel.text(column, row, text, ha="center", va="center", fontsize=9, color=shade)
    # As tall as the square beside it: the scale at the bottom, the list above.
    aside.set_box_aspect(side / 2.6)
    aside.set_axis_off()
    scale = aside.inset_axes((0, 0, 1, 0.03))
    shown = {"ticks": (0, 0.1, 0.4, 1), "format": lambda share, _: f"{share:.0%}"}
    figure.colorbar(image, cax=scale, orientation="horizontal", **shown)
    scale.set_title("share of the true class", fontsize=9, loc="left")
    scale.tick_params(labelsize=8)
    aside.set_title("true \N{RIGHTWARDS ARROW} predicted", fontsize=10, loc="left")
    lines = [
        f"{values[pair]:,}  " + " \N{RIGHTWARDS ARROW} ".join(shortened(classes[label], 14) for label in pair)
        for pair in _confusions(values)[: int(side * 3)]
    ]
    text = "\n".join(lines) or "no mistakes"
    aside.text(0, 0.99, text, va="top", fontsize=9, transform=aside.transAxes, parse_math=False, linespacing=1.5)
    return figure


def _confusions(values: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (true, predicted) of different classes, the most frequent first."""
    rows, columns = values.nonzero()
    pairs = [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if row != column]
    return sorted(pairs, key=lambda pair: -values[pair])


def name_in_legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str], **look: Any) -> None:
    """A legend of any names: none is read as a formula, none left out because it begins with an underscore.

    Args:
        figure: which gets the legend.
        handles: what each name stands for.
        names: as they are to be read.
        **look: see `Figure.legend`.
    """
    # Text that is set later is not searched for underscores.
    legend = figure.legend(handles, ["name"] * len(names), **look)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)


def shortened(name: str, longest: int = 16) -> str:
    """A name in one line as fonts can write it, cut to a length, with an ellipsis where something is left out."""
    name = " ".join(printable(name).split())
    return name if len(name) <= longest else f"{name[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
