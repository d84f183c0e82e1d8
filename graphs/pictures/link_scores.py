"""How far apart the scores of links and of other pairs are."""

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from ...core.pictures.palette import BLUE, VERMILION

BINS = 40


def score_histogram(scores: Float[Tensor, " pairs"], linked: Int[Tensor, " pairs"]) -> Figure:
    """Shares of held-out links and of pairs that are none, by their scores between 0 and 1.

    Args:
        scores: higher for what is more likely linked.
        linked: 1 for a link, 0 for none.
    """
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    panel = figure.subplots()
    edges = np.linspace(float(scores.min()), max(float(scores.max()), float(scores.min()) + 1e-6), BINS + 1)
    for kind, colour, name in ((0, VERMILION, "pairs that are no links"), (1, BLUE, "held-out links")):
        own = scores[linked == kind].numpy()
        if len(own):
            shares, label = np.full(len(own), 1 / len(own)), f"{name} ({len(own):,})"
            panel.hist(own, edges, weights=shares, color=colour, alpha=0.55, label=label)
    panel.set(xlabel="score", ylabel="share of the pairs", title="scores of test pairs")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    return figure
