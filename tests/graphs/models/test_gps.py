"""GPS: published sizes, PyG's own layer on the same weights, graphs of a batch apart."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import GINEConv, GPSConv

from quintet.core.aside import Edges, listening
from quintet.core.errors import QuintetError
from quintet.core.weights.registry import count_parameters, create_model
from quintet.graphs.models import GPS, GPSLayer
from quintet.graphs.pretrained import PYG_GPS


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gps_zinc", 423_717),
        ("gps_peptides_func", 504_362),
        ("gps_peptides_struct", 504_459),
        ("gps_pcqm_small", 6_152_001),
        ("gps_pcqm_medium", 19_414_641),
        ("gps_pcqm_deep", 13_807_345),
    ],
)
def test_presets_have_the_published_numbers_of_parameters(name, published):
    with torch.device("meta"):
        assert count_parameters(create_model(f"graphs/{name}")) == published


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_is_pygs_with_its_weights(graphs, training):
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    theirs = GPSConv(16, GINEConv(mlp), heads=4).double()
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network = GPS(16, 1, num_heads=4, halvings=0, node_values=16, edge_values=16).double()
    renamed = PYG_GPS.apply({f"convs.0.{key}": value for key, value in theirs.state_dict().items()})
    block = network.encoder.blocks[0]
    assert set(renamed) == {f"encoder.blocks.0.{key}" for key in block.state_dict()}
    network.load_state_dict(renamed, strict=False)
    x, features = torch.randn(graphs.nodes, 16).double(), torch.randn(graphs.edges.shape[1], 16).double()
    whole = graphs.batch()
    network.train(training), theirs.train(training)
    found = network.encoder.forward_packed(x, graphs.borders, edges=Edges(graphs.edges, features))
    expected = theirs(x, graphs.edges, whole.batch, edge_attr=features)
    assert error(found, expected) < 1e-12
    for name, buffer in theirs.named_buffers():  # the running statistics
        assert torch.allclose(block.get_buffer(next(iter(PYG_GPS.apply({f"convs.0.{name}": buffer})))[17:]), buffer)


@pytest.mark.parametrize("local", ["gine", "gatedgcn", "gcn", "gat", "supergat", "pna", "none"])
def test_a_graph_is_the_same_alone_and_in_a_batch(graphs, local):
    torch.manual_seed(0)
    network = GPS(32, 2, local=local, encoding_dim=4, **graphs.sizes).double().eval()
    whole = graphs.batch(dtype=torch.float64)
    found = network(whole)
    for number in range(len(graphs.counts)):
        assert error(found[number], network(graphs.alone(whole, number))[0]) < 1e-10


@pytest.mark.parametrize("laplacian", ["deep_set", "sign_net"])
def test_it_trains_on_all_that_data_may_have(graphs, laplacian):
    torch.manual_seed(0)
    options = {"laplacian": laplacian, "dropout": 0.1, "attention_dropout": 0.2, "num_outputs": 3}
    network = GPS(32, 2, encoding_dim=4, **graphs.sizes, **options)
    y = network(graphs.batch())
    assert y.shape == (4, 3)
    y.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert set(network.fields) <= set(graphs.batch().keys())


def test_attention_is_heard(graphs):
    network = GPS(32, 2, encoding_dim=4, **graphs.sizes).eval()
    with listening(network, "weights") as heard:
        network(graphs.batch())
    (weights,) = heard["weights"]["encoder.blocks.1.mixer"]
    real = torch.arange(max(graphs.counts)) < torch.tensor(graphs.counts)[:, None]
    assert torch.allclose(weights.dense().sum(-1), real[:, None].float().expand(-1, 4, -1), atol=1e-6)


def test_mistakes(graphs):
    with pytest.raises(QuintetError, match="no local layer is called 'gin'; nearest: gine"):
        GPS(16, 1, local="gin")
    with pytest.raises(QuintetError, match="needs a local layer or a mixer"):
        GPS(16, 1, local="none", global_mixer=False)
    with pytest.raises(QuintetError, match="leave no room in dim=16"):
        GPS(16, 1, encodings={"random_walk": 8})
    with pytest.raises(QuintetError, match="no encoding is called 'random_walks'; nearest: random_walk"):
        GPS(32, 1, encodings={"random_walks": 8})
    with pytest.raises(QuintetError, match="level is 'graph' or 'node'"):
        GPS(16, 1, level="graphs")
    with pytest.raises(QuintetError, match="pooling is one of mean, sum, max"):
        GPS(16, 1, pooling="add")
    bare = graphs.batch()
    del bare.node_values
    with pytest.raises(QuintetError, match="reads node_values, which the graphs do not have"):
        GPS(16, 1, node_values=5)(bare)
    with pytest.raises(QuintetError, match="3 columns of words were meant; got 2"):
        GPS(16, 1, node_categories=(4, 4, 4))(graphs.batch())


def test_layers_are_blocks_of_padded_graphs_too(graphs):
    torch.manual_seed(0)
    network = GPS(16, 2, local="gatedgcn", node_values=5, edge_values=2).double()
    x, given = network.begin(graphs.batch(dtype=torch.float64))
    found = network.encoder.forward_packed(x, graphs.borders, **given)
    counts, longest = torch.tensor(graphs.counts), max(graphs.counts)
    mask = torch.arange(longest) < counts[:, None]
    padded = x.new_zeros(*mask.shape, 16).masked_scatter(mask.unsqueeze(-1), x)
    places = mask.flatten().nonzero().squeeze(1)
    edges = Edges(places[graphs.edges], given["edges"].features)
    assert isinstance(network.encoder.blocks[0], GPSLayer)
    assert error(network.encoder(padded, mask, edges=edges)[mask], found) < 1e-10


def test_message_passing_alone_takes_a_mixer_all_the_same():
    sizes = {"node_categories": (3,), "edge_categories": (2,)}
    alone, mixed = create_model("graphs/gine_tiny", **sizes), create_model("graphs/gine_tiny", mixer="linear", **sizes)
    assert all(block.mixer is None and block.local is not None for block in alone.encoder.blocks)
    assert all(block.mixer is not None and block.local is not None for block in mixed.encoder.blocks)
