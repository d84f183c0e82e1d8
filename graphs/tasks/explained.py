"""Pictures of why: test graphs coloured by what each node adds, by what their nodes look at, and a map of all."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure

from ...core.data.module import DataModule
from ..data.store import GraphStore
from ..pictures.attention import attention_panels
from ..pictures.drawing import graph_sheet
from ..pictures.embeddings import embedding_map
from ..pictures.predicted import drawn_graph
from .explanation import attention_of, contributions
from .features import embeddings_of

if TYPE_CHECKING:
    from .whole import GraphTask

EXPLAINED = 6  # test graphs whose nodes are coloured
WIDEST = 60  # nodes of a graph whose attention is drawn


def explanation_pictures(task: "GraphTask", data: DataModule, store: GraphStore) -> Iterator[tuple[str, Figure]]:
    """Contributions to the first output, by gradient and by masking, and attention where a network has it."""
    member = task.network.members[0] if task.ensemble > 1 else task.network
    ways = ("gradient", "masking") if hasattr(member, "embed") else ("masking",)
    chosen = torch.linspace(0, len(store) - 1, min(EXPLAINED, len(store))).round().long().tolist()
    for way in ways:
        items = []
        for at in chosen:
            output, said = task.explained(at)
            weights = task.contribution_scale * contributions(task.network, store, at, output, way).double().numpy()
            largest = np.abs(weights).max()
            drawn = drawn_graph(data, store, at, f"{said}\nlargest: {largest:.2g}")
            drawn.weights = weights / (largest or 1.0)
            items.append(drawn)
        what = "features times gradient" if way == "gradient" else "what hiding the node takes away"
        title = f"what each node adds to {task.explained_name}:\norange raises it, blue lowers it ({what})"
        yield f"contributions_{way}", graph_sheet(items, title, 3)
    small = (store.node_counts <= WIDEST).nonzero().flatten().tolist()
    if not small:
        return
    at = small[len(small) // 2]
    if layers := attention_of(task.network, store, at):
        yield (
            "attention",
            attention_panels(layers, node_names(data, store, at), drawn_graph(data, store, at, "attention")),
        )


def node_names(data: DataModule, store: GraphStore, graph: int) -> list[str]:
    """Atoms by their symbol and number, other nodes by their number."""
    if data.description().source != "molecules":
        return [str(number) for number in range(int(store.node_counts[graph]))]
    (molecule,) = data.molecules_of([int(store.graphs["row"][graph])])
    return [f"{atom.GetSymbol()}{atom.GetIdx()}" for atom in molecule.GetAtoms()]


def test_map(task: "GraphTask", store: GraphStore) -> Figure:
    """A map of the test graphs by what the head reads of them."""
    vectors = embeddings_of(task, store).numpy()
    known, name = task.colours()
    return embedding_map(vectors, known, f"what the head reads of {len(vectors):,} test graphs", name)
