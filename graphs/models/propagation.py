"""What is said of nodes spreads along edges: labels, which a network must beat, and a network's own logits."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.nn import APPNP
from torch_geometric.nn.models import LabelPropagation
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

ROUNDS = 50
KEPT = 0.9  # share of each round that comes from the neighbours


def propagated(
    labels: Float[Tensor, "nodes labels"], edge_index: Int[Tensor, "2 edges"], start: Float[Tensor, " labels"]
) -> Float[Tensor, "nodes labels"]:
    """Shares of labels after many rounds of Y <- 0.9 D^-1/2 A D^-1/2 Y + 0.1 Y_0, directions left out.

    Y_0 holds what is known of the training nodes and zeros of the others. Reference: "Learning with Local and Global
    Consistency" (NeurIPS 2003).

    Args:
        labels: 1 for a label that a training node has, 0 for one that it has not, NaN for what is not known.
        edge_index: of the whole graph.
        start: of each label its share among the training nodes, for nodes that no label reaches.
    """
    known = labels.isfinite()
    # What speaks for a label and what speaks against it spread apart: their balance is the answer.
    sides = torch.cat([labels.nan_to_num(0.0), known.float() - labels.nan_to_num(0.0)], 1)
    links = to_undirected(coalesce(remove_self_loops(edge_index)[0]), num_nodes=len(labels))
    reached = LabelPropagation(ROUNDS, KEPT)(sides, links, post_step=lambda spread: spread)
    support, against = reached.chunk(2, 1)
    total = support + against
    return torch.where(total > 0, support / total.clamp(min=torch.finfo(total.dtype).tiny), start)


def spread(
    logits: Float[Tensor, "nodes labels"], edge_index: Int[Tensor, "2 edges"], rounds: int, restart: float
) -> Float[Tensor, "nodes labels"]:
    """Z <- (1 - a) D^-1/2 (A + 1) D^-1/2 Z + a Z_0: what a network says of a node, mixed with what it says around it.

    Paper: "Predict then Propagate: Graph Neural Networks meet Personalized PageRank", arXiv 1810.05997.

    Args:
        logits: Z_0.
        edge_index: of the graph, both directions of an edge.
        rounds: how often; 0 leaves them as they are.
        restart: a, the share of its own that a node keeps in each round.
    """
    return APPNP(rounds, restart)(logits, edge_index) if rounds else logits
