"""The network over features alone: what it reads, and that it is the same whatever was drawn before."""

import torch
import torch.nn.functional as F
from torch_geometric.data import Batch

from quintet.graphs.models.feature_network import feature_network, features_of, fitted

EDGES = torch.zeros(2, 0, dtype=torch.long)


def test_words_have_a_column_each_and_one_never_seen_has_none():
    batch = Batch(
        edge_index=EDGES,
        node_values=torch.tensor([[0.5], [1.5], [2.5]]),
        node_categories=torch.tensor([[1, 0], [2, 3], [0, 1]]),
    )
    expected = [[0.5, 1, 0, 0, 0, 0], [1.5, 0, 1, 0, 0, 1], [2.5, 0, 0, 1, 0, 0]]
    assert features_of(batch, [2, 3]).tolist() == expected


def test_nodes_without_features_are_all_alike():
    assert features_of(Batch(edge_index=EDGES, num_nodes=3), []).tolist() == [[1.0]] * 3


def trained(before: int):
    torch.manual_seed(before)
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 4)
    classes = torch.tensor([0, 1] * 4)
    asked = []

    def quality(logits):
        # The tenth state is called the best.
        asked.append(logits.clone())
        return 1.0 if len(asked) == 10 else 0.0

    network = fitted(feature_network(2, 2), features, lambda logits: F.cross_entropy(logits, classes), quality)
    with torch.no_grad():
        return network(features), asked, torch.rand(3)


def test_the_best_state_is_kept_and_nothing_that_was_drawn_before_or_comes_after_matters():
    found, asked, drawn = trained(0)
    assert torch.equal(found, asked[9])
    assert not torch.equal(found, asked[-1])
    again, _, other = trained(1)
    assert torch.equal(found, again)
    torch.manual_seed(0)
    feature_network(2, 2)
    assert torch.equal(drawn, torch.rand(3))
    assert not torch.equal(drawn, other)


def test_it_learns_what_features_say():
    features = torch.eye(4).repeat(3, 1)
    classes = torch.arange(4).repeat(3)

    def loss(logits):
        return F.cross_entropy(logits, classes)

    network = fitted(feature_network(4, 4), features, loss, lambda logits: -float(loss(logits)))
    assert torch.equal(network(features).argmax(1), classes)
