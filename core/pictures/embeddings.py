"""A map of embeddings in two dimensions, coloured and marked by class."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from .charts import name_in_legend, shortened
from .palette import DISTINCT, NEUTRAL

# Okabe and Ito, and a mark of its own for each round of them: 40 classes are told apart without colour alone.
COLOURS = (*DISTINCT, "#8F7A00")
MARKS = ("o", "^", "s", "D", "v")
MOST = 5000  # points, a seeded sample of more


def places_of(
    vectors: np.ndarray, method: Literal["pca", "tsne"] = "pca", what: str = "image"
) -> tuple[np.ndarray, tuple[str, str]]:
    """Where each embedding is drawn (samples, 2), and the names of the axes.

    Args:
        vectors: embeddings (samples, dim).
        method: of the map.
        what: a sample is called.
    """
    # Here, because training a classifier, which reads this file too, would wait for it.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    centred = vectors.astype(np.float64) - vectors.mean(0)
    if len(vectors) < 3 or vectors.shape[1] < 2:
        return np.column_stack([np.arange(len(vectors)), centred[:, 0]]), (what, "feature")
    if not centred.any():
        return centred[:, :2], ("all are alike", "all are alike")
    if method == "tsne":
        perplexity = min(30, (len(vectors) - 1) / 3)
        drawn = TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(centred)
        return drawn, ("t-SNE", "t-SNE")
    components = PCA(2, random_state=0).fit(centred)
    first, second = components.explained_variance_ratio_
    names = f"component 1 ({first:.0%} of the variance)", f"component 2 ({second:.0%} of the variance)"
    return components.transform(centred), names


def projection(
    vectors: np.ndarray,
    labels: Sequence[str | None],
    title: str,
    method: Literal["pca", "tsne"] = "pca",
    what: str = "image",
) -> Figure:
    """Each embedding a point, at its first two principal components or where t-SNE puts it; classes named beside.

    Args:
        vectors: embeddings (samples, dim).
        labels: of each sample, None where unknown.
        title: of the picture.
        method: of the map.
        what: a sample is called.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(vectors))[:MOST])
    vectors, labels = vectors[chosen], [labels[index] for index in chosen]
    places, axes = places_of(vectors, method, what)
    figure = Figure(figsize=(9.2, 6.2), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panel = figure.subplots()
    panel.set(xlabel=axes[0], ylabel=axes[1])
    panel.spines[["top", "right"]].set_visible(False)
    # The most frequent first, so that rare ones are drawn above them.
    counts = Counter(label for label in labels if label is not None).most_common()
    size = 26 if len(vectors) < 500 else 10
    unknown = np.array([label is None for label in labels])
    shown = len(COLOURS) * len(MARKS)
    rest = {name for name, _ in counts[shown:]}
    others = unknown | np.array([label in rest for label in labels])
    if others.any():
        name = "no label" if not rest else f"{len(rest)} rarer classes"
        panel.scatter(*places[others].T, s=size, c="#BBBBBB", linewidths=0, label=f"{name} ({others.sum():,})")
    for index, (name, count) in enumerate(counts[:shown]):
        own = np.array([label == name for label in labels])
        look = {"c": COLOURS[index % len(COLOURS)], "marker": MARKS[index // len(COLOURS)]}
        label = f"{shortened(name, 20)} ({count:,})"
        panel.scatter(*places[own].T, s=size, alpha=0.75, linewidths=0, label=label, **look)
    if counts:
        look = {"fontsize": 8.5, "frameon": False, "labelcolor": NEUTRAL}
        names = [points.get_label() for points in panel.collections]
        name_in_legend(figure, panel.collections, names, loc="outside right upper", **look)
    return figure
