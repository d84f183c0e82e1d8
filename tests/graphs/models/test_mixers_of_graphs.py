"""A mixer of every kind among the nodes of packed graphs, each graph as if it were alone."""

from functools import partial

import pytest
import torch

from quintet.core.attention import WindowAttention
from quintet.core.errors import QuintetError
from quintet.core.weights.registry import create_model

# One of each kind; benchmarks/mixers_in_domains.py takes every registered one.
KINDS = {
    "dense": "attention",
    "local": partial(WindowAttention, rank=1, window_size=2),
    "linear": "linear",
    "recurrent": "min_gru",
    "state space": "mamba",
    "convolution": "long_convolution",
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def network(request, graphs):
    torch.manual_seed(0)
    sizes = graphs.sizes | {"encodings": {"random_walk": 8}}
    return create_model("graphs/gps_tiny", mixer=request.param, dim=32, depth=1, encoding_dim=4, **sizes).double()


def test_a_graph_is_the_same_alone_and_in_a_batch(network, graphs):
    whole = graphs.batch(dtype=torch.float64)
    found = network.eval()(whole)
    alone = torch.cat([network(graphs.alone(whole, number)) for number in range(len(graphs.counts))])
    assert (found - alone).norm() / alone.norm() < 1e-10


def test_it_learns_in_every_weight(network, graphs):
    network.train()(graphs.batch(dtype=torch.float64)).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("mixer", "reason"),
    [
        ("neighborhood", "this NeighborhoodAttention depends on padding: a graph would change beside larger ones"),
        ("window", "this WindowAttention takes tokens on 2 grid axes; the nodes of a graph are a row: give it rank=1"),
    ],
)
def test_a_mixer_that_takes_no_graphs_is_refused_when_it_is_built(mixer, reason):
    with pytest.raises(QuintetError, match=reason) as refused:
        create_model("graphs/gps_tiny", mixer=mixer, node_values=1)
    assert "\n" not in str(refused.value)
