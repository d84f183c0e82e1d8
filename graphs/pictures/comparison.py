"""The network beside what needs none: one bar a method, and in words whether it was worth its cost."""

import textwrap
from collections.abc import Mapping

from matplotlib.figure import Figure

from ...core.pictures.palette import BLUE, GREEN

GREY = "#B0B0B0"


def comparison_bars(scores: Mapping[str, float], measure: str, sentence: str, model: str) -> Figure:
    """Scores of the methods, the best on top.

    Args:
        scores: of each method, the model's own among them.
        measure: what they measure, and which is better.
        sentence: what they come to.
        model: the network's name among the methods.
    """
    smaller = "smaller" in measure
    ordered = sorted(scores.items(), key=lambda pair: pair[1], reverse=smaller)
    figure = Figure(figsize=(7.5, 0.45 * len(ordered) + 1.5), layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(sentence, 95)), fontsize=10, parse_math=False)
    panel = figure.subplots()
    colours = {model: BLUE, "blend": GREEN}
    names = [name.replace("_", " ") for name, _ in ordered]
    bars = panel.barh(names, [value for _, value in ordered], color=[colours.get(name, GREY) for name, _ in ordered])
    panel.bar_label(bars, fmt="%.3f", padding=3, fontsize=9)
    panel.set_xlabel(measure, parse_math=False)
    panel.margins(x=0.12)
    panel.spines[["top", "right"]].set_visible(False)
    return figure
