"""What each node adds: for a network whose answer is a sum over its nodes, exactly what it adds."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from quintet.core.attention import Attention
from quintet.graphs import GraphStore
from quintet.graphs.tasks.ensemble import Ensemble
from quintet.graphs.tasks.explanation import attention_of, contributions


class Added(nn.Module):
    """c + sum over the nodes of a number for their category; 0 for an unknown one."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(4, 3, padding_idx=0), nn.Linear(3, outputs)

    def embed(self, batch):
        return self.words(batch.node_categories[:, 0])

    def pool(self, batch, nodes):
        return nodes.new_zeros(len(batch.ptr) - 1, 3).index_add_(0, batch.batch, nodes)

    def forward(self, batch):
        return self.head(self.pool(batch, self.embed(batch)))


class Looking(Added):
    """The same, its nodes looking at each other."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(3, num_heads=1)

    def embed(self, batch):
        nodes = super().embed(batch)
        return torch.cat([self.attention(part[None])[0] for part in nodes.split(batch.ptr.diff().tolist())])


@pytest.fixture
def store():
    torch.manual_seed(0)
    graphs = [
        Data(node_categories=torch.randint(1, 4, (nodes, 1)), edge_index=torch.zeros(2, 0).long(), num_nodes=nodes)
        for nodes in (1, 5, 3)
    ]
    return GraphStore.of(graphs, {"node_categories": "nodes"})


@pytest.mark.parametrize("method", ["gradient", "masking"])
@pytest.mark.parametrize("output", [0, 1])
def test_parts_of_a_sum_are_what_each_node_adds(store, method, output):
    network = Added()
    codes = store.graph(1).node_categories[:, 0]
    expected = network.words.weight[codes] @ network.head.weight[output]
    found = contributions(network, store, 1, output, method)
    torch.testing.assert_close(found, expected.detach())
    assert network.training
    assert "embed" not in vars(network)


def test_of_an_ensemble_the_mean_of_its_members(store):
    members = [Added(), Added()]
    each = torch.stack([contributions(member, store, 2) for member in members])
    torch.testing.assert_close(contributions(Ensemble(members), store, 2), each.mean(0))


def test_gradients_under_inference_mode(store):
    network = Added()
    with torch.inference_mode():
        assert contributions(network, store, 1).shape == (5,)


def test_attention_is_told_by_layer(store):
    layers = attention_of(Looking(), store, 1)
    assert list(layers) == ["attention"]
    assert layers["attention"].shape == (5, 5)
    torch.testing.assert_close(layers["attention"].sum(1), torch.ones(5))
    assert attention_of(Added(), store, 1) == {}
