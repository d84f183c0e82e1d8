"""What a graph looks like before training: how many edges its nodes have, how many there are of each class."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from ...core.pictures.charts import shortened
from ...core.pictures.palette import BLUE

LISTED = 20  # classes with a bar of their own
BINS = 30


def overview(degrees: Int[np.ndarray, " nodes"], classes: Sequence[str | None], what: str) -> Figure:
    """A histogram of the numbers of edges of nodes and, where there are classes, a bar for each of the most frequent.

    Args:
        degrees: edges at each node.
        classes: of each sample, None where unknown; empty where there are none.
        what: has classes, nodes or graphs.
    """
    counts = Counter("no class" if name is None else name for name in classes)
    shown = counts.most_common(LISTED)
    figure = Figure(figsize=(10.5 if shown else 5.5, max(3.6, 0.26 * len(shown) + 1.4)), layout="constrained")
    panels = figure.subplots(1, 2 if shown else 1, squeeze=False)[0]
    largest = int(degrees.max(initial=0))
    edges = np.arange(largest + 2) - 0.5 if largest < BINS else np.linspace(-0.5, largest + 0.5, BINS + 1)
    panels[0].hist(degrees, edges, color=BLUE)
    alone = int((degrees == 0).sum())
    title = f"{len(degrees):,} nodes, {alone:,} without an edge, at most {largest:,} edges at one"
    panels[0].set(xlabel="edges of a node", ylabel="nodes (logarithmic)", yscale="log")
    panels[0].set_ylim(bottom=0.5)  # a single node has a bar too
    panels[0].yaxis.set_major_formatter("{x:,.0f}")
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    panels[0].set_title(title, fontsize=9)
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    if shown:
        names = [shortened(name, 24) for name, _ in shown][::-1]
        bars = panels[1].barh(np.arange(len(shown)), [count for _, count in shown][::-1], color="#B0B0B0")
        panels[1].set_yticks(np.arange(len(shown)), names, parse_math=False)
        panels[1].bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        panels[1].margins(x=0.12)
        more = f", {LISTED} of {len(counts):,} classes" if len(counts) > LISTED else ""
        panels[1].set_title(f"{what} of each class{more}", fontsize=9)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure
