"""A map of what the head reads of each graph, coloured by what is known of it: a class or a number."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ...core.pictures.charts import shortened
from ...core.pictures.embeddings import projection

MOST = 5000  # points, a seeded sample of more


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
    places, shares = _components(vectors[chosen])
    figure = Figure(figsize=(8.4, 6.0), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panel = figure.subplots()
    panel.set(xlabel=f"component 1 ({shares[0]:.0%} of the variance)", ylabel=f"component 2 ({shares[1]:.0%})")
    panel.spines[["top", "right"]].set_visible(False)
    size, unknown = 26 if len(chosen) < 500 else 10, np.isnan(values)
    panel.scatter(*places[unknown].T, s=size, c="#BBBBBB", linewidths=0)
    look = {"s": size, "linewidths": 0, "cmap": "viridis", "alpha": 0.85}
    points = panel.scatter(*places[~unknown].T, c=values[~unknown], **look)
    figure.colorbar(points, ax=panel, shrink=0.8).set_label(shortened(name, 40), parse_math=False)
    return figure


def _components(vectors: Float[np.ndarray, "graphs dim"]) -> tuple[np.ndarray, tuple[float, float]]:
    """Places at the first two principal components, and their shares of the variance."""
    centred = vectors.astype(np.float64) - vectors.mean(0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    places, strengths = np.zeros((len(vectors), 2)), np.zeros(2)
    count = min(2, len(lengths))
    places[:, :count], strengths[:count] = (left * lengths)[:, :count], lengths[:count] ** 2
    total = max(float((lengths**2).sum()), 1e-30)
    return places, (strengths[0] / total, strengths[1] / total)
