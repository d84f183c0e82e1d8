"""The graph transformer and message passing with a virtual node, each against its formulas written out densely."""

import pytest
import torch

from quintet.core.aside import Edges
from quintet.core.errors import QuintetError
from quintet.core.weights.registry import create_model
from quintet.graphs.models import GraphTransformer, MessagePassing
from quintet.graphs.models.graph_transformer import GraphTransformerLayer, NeighbourAttention


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def normalized(x, norm):
    return (x - x.mean(0)) / (x.var(0, unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias


def test_attention_among_neighbours_is_its_formula(graphs):
    torch.manual_seed(0)
    layer = NeighbourAttention(12, num_heads=3).double()
    x, features = 3 * torch.randn(graphs.nodes, 12).double(), 3 * torch.randn(graphs.edges.shape[1], 12).double()
    query, key, value = (part.view(-1, 3, 4) for part in layer.qkv(x).chunk(3, -1))
    heads, sums, told = [], [], torch.zeros(len(features), 3, 4).double()
    for i in range(graphs.nodes):
        weighted, total = torch.zeros(3, 4).double(), torch.zeros(3, 1).double()
        for number, (source, target) in enumerate(graphs.edges.T.tolist()):
            if target == i:
                told[number] = query[i] * key[source] / 2 * layer.edge(features[number]).view(3, 4)
                sums.append(told[number].sum(-1))
                weight = told[number].sum(-1, keepdim=True).clamp(-5, 5).exp()
                weighted, total = weighted + weight * value[source], total + weight
        heads.append((weighted / (total + 1e-6)).flatten())
    assert torch.stack(sums).abs().max() > 5  # some are cut
    found, changes = layer.forward_packed(x, graphs.borders, edges=Edges(graphs.edges, features))
    assert error(found, layer.proj(torch.stack(heads))) < 1e-12
    assert error(changes["edges"].features, layer.edge_proj(told.flatten(1))) < 1e-12


def test_its_layer_changes_nodes_and_edges_alike(graphs):
    torch.manual_seed(0)
    block = GraphTransformerLayer(12).double()
    x, features = torch.randn(graphs.nodes, 12).double(), torch.randn(graphs.edges.shape[1], 12).double()
    edges = Edges(graphs.edges, features)
    found, changes = block(x[None], edges=edges, cu_seqlens=graphs.borders)
    y, told = block.mixer.forward_packed(x, graphs.borders, edges=edges)
    z = normalized(x + y, block.norm1)
    assert error(found[0], normalized(z + block.feedforward(z), block.norm2)) < 1e-10
    z = normalized(features + told["edges"].features, block.edge_norm1)
    expected = normalized(z + block.edge_feedforward(z), block.edge_norm2)
    assert error(changes["edges"].features, expected) < 1e-10


def test_a_virtual_node_by_hand(graphs):
    torch.manual_seed(0)
    network = MessagePassing(12, 3, local="gcn", node_values=5).double()
    whole = graphs.batch(dtype=torch.float64)
    x, _ = network.begin(whole)
    v = torch.zeros(4, 12).double()
    for number, block in enumerate(network.encoder.blocks):
        x = x + torch.stack([v[graph] for graph in whole.batch])
        x = x + normalized(block.local.convolution(x, graphs.edges), block.norm).relu()
        if number < 2:
            part = block.virtual_node
            total = v + torch.stack([x[whole.batch == graph].sum(0) for graph in range(4)])
            hidden = normalized(part.fc1(total), part.norm1).relu()
            v = v + normalized(part.fc2(hidden), part.norm2).relu()
    assert network.encoder.blocks[2].virtual_node is None
    assert error(network.embed(whole), x) < 1e-10


@pytest.mark.parametrize("name", ["graph_transformer", "gatedgcn_vn", "gin_vn"])
def test_a_graph_is_the_same_alone_and_in_a_batch(graphs, name):
    torch.manual_seed(0)
    sizes = {**graphs.sizes, "encodings": {"random_walk": 8, "laplacian": 6}}
    network = create_model(f"graphs/{name}", dim=32, depth=3, encoding_dim=4, **sizes).double().eval()
    whole = graphs.batch(dtype=torch.float64)
    found = network(whole)
    for number in range(4):
        assert error(found[number], network(graphs.alone(whole, number))[0]) < 1e-10
    network.float().train()(graphs.batch()).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_a_virtual_node_may_be_left_out(graphs):
    network = MessagePassing(16, 2, virtual_node=False, node_values=5)
    assert not any("virtual" in name for name, _ in network.named_parameters())
    assert network(graphs.batch()).shape == (4, 1)


def test_mistakes():
    with pytest.raises(QuintetError, match="message passing has none"):
        create_model("graphs/gin_vn", mixer="linear")
    with pytest.raises(QuintetError, match="shortest_paths are a bias of attention"):
        GraphTransformer(16, 1, encodings={"shortest_paths": 3})
