"""Batches of seeds have edges of the graph, as many as asked for, and with all of them what the whole graph gives."""

from collections import Counter
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GINEConv, SAGEConv
from torch_geometric.utils import k_hop_subgraph

from quintet.core.data.module import DataModule
from quintet.core.data.seeded import Draw
from quintet.core.errors import QuintetError
from quintet.graphs.data.neighbours import NeighbourSampler, SeedNodes, _subsets
from quintet.graphs.data.store import GraphStore


def a_store(nodes: int = 60, edges: int = 300, seed: int = 0) -> GraphStore:
    draw = torch.Generator().manual_seed(seed)
    return GraphStore(
        torch.tensor([nodes]),
        torch.tensor([edges]),
        torch.randint(0, nodes, (2, edges), generator=draw),
        {"node_values": torch.randn(nodes, 4, generator=draw), "y": torch.arange(nodes)},
        {"edge_values": torch.randn(edges, 4, generator=draw)},
    ).narrow()


def draws(nodes: list[int], seed: int = 0) -> list[Draw]:
    return [Draw(node, seed + node) for node in nodes]


@settings(max_examples=25, deadline=None)
@given(
    nodes=st.integers(1, 30),
    edges=st.integers(0, 90),
    seed=st.integers(0, 99),
    fanouts=st.lists(st.sampled_from([1, 2, 5, -1]), min_size=1, max_size=3),
)
def test_a_batch_is_a_part_of_the_graph(nodes, edges, seed, fanouts):
    store = a_store(nodes, edges, seed)
    sampler = NeighbourSampler(store, fanouts)
    wanted = list(range(0, nodes, 3))
    for _ in range(2):  # a second batch owes nothing to the first
        batch = sampler.take(draws(wanted, seed))
        ids = batch.node_ids
        assert ids[batch.seeds].tolist() == wanted
        assert batch.seeds[: len(wanted)].all()
        assert len(ids.unique()) == len(ids)
        assert len(batch.edge_ids.unique()) == len(batch.edge_ids)
        assert torch.equal(ids[batch.edge_index], store.edge_index[:, batch.edge_ids].long())
        assert torch.equal(batch.y, ids)
        assert torch.equal(batch.node_values, store.nodes["node_values"][ids])
        assert torch.equal(batch.edge_values, store.edges["edge_values"][batch.edge_ids])
        within = [hops_from(store, batch, hop) for hop in range(len(fanouts) + 1)]
        degrees = torch.bincount(store.edge_index[1].long(), minlength=nodes)
        found = torch.bincount(ids[batch.edge_index[1]], minlength=nodes)
        for hop, fanout in enumerate(fanouts):
            for node in within[hop] - (within[hop - 1] if hop else set()):
                assert found[node] == (degrees[node] if fanout == -1 else min(fanout, degrees[node]))
        assert within[-1] == set(ids.tolist())


def hops_from(store: GraphStore, batch, hops: int) -> set[int]:
    """Nodes from which a path of at most so many of the batch's edges leads to a seed."""
    seen = set(batch.node_ids[batch.seeds].tolist())
    pairs = store.edge_index[:, batch.edge_ids].T.tolist()
    for _ in range(hops):
        seen |= {source for source, target in pairs if target in seen}
    return seen


def test_without_a_bound_it_is_the_neighbourhood_of_pyg():
    store, wanted = a_store(edges=90), [7, 3, 40]
    batch = NeighbourSampler(store, (-1, -1)).take(wanted)
    nodes, _, _, mask = k_hop_subgraph(wanted, 2, store.edge_index.long(), num_nodes=60, directed=True)
    inner = k_hop_subgraph(wanted, 1, store.edge_index.long(), num_nodes=60)[0]
    assert torch.equal(batch.node_ids.sort().values, nodes)
    into_inner = torch.isin(store.edge_index[1].long(), inner).nonzero().flatten()
    assert torch.equal(batch.edge_ids.sort().values, into_inner)
    assert set(mask.nonzero().flatten().tolist()) <= set(batch.edge_ids.tolist())


@pytest.mark.parametrize("kind", ["sage", "gine"])
def test_whole_neighbourhoods_give_the_outputs_of_the_whole_graph(kind):
    torch.manual_seed(0)
    store = a_store(nodes=200, edges=500)
    layers = [SAGEConv(4, 4) if kind == "sage" else GINEConv(torch.nn.Linear(4, 4)) for _ in range(3)]

    def outputs(batch):
        hidden = batch.node_values
        for layer in layers:
            edges = {} if kind == "sage" else {"edge_attr": batch.edge_values}
            hidden = torch.tanh(layer(hidden, batch.edge_index, **edges))
        return hidden

    whole, batch = outputs(store.take([0])), NeighbourSampler(store, (4, 4, 4)).take([5, 90, 17])
    assert len(batch.node_ids) < 150
    assert (outputs(batch)[batch.seeds] - whole[[5, 90, 17]]).norm() < 1e-6


def test_every_set_of_neighbours_is_as_likely():
    sets = _subsets(torch.full((20_000,), 5), 2, torch.Generator().manual_seed(0))
    counts = Counter(tuple(sorted(row)) for row in sets.tolist())
    assert set(counts) == set(combinations(range(5), 2))
    # The standard deviation of such a count is 42.
    assert all(abs(count - 2000) < 200 for count in counts.values())


def test_draws_decide_alone_what_is_drawn():
    sampler = NeighbourSampler(a_store(), (2, 2))
    first, other = (sampler.take(draws([4, 9], seed)).edge_ids for seed in (0, 1))
    torch.manual_seed(3)
    assert torch.equal(NeighbourSampler(a_store(), (2, 2)).take(draws([4, 9], 0)).edge_ids, first)
    assert not torch.equal(first, other)


class Nodes(DataModule):
    def prepare(self, stages: tuple[str, ...]) -> None:
        self.sampler = NeighbourSampler(a_store(), (3, 2))
        self.datasets = {stage: SeedNodes(torch.arange(0, 60, 2)) for stage in stages}

    def collate(self) -> Callable:
        return self.sampler.take


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_has_every_seed_once(workers):
    data = Nodes(batch_size=5, num_workers=workers, seed=1)
    data.prepare(("train", "val"))
    loader = data.train_dataloader()
    epochs = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        epochs.append(list(loader))
        seeds = torch.cat([batch.node_ids[batch.seeds] for batch in epochs[-1]])
        assert torch.equal(seeds.sort().values, torch.arange(0, 60, 2))
    assert not torch.equal(epochs[0][0].node_ids, epochs[1][0].node_ids)
    whole = next(iter(data.val_dataloader()))
    expected = NeighbourSampler(a_store(), (-1, -1)).take([0, 2, 4, 6, 8])
    assert torch.equal(whole.edge_ids, expected.edge_ids)


def test_a_seed_asked_for_twice_comes_once():
    batch = NeighbourSampler(a_store(), (-1,)).take([3, 5, 3])
    assert batch.node_ids[batch.seeds].tolist() == [3, 5]


@pytest.mark.parametrize("fanouts", [(), (0,), (5, -2)])
def test_fanouts_that_are_none_are_refused(fanouts):
    with pytest.raises(QuintetError, match=r"data\.fanouts is .* give numbers from 1, or -1 for all"):
        NeighbourSampler(a_store(), fanouts)


def test_many_graphs_are_refused():
    with pytest.raises(QuintetError, match="in one graph, and these are 2"):
        NeighbourSampler(a_store().select([0, 0]))
