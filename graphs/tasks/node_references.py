"""What classes of nodes are told without the network: from the labels around them, and from their features alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch_geometric.data import Batch

from ..data.description import GraphDescription
from ..models.feature_network import feature_network, features_of, fitted
from ..models.propagation import propagated

PROPAGATION, FEATURES = "label_propagation", "mlp"  # what the baselines are called beside the model


def known_nodes(targets: Shaped[Tensor, "nodes ..."]) -> Tensor:
    """Which nodes have a class, or at least one of their labels known."""
    return targets.isfinite().any(1) if targets.ndim == 2 else targets >= 0


def yes_or_no(targets: Shaped[Tensor, "nodes ..."], labels: int) -> Float[Tensor, "nodes labels"]:
    """Targets in one form: 1 and 0 for each label, NaN where unknown."""
    if targets.ndim == 2:
        return targets
    rows = torch.nn.functional.one_hot(targets.clamp(min=0), labels).float()
    return rows.masked_fill((targets < 0)[:, None], float("nan"))


@dataclass
class NodeReferences:
    """Probabilities of all nodes of a graph, from labels of training nodes alone.

    Features and edges of all nodes may be looked at (transductive); labels of validation nodes only choose how long the
    network over features learns, and labels of test nodes are never seen.

    Args:
        description: of the data.
        loss: of logits and targets, over nodes whose target is known.
        outcome: from logits to probabilities.
    """

    description: GraphDescription
    loss: Callable[[Tensor, Tensor], Tensor]
    outcome: Callable[[Tensor], Tensor]

    def estimates(self, whole: Batch, labels: int) -> dict[str, Float[Tensor, "nodes labels"]]:
        """What each baseline says of every node.

        Args:
            whole: the graph, with `y`, `train_mask` and `val_mask`.
            labels: number of classes.
        """
        rows = yes_or_no(whole.y, labels).masked_fill(~whole.train_mask[:, None], float("nan"))
        known = rows.isfinite()
        shares = rows.nan_to_num(0.0).sum(0) / known.sum(0).clamp(min=1)
        return {
            PROPAGATION: propagated(rows, whole.edge_index, shares),
            FEATURES: self._from_features(whole, labels),
        }

    def _from_features(self, whole: Batch, labels: int) -> Tensor:
        features = features_of(whole, self.description.sizes["node_categories"])
        known = known_nodes(whole.y)
        learned, chosen = known & whole.train_mask, known & whole.val_mask
        count = int(learned.sum())
        network = feature_network(features.shape[1], labels)
        network = fitted(
            network.to(features.device),
            torch.cat([features[learned], features[chosen]]),
            lambda logits: self.loss(logits[:count], whole.y[learned]),
            lambda logits: -float(self.loss(logits[count:], whole.y[chosen])),
        )
        with torch.no_grad():
            return self.outcome(network(features))
