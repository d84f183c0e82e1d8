"""A small network over the features of single nodes, edges left out: what edges must be worth beside it."""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Adam
from torch_geometric.data import Batch

HIDDEN = 64
STEPS = 200
RATE, DECAY, DROPPED = 0.01, 5e-4, 0.5


def features_of(batch: Batch, words: Sequence[int]) -> Float[Tensor, "nodes features"]:
    """Numbers of nodes beside a column of zeros and ones for each word; a column of ones where there is neither.

    Args:
        batch: of graphs.
        words: number of words of each column of words.
    """
    parts = [batch.node_values] if "node_values" in batch else []
    if words:
        columns = zip(batch.node_categories.T, words, strict=True)
        parts += [F.one_hot(codes, count + 1)[:, 1:].float() for codes, count in columns]
    return torch.cat(parts, 1) if parts else torch.ones(batch.num_nodes, 1, device=batch.edge_index.device)


def feature_network(features: int, outputs: int) -> nn.Sequential:
    """x -> W2 drop(relu(W1 drop(x))), 64 wide."""
    return nn.Sequential(
        nn.Dropout(DROPPED), nn.Linear(features, HIDDEN), nn.ReLU(), nn.Dropout(DROPPED), nn.Linear(HIDDEN, outputs)
    )


def fitted(
    network: nn.Module,
    features: Float[Tensor, "nodes features"],
    loss: Callable[[Tensor], Tensor],
    quality: Callable[[Tensor], float],
) -> nn.Module:
    """The network after the best of 200 steps of Adam, the same whatever was drawn before.

    Args:
        network: is trained in place.
        features: of training and validation nodes.
        loss: of the outputs for all of them, which looks at training nodes alone.
        quality: of the outputs likewise, which looks at validation nodes alone; higher is better.
    """
    best, kept = -float("inf"), network.state_dict()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        for layer in network:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        optimizer = Adam(network.parameters(), RATE, weight_decay=DECAY)
        for _ in range(STEPS):
            network.train()
            optimizer.zero_grad()
            loss(network(features)).backward()
            optimizer.step()
            with torch.no_grad():
                reached = quality(network.eval()(features))
            if reached > best:
                best, kept = reached, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return network.eval()
