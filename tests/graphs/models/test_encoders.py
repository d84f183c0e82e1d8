"""Features and encodings of nodes against their formulas; what is missing is left out."""

import pytest
import torch

from quintet.graphs.models.encoders import KernelEncoder, LaplacianDeepSet, SignNet
from quintet.graphs.models.features import CategoryEmbedding, Features
from quintet.graphs.models.heads import GraphHead, GraphPool


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_words_are_looked_up_column_by_column_and_unknown_ones_are_nothing():
    layer = CategoryEmbedding([3, 2], 4)
    codes = torch.tensor([[1, 2], [0, 1], [3, 0], [0, 0]])
    rows = [[0, 4], [3], [2], []]
    expected = torch.stack([sum((layer.weight[row] for row in of), torch.zeros(4)) for of in rows])
    y = layer(codes)
    assert torch.equal(y, expected)
    y.sum().backward()
    assert layer.weight.grad[:, 0].tolist() == [1, 0, 1, 1, 1]


def test_numbers_add_to_words_and_nothing_is_a_learned_vector():
    both = Features("node", [3], 2, 4)
    codes, values = torch.tensor([[1], [2]]), torch.randn(2, 2)
    assert torch.allclose(both(2, codes, values), both.categories(codes) + both.values(values))
    nothing = Features("edge", [], 0, 4)
    assert nothing.fields == []
    assert torch.equal(nothing(3), nothing.constant.expand(3, 4))


def test_kernels_are_normalized_over_nodes_and_projected():
    torch.manual_seed(0)
    layer, x = KernelEncoder(3, 2).double(), torch.rand(7, 3).double()
    normed = (x - x.mean(0)) / (x.var(0, unbiased=False) + layer.norm.eps).sqrt()
    assert error(layer(x), layer.projection(normed)) < 1e-12
    assert torch.isfinite(layer(x[:1])).all()  # a batch of one node


def test_frequencies_that_a_graph_does_not_have_are_left_out():
    torch.manual_seed(0)
    layer = LaplacianDeepSet(3, 4).double().eval()
    vectors, values = torch.randn(2, 3).double(), torch.rand(2, 3).double()
    vectors[1, 2] = values[1, 2] = torch.nan
    expected = []
    for node, count in ((0, 3), (1, 2)):
        parts = [torch.stack([vectors[node, k], values[node, k]]) for k in range(count)]
        expected.append(sum(layer.phi(part) for part in parts))
    assert error(layer(vectors, None, values), torch.stack(expected)) < 1e-12


def test_signs_are_drawn_in_training_for_all_nodes_alike():
    torch.manual_seed(0)
    layer = LaplacianDeepSet(1, 4)
    vectors, values = torch.randn(5, 1), torch.rand(5, 1)
    kept = layer.eval()(vectors, None, values), layer(-vectors, None, values)
    drawn = [layer.train()(vectors, None, values) for _ in range(20)]
    which = [[torch.allclose(y, each) for each in kept] for y in drawn]
    assert all(sum(of) == 1 for of in which)
    assert 3 < sum(of[0] for of in which) < 17


@pytest.mark.parametrize("training", [True, False])
def test_sign_net_is_the_same_for_either_sign(training):
    torch.manual_seed(0)
    layer = SignNet(3, 4).double().train(training)
    vectors, edges = torch.randn(5, 3).double(), torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    vectors[4, 1:] = torch.nan
    y = layer(vectors, edges)
    assert error(layer(vectors * torch.tensor([1, -1, -1]), edges), y) < 1e-12
    assert error(layer(vectors.roll(1, 0), edges), y) > 0.01
    assert y.isfinite().all()


def test_sign_net_by_hand():
    torch.manual_seed(0)
    layer, vectors = SignNet(2, 3, hidden_dim=4, depth=1).double().eval(), torch.randn(3, 2).double()
    adjacency = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).double()
    edges = adjacency.nonzero().T
    (part,) = layer.phi

    def phi(v):
        return part.fc2(part.norm(part.fc1((v + adjacency @ v).unsqueeze(1))).relu())

    both = [phi(v) + phi(-v) for v in vectors.T]
    assert error(layer(vectors, edges), layer.rho(torch.cat(both, 1))) < 1e-10


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_pooling_within_graphs(pooling):
    x, graph = torch.randn(6, 3), torch.tensor([0, 0, 2, 2, 2, 3])
    found = GraphPool(pooling)(x, graph, 4)
    of = {"mean": lambda part: part.mean(0), "sum": lambda part: part.sum(0), "max": lambda part: part.amax(0)}[pooling]
    for number in (0, 2, 3):
        assert torch.allclose(found[number], of(x[graph == number]))
    assert torch.equal(found[1], torch.zeros(3))


def test_the_head_reads_what_describes_a_graph():
    head, x, values = GraphHead(8, 2, halvings=1, values=3), torch.randn(4, 8), torch.randn(4, 3)
    joined = torch.cat([x, head.values(values).relu()], 1)
    assert torch.allclose(head(x, values), head.layers[1](head.layers[0](joined).relu()))
    assert [tuple(layer.weight.shape) for layer in head.layers] == [(8, 16), (2, 8)]
