"""Where the nodes of one graph look: a heat map a layer, and the graph coloured by how much it is looked at."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from ...core.pictures.palette import BLUE
from .drawing import Drawn, draw

LAYERS = 3  # first, middle and last
NAMED = 60  # nodes up to which each is named
HEAT = LinearSegmentedColormap.from_list("heat", ["#FFFFFF", BLUE, "#00263D"])


def attention_panels(layers: Mapping[str, Float[Tensor, "nodes nodes"]], names: Sequence[str], drawn: Drawn) -> Figure:
    """The graph, coloured by how much all layers' nodes look at each node, and a heat map for up to three layers.

    Args:
        layers: weights of each layer, from the nodes of the rows to those of the columns.
        names: of the nodes.
        drawn: the graph.
    """
    chosen = _spread(list(layers))
    figure = Figure(figsize=(3.4 + 3.6 * len(chosen), 4.0), layout="constrained")
    figure.suptitle("which atoms look at which: rows look, columns are looked at (mean over the heads)", fontsize=11)
    panels = figure.subplots(1, 1 + len(chosen), squeeze=False)[0]
    received = np.stack([weights.numpy().sum(0) for weights in layers.values()]).mean(0)
    spread = np.abs(received - received.mean()).max() or 1.0
    drawn.weights = (received - received.mean()) / spread
    drawn.caption += f"\norange: looked at more than the mean, blue: less\n{received.min():.2f} to {received.max():.2f}"
    draw(panels[0], drawn)
    for panel, name in zip(panels[1:], chosen, strict=True):
        values = layers[name].numpy()
        image = panel.imshow(values, cmap=HEAT, vmin=0, interpolation="nearest")
        panel.set_title(name.replace("network.", ""), fontsize=8, parse_math=False)
        if len(names) <= NAMED:
            size = max(3.5, min(8.0, 160 / max(1, len(names))))
            panel.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
            panel.set_yticks(range(len(names)), names, fontsize=size)
        figure.colorbar(image, ax=panel, shrink=0.6, pad=0.02).ax.tick_params(labelsize=7)
    return figure


def _spread(names: list[str]) -> list[str]:
    """First, middle and last."""
    if len(names) <= LAYERS:
        return names
    return [names[round(at * (len(names) - 1) / (LAYERS - 1))] for at in range(LAYERS)]
