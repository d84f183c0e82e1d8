"""A map of what the head reads of each graph, coloured by what is known of it: a class or a number."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ...core.pictures.charts import shortened
from ...core.pictures.embeddings import MOST, places_of, projection


def embedding_map(
    vectors: Float[np.ndarray, "graphs dim"], known: Sequence[str | float | None], title: str, name: str = ""
) -> Figure:
    """Each graph a point at its first two principal components.

    Args:
        vectors: embeddings.
        known: of each graph its class (text) or number; None or NaN where unknown.
        title: of the picture.
        name: of what colours the points.
    """
    if not any(isinstance(value, float) for value in known):
        return projection(vectors, [None if value is None else str(value) for value in known], title, what="graph")
    chosen = np.sort(np.random.default_rng(0).permutation(len(vectors))[:MOST])
    values = np.array([np.nan if known[at] is None else float(known[at]) for at in chosen])
    places, axes = places_of(vectors[chosen], what="graph")
    figure = Figure(figsize=(8.4, 6.0), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panel = figure.subplots()
    panel.set(xlabel=axes[0], ylabel=axes[1])
    panel.spines[["top", "right"]].set_visible(False)
    size, unknown = 26 if len(chosen) < 500 else 10, np.isnan(values)
    panel.scatter(*places[unknown].T, s=size, c="#BBBBBB", linewidths=0)
    look = {"s": size, "linewidths": 0, "cmap": "viridis", "alpha": 0.85}
    points = panel.scatter(*places[~unknown].T, c=values[~unknown], **look)
    figure.colorbar(points, ax=panel, shrink=0.8).set_label(shortened(name, 40), parse_math=False)
    return figure
