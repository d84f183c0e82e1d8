"""One molecule (RDKit) or one graph (networkx) on a pair of axes, its nodes coloured by what weighs on them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D
from torch import Tensor

from ...core.pictures.charts import shortened
from ...core.pictures.palette import BLUE, DISTINCT, NEUTRAL, VERMILION

PIXELS = (460, 280)  # of a drawing
LARGEST = 150  # nodes of a graph that is drawn whole
SIGNS = LinearSegmentedColormap.from_list("signs", [BLUE, "#FFFFFF", VERMILION])


@dataclass
class Drawn:
    """A molecule or graph of a sheet.

    Args:
        caption: above it.
        molecule: what is drawn, where it is one.
        edges: of a graph that is none, (2, E).
        categories: of the nodes of such a graph, for their colours.
        weights: of the nodes, from -1 (blue) to 1 (orange); None colours them by what they are.
        colour: of the caption.
    """

    caption: str
    molecule: Chem.Mol | None = None
    edges: Tensor | None = None
    categories: Tensor | None = None
    weights: Float[np.ndarray, " nodes"] | None = None
    colour: str = NEUTRAL


def draw(axes: Axes, drawn: Drawn) -> None:
    """Draws it and hides the axes."""
    axes.set_axis_off()
    axes.set_title(drawn.caption, fontsize=8, color=drawn.colour, parse_math=False, pad=2)
    if drawn.molecule is not None:
        axes.imshow(molecule_image(drawn.molecule, drawn.weights), interpolation="lanczos")
    else:
        _draw_graph(axes, drawn)


def molecule_image(molecule: Chem.Mol, weights: Sequence[float] | None = None) -> Float[np.ndarray, "rows columns 4"]:
    """Pixels of a molecule, its atoms on discs coloured by weights from -1 to 1."""
    canvas = rdMolDraw2D.MolDraw2DCairo(*PIXELS)
    options = canvas.drawOptions()
    options.bondLineWidth, options.padding = 2, 0.04
    options.highlightRadius, options.atomHighlightsAreCircles = 0.5, True
    chosen = {}
    if weights is not None:
        options.useBWAtomPalette()
        colours = SIGNS(0.5 + 0.5 * np.clip(np.asarray(weights), -1, 1) * 0.85)
        chosen = {at: tuple(map(float, colour[:3])) for at, colour in enumerate(colours[: molecule.GetNumAtoms()])}
    marked = {"highlightAtoms": list(chosen), "highlightAtomColors": chosen, "highlightBonds": []} if chosen else {}
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule, **marked)
    canvas.FinishDrawing()
    return imread(io.BytesIO(canvas.GetDrawingText()), format="png")


def _draw_graph(axes: Axes, drawn: Drawn) -> None:
    # Here, because drawing molecules does without.
    import networkx

    nodes = len(drawn.categories)
    shown = min(nodes, LARGEST)
    graph = networkx.Graph()
    graph.add_nodes_from(range(shown))
    pairs = [(int(one), int(other)) for one, other in drawn.edges.T.tolist() if one < shown and other < shown]
    graph.add_edges_from(pairs)
    places = networkx.spring_layout(graph, seed=0, iterations=60)
    if drawn.weights is not None:
        colours = SIGNS(0.5 + 0.5 * np.clip(drawn.weights[:shown], -1, 1))
    else:
        colours = [to_rgb(DISTINCT[int(code) % len(DISTINCT)]) for code in drawn.categories[:shown]]
    size = max(8, 420 / max(4, shown))
    networkx.draw_networkx_edges(graph, places, ax=axes, edge_color="#999999", width=0.8)
    look = {"node_color": colours, "node_size": size, "edgecolors": NEUTRAL, "linewidths": 0.4}
    networkx.draw_networkx_nodes(graph, places, ax=axes, **look)
    if shown < nodes:
        axes.text(0.5, 0, f"{shown} of {nodes:,} nodes", transform=axes.transAxes, ha="center", fontsize=7)


def graph_sheet(items: Sequence[Drawn], title: str, columns: int, labels: Sequence[str] = ()) -> Figure:
    """Molecules or graphs in rows under their captions, each row named by one of `labels` where they are given."""
    columns = min(columns, len(items))
    rows = -(-len(items) // columns)
    lines = max(item.caption.count("\n") + 1 for item in items)
    figure = Figure(figsize=(2.3 * columns + 0.4, (1.4 + 0.14 * lines) * rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.ravel():
        panel.set_axis_off()
    for panel, item in zip(panels.ravel(), items, strict=False):
        draw(panel, item)
    for row, label in zip(panels, labels, strict=False):
        row[0].text(-0.06, 0.5, label, transform=row[0].transAxes, rotation=90, ha="right", va="center", fontsize=10)
    return figure


def caption_of(name: str, *lines: str) -> str:
    """A name, cut, over lines."""
    return "\n".join([shortened(name, 26), *lines] if name else lines)
