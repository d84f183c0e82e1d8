"""A network of plain tensors is the network, and a graph of it takes other numbers of nodes, edges and graphs."""

import pytest
import torch
from torch.export import Dim

from quintet.core.errors import QuintetError
from quintet.core.weights.registry import create_model
from quintet.graphs.models import GPS
from quintet.graphs.models.deployed import DeployedGraphs, dynamic_axes, example_inputs


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


OPTIONS = {
    "gine": {"local": "gine"},
    "gatedgcn": {"local": "gatedgcn", "laplacian": "sign_net", "level": "node"},
    "gat": {"local": "gat", "pooling": "max"},
    "attention": {"local": "none", "pooling": "sum"},
    "message passing": {"local": "gcn", "global_mixer": False},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_the_network_and_exports(graphs, name):
    torch.manual_seed(0)
    sizes = dict(graphs.sizes)
    if name == "message passing":
        sizes["encodings"] = {"random_walk": 8}
    network = GPS(32, 2, encoding_dim=4, **sizes, **OPTIONS[name]).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    module = DeployedGraphs(network).eval()
    whole, other = graphs.batch(1), graphs.alone(graphs.batch(2), 2)
    inputs = tuple(example_inputs(module, whole).values())
    axes = [dict.fromkeys(axes, Dim.DYNAMIC) for axes in dynamic_axes(module).values()]
    with torch.no_grad():
        assert error(module(*inputs), network(whole)) < 1e-5
        program = torch.export.export(module, inputs, dynamic_shapes=(axes[0], axes[1], tuple(axes[2:]))).module()
        for batch in (whole, graphs.batch(3), other):
            assert error(program(*example_inputs(module, batch).values()), network(batch)) < 1e-5


@pytest.mark.parametrize("name", ["graph_transformer", "gatedgcn_vn"])
def test_networks_of_edges_export(graphs, name):
    torch.manual_seed(0)
    network = create_model(f"graphs/{name}", dim=16, depth=2, node_values=5, edge_values=2).eval()
    module, whole = DeployedGraphs(network).eval(), graphs.batch()
    with torch.no_grad():
        assert error(module(*example_inputs(module, whole).values()), network(whole)) < 1e-5


def test_mixers_that_cannot_be_told_are_refused():
    with pytest.raises(QuintetError, match="LinearAttention takes no bias"):
        DeployedGraphs(create_model("graphs/gps_tiny", mixer="linear"))
