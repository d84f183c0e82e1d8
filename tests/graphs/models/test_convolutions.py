"""Local layers: PyG's, those written out for speed, gates by their formula, the loss of SuperGAT."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import GINEConv, SuperGATConv

from quintet.core.aside import Edges, listening
from quintet.graphs.models import GPS, GatedGCN
from quintet.graphs.models.convolutions import GINE, LOCAL, Convolution, SuperGAT, local_factory


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def given(graphs, dim=8):
    torch.manual_seed(0)
    return torch.randn(graphs.nodes, dim).double(), torch.randn(graphs.edges.shape[1], dim).double()


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_gine_is_pygs_with_its_gradients(graphs, eps):
    x, features = given(graphs)
    layer = GINE(8).double()
    layer.convolution.eps.fill_(eps)
    results = []
    for call in (
        lambda a, b: layer.forward_packed(a, graphs.borders, edges=Edges(graphs.edges, b)),
        lambda a, b: layer.convolution(a, graphs.edges, b),
    ):
        leaves = [x.clone().requires_grad_(), features.clone().requires_grad_()]
        y = call(*leaves)
        results.append([y, *torch.autograd.grad(y.square().sum(), [*leaves, *layer.parameters()])])
    assert isinstance(layer.convolution, GINEConv)
    assert max(map(error, *results)) < 1e-12


def test_gates_by_hand(graphs):
    x, features = given(graphs)
    layer = GatedGCN(8).double().eval()
    layer.node_norm.running_mean += 0.3
    layer.edge_norm.running_var *= 2
    own, value, target, source = layer.nodes(x).chunk(4, -1)
    gates = torch.stack([target[i] + source[j] + layer.edge(e) for (j, i), e in zip(graphs.edges.T, features)])
    sums = []
    for node in range(graphs.nodes):
        of = [number for number, (_, i) in enumerate(graphs.edges.T.tolist()) if i == node]
        share = gates[of].sigmoid()
        sums.append(own[node] + (share * value[graphs.edges[0][of]]).sum(0) / (share.sum(0) + 1e-6))
    y, changes = layer.forward_packed(x, graphs.borders, edges=Edges(graphs.edges, features))
    assert error(y, x + layer.node_norm(torch.stack(sums)).relu()) < 1e-12
    assert error(changes["edges"].features, features + layer.edge_norm(gates).relu()) < 1e-12


def test_supergat_is_pygs_and_says_its_loss_in_training(graphs):
    x, _ = given(graphs)
    layer = SuperGAT(8, num_heads=2, weight=3.0).double()
    theirs = SuperGATConv(8, 4, 2, is_undirected=True).double()
    theirs.load_state_dict(layer.convolution.state_dict())
    edges = Edges(graphs.edges)
    expected = theirs.eval()(x, graphs.edges)
    assert error(layer.eval().forward_packed(x, graphs.borders, edges=edges), expected) < 1e-12
    with listening(layer, "loss") as heard:
        layer.forward_packed(x, graphs.borders, edges=edges)
        assert not heard["loss"]
        layer.train().forward_packed(x, graphs.borders, edges=edges)
    ((loss,),) = heard["loss"].values()
    logits, truth = layer.convolution.att_x.mean(-1), layer.convolution.att_y
    expected = -(truth * logits.sigmoid().log() + (1 - truth) * (1 - logits.sigmoid()).log()).mean()
    assert error(loss, 3 * expected) < 1e-10


def test_a_network_says_the_losses_of_its_layers(graphs):
    network = GPS(16, 2, local="supergat", node_values=5).train()
    with listening(network, "loss") as heard:
        network(graphs.batch())
    assert set(heard["loss"]) == {"encoder.blocks.0.local", "encoder.blocks.1.local"}


def test_a_layer_of_ones_own(graphs):
    def convolution(dim):
        return GINEConv(nn.Linear(dim, dim))

    assert isinstance(local_factory(convolution)(8), Convolution)
    assert GPS(16, 2, local=convolution, node_values=5)(graphs.batch()).shape == (4, 1)


@pytest.mark.parametrize("word", LOCAL)
def test_graphs_without_edges_and_of_one_node(graphs, word):
    torch.manual_seed(0)
    network = GPS(16, 2, local=word, encoding_dim=2, **graphs.sizes)
    one = graphs.alone(graphs.batch(), 1)
    assert one.edge_index.shape == (2, 0)
    network(one).sum().backward()
    assert network.eval()(one).isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
