"""Nodes among their neighbours: which classes surround them, and which neighbours their prediction rests on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor
from torch_geometric.utils import k_hop_subgraph

from ...core.pictures.charts import name_in_legend, shortened
from ...core.pictures.palette import BLUE, DISTINCT, NEUTRAL, RIGHT, VERMILION, WRONG

MOST = 40  # nodes drawn of a neighbourhood
MARKS = ("o", "^", "s", "D", "v", "p")  # with colours that repeat, a mark of its own for each round of them
UNKNOWN = "#BBBBBB"
FOR_AND_AGAINST = LinearSegmentedColormap.from_list("for_and_against", [VERMILION, "#F4F4F4", BLUE])


@dataclass
class Neighbourhood:
    """A part of a graph around one node, as it is drawn.

    Args:
        nodes: numbers of the nodes, of the middle one first.
        edges: between them, as places in `nodes`.
        steps: edges between each and the middle one.
    """

    nodes: Int[Tensor, " nodes"]
    edges: Int[Tensor, "2 edges"]
    steps: Int[Tensor, " nodes"]


@dataclass
class ShownNode:
    """A node in its neighbourhood, with what was predicted for it.

    Args:
        title: its name and its prediction.
        around: the nodes near it.
        classes: the true class of each, -1 where unknown.
        known: whether each belongs to the training part.
        right: whether the prediction is; None where nobody knows.
        contributions: what each of the nodes adds to the score of the predicted class, where that can be told.
    """

    title: str
    around: Neighbourhood
    classes: Int[Tensor, " nodes"]
    known: Tensor
    right: bool | None = None
    contributions: Float[Tensor, " nodes"] | None = field(default=None)


def neighbourhood(node: int, edge_index: Int[Tensor, "2 edges"], nodes: int, hops: int = 2) -> Neighbourhood:
    """The nodes within some steps of one, directions left out; of more than 40 the nearest.

    Args:
        node: in the middle.
        edge_index: of the whole graph.
        nodes: of the whole graph.
        hops: steps, at most.
    """
    both = torch.cat([edge_index, edge_index.flip(0)], 1)
    steps = torch.full((nodes,), hops + 1)
    for hop in range(hops, -1, -1):
        steps[k_hop_subgraph(node, hop, both, num_nodes=nodes)[0]] = hop
    order = steps.sort(stable=True).indices
    chosen = order[: min(MOST, int((steps <= hops).sum()))]
    place = torch.full((nodes,), -1)
    place[chosen] = torch.arange(len(chosen))
    ends = place[edge_index]
    ends = ends[:, (ends >= 0).all(0) & (ends[0] != ends[1])]
    return Neighbourhood(chosen, ends.sort(0).values.unique(dim=1), steps[chosen])


def neighbourhood_panels(items: Sequence[ShownNode], classes: Sequence[str], title: str) -> Figure:
    """Neighbourhoods side by side, coloured by class; below each, where it can be told, what the prediction rests on.

    Args:
        items: at least one.
        classes: names.
        title: of the figure.
    """
    rows = 2 if any(item.contributions is not None for item in items) else 1
    figure = Figure(figsize=(max(6.0, 3.1 * len(items)), 3.1 * rows + 1.5), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(rows, len(items), squeeze=False)
    shaded = None
    for column, item in enumerate(items):
        places = _places(item.around)
        _draw_classes(panels[0, column], item, places)
        if rows > 1:
            shaded = _draw_contributions(panels[1, column], item, places) or shaded
    if shaded is not None:
        bar = figure.colorbar(shaded, ax=panels[1].tolist(), shrink=0.8, ticks=[-1, 0, 1])
        bar.set_ticklabels(["speaks against", "adds nothing", "speaks for"], fontsize=8)
    _name_classes(figure, items, classes)
    return figure


def _places(around: Neighbourhood) -> np.ndarray:
    """Where each node is drawn: as far apart as there are edges between them, the middle one in the middle."""
    graph = nx.empty_graph(len(around.nodes))
    graph.add_edges_from(around.edges.T.tolist())
    found = nx.kamada_kawai_layout(graph) if nx.is_connected(graph) else nx.spring_layout(graph, seed=0)
    places = np.array([found[node] for node in graph])
    return places - places[0]


def _draw_edges(panel: Axes, item: ShownNode, places: np.ndarray) -> None:
    for first, second in item.around.edges.T.tolist():
        panel.plot(*places[[first, second]].T, color="#999999", linewidth=0.8, zorder=1)
    panel.set_axis_off()
    panel.set_aspect("equal", adjustable="datalim")
    panel.margins(0.12)


def _draw_classes(panel: Axes, item: ShownNode, places: np.ndarray) -> None:
    _draw_edges(panel, item, places)
    for label in item.classes.unique().tolist():
        own = (item.classes == label).numpy()
        borders = ["black" if known else "white" for known in item.known[own].tolist()]
        look = {"edgecolors": borders, "linewidths": 1.3, "zorder": 2}
        panel.scatter(*places[own].T, s=_sizes(item)[own], c=_colour(label), marker=_mark(label), **look)
    colour = NEUTRAL if item.right is None else RIGHT if item.right else WRONG
    panel.set_title(item.title, fontsize=9, color=colour, parse_math=False)


def _draw_contributions(panel: Axes, item: ShownNode, places: np.ndarray):
    _draw_edges(panel, item, places)
    if item.contributions is None:
        return None
    shares = (item.contributions / item.contributions.abs().max().clamp(min=1e-12)).numpy()
    look = {"cmap": FOR_AND_AGAINST, "norm": TwoSlopeNorm(0, -1, 1), "edgecolors": "#666666", "linewidths": 0.7}
    return panel.scatter(*places.T, s=_sizes(item), c=shares, zorder=2, **look)


def _sizes(item: ShownNode) -> np.ndarray:
    return np.where(item.around.steps.numpy() == 0, 190, 62)


def _colour(label: int) -> str:
    return UNKNOWN if label < 0 else DISTINCT[label % len(DISTINCT)]


def _mark(label: int) -> str:
    return MARKS[max(0, label) // len(DISTINCT) % len(MARKS)]


def _name_classes(figure: Figure, items: Sequence[ShownNode], classes: Sequence[str]) -> None:
    """A legend of the classes that are drawn, and of what size and border mean."""
    drawn = sorted({label for item in items for label in item.classes.tolist()})
    names = ["class unknown" if label < 0 else shortened(classes[label], 24) for label in drawn]
    look = {"linestyle": "", "markersize": 7, "markeredgecolor": "white"}
    handles = [Line2D([], [], color=_colour(label), marker=_mark(label), **look) for label in drawn]
    handles.append(Line2D([], [], **look | {"color": "white", "marker": "o", "markeredgecolor": "black"}))
    names.append("black border: its class was trained on")
    lined = {"ncols": min(len(names), 4), "frameon": False, "fontsize": 8.5}
    name_in_legend(figure, handles, names, loc="outside lower center", **lined)
