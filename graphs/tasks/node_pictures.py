"""What a test of nodes looked like: their map, and the surest mistakes and hits in their neighbourhoods."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch_geometric.data import Batch

from ...core.pictures.charts import shortened
from ...core.pictures.embeddings import projection
from ..data.rows import Row
from ..pictures.neighbourhoods import ShownNode, neighbourhood, neighbourhood_panels

if TYPE_CHECKING:
    from .nodes import NodeClassifier

DRAWN = 4  # nodes side by side


@dataclass
class TestedNodes:
    """A batch of a test: which nodes were measured, and the probabilities of these."""

    batch: Batch
    chosen: Bool[Tensor, " nodes"]
    probabilities: Float[Tensor, "measured labels"]

    __test__ = False  # no test case, though its name begins like one


def node_pictures(task: "NodeClassifier", tested: TestedNodes, rows: Sequence[Row]) -> Iterator[tuple[str, Figure]]:
    """The map of measured nodes and, where each has one class, neighbourhoods of the surest mistakes and hits.

    Args:
        task: that was tested.
        tested: its first batch.
        rows: all nodes of the files.
    """
    if hasattr(task.network, "embed"):
        yield "embeddings", _map(task, tested)
    if task.several:
        return
    sure, found = tested.probabilities.float().max(1)
    right = found == tested.batch.y[tested.chosen]
    for name, kind, title in (
        ("mistakes", ~right, "the most confident mistakes, among their neighbours"),
        ("predictions", right, "the most confident right answers, among their neighbours"),
    ):
        order = sure.masked_fill(~kind, -1.0).argsort(descending=True)[: min(DRAWN, int(kind.sum()))]
        if len(order):
            items = [_shown(task, tested, int(place), rows) for place in order]
            yield name, neighbourhood_panels(items, task.labels, title)


def _map(task: "NodeClassifier", tested: TestedNodes) -> Figure:
    with torch.no_grad():
        vectors = task.network.embed(tested.batch)[tested.chosen].float().cpu().numpy()
    truth = tested.batch.y[tested.chosen]
    names = task.labels
    if task.several:
        labels = ["no" if value == 0 else names[0] if value == 1 else None for value in truth[:, 0].tolist()]
        return projection(vectors, labels, f"test nodes as the head reads them, by {names[0]}", what="node")
    labels = [names[label] for label in truth.tolist()]
    return projection(vectors, labels, "test nodes as the head reads them, by true class", what="node")


def _shown(task: "NodeClassifier", tested: TestedNodes, place: int, rows: Sequence[Row]) -> ShownNode:
    """One of the measured nodes as it is drawn."""
    batch, node = tested.batch, int(tested.chosen.nonzero()[place])
    around = neighbourhood(node, batch.edge_index.cpu(), batch.num_nodes)
    found, true = int(tested.probabilities[place].argmax()), int(batch.y[node])
    name = next(iter(rows[int(batch.node_row[node])].named.values()), str(int(batch.node_row[node])))
    names, sure = task.labels, float(tested.probabilities[place].max())
    told = f"{shortened(name, 20)}: {shortened(names[found], 16)} ({sure:.0%})"
    told += "" if found == true else f"\ntrue: {shortened(names[true], 20)}"
    adds = contributions(task, batch, node, found)
    return ShownNode(
        told,
        around,
        batch.y[around.nodes].cpu(),
        batch.train_mask[around.nodes].cpu(),
        found == true,
        None if adds is None else adds[around.nodes].cpu(),
    )


def contributions(task: nn.Module, batch: Batch, node: int, label: int) -> Float[Tensor, " nodes"] | None:
    """How much each node's features raise one logit of one node: sum_d x_jd dz / dx_jd.

    x are nodes before the first layer. Reference: "Learning Important Features Through Propagating Activation
    Differences", arXiv 1605.01713. None of a network without `begin`.

    Args:
        task: whose `forward` gives logits of nodes, and whose `network.begin` nodes before the first layer.
        batch: of a graph.
        node: whose logit.
        label: which logit.
    """
    if not hasattr(task.network, "begin"):
        return None
    with torch.inference_mode(False), torch.enable_grad():
        batch = batch.clone()
        x, given = task.network.begin(batch)
        x = x.detach().requires_grad_()
        with _begun(task.network, x, given):
            logit = task(batch)[node, label]
        (gradient,) = torch.autograd.grad(logit, x)
    return (x * gradient).sum(1).detach()


@contextmanager
def _begun(network: nn.Module, x: Tensor, given: dict) -> Iterator[None]:
    """While it lasts, these are the nodes before the first layer."""
    network.__dict__["begin"] = lambda batch: (x, given)
    try:
        yield
    finally:
        del network.__dict__["begin"]
