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


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in OPTIONS if name != "gatedgcn"]


def network_of(graphs, name, depth=2):
    torch.manual_seed(0)
    sizes = dict(graphs.sizes)
    if name == "message passing":
        sizes["encodings"] = {"random_walk": 8}
    network = GPS(32, depth, encoding_dim=4, **sizes, **OPTIONS[name]).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_the_network(graphs, name):
    network = network_of(graphs, name)
    module = DeployedGraphs(network).eval()
    with torch.no_grad():
        for batch in (graphs.batch(1), graphs.alone(graphs.batch(2), 2), graphs.alone(graphs.batch(2), 1)):
            assert error(module(*example_inputs(module, batch).values()), network(batch)) < 1e-5


@pytest.mark.parametrize("name", [*OTHERS, "gatedgcn"])
def test_its_graph_takes_other_sizes(graphs, name):
    network = network_of(graphs, name, depth=1)
    module, whole = DeployedGraphs(network).eval(), graphs.batch(1)
    axes = [dict.fromkeys(axes, Dim.DYNAMIC) for axes in dynamic_axes(module).values()]
    shapes = (axes[0], axes[1], tuple(axes[2:]))
    with torch.no_grad():
        inputs = tuple(example_inputs(module, whole).values())
        program = torch.export.export(module, inputs, dynamic_shapes=shapes).module()
        for batch in (whole, graphs.alone(graphs.batch(2), 2)):
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
