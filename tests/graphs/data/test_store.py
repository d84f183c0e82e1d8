"""A store hands out the same batches as PyG's own collation."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from quintet.core.errors import QuintetError
from quintet.graphs.data.store import GraphStore

LEVELS = {"node_values": "nodes", "edge_values": "edges", "shortest_paths": "pairs", "y": "graphs"}


def a_graph(nodes: int, edges: int, seed: int) -> Data:
    draw = torch.Generator().manual_seed(seed)
    return Data(
        node_values=torch.randn(nodes, 3, generator=draw),
        edge_index=torch.randint(0, nodes, (2, edges), generator=draw),
        edge_values=torch.randn(edges, 2, generator=draw),
        shortest_paths=torch.randint(0, 9, (nodes * nodes, 1), generator=draw),
        y=torch.randn(1, 2, generator=draw),
        num_nodes=nodes,
    )


GRAPHS = [a_graph(4, 6, 0), a_graph(1, 0, 1), a_graph(3, 2, 2), a_graph(2, 4, 3)]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1], [1], [2, 2, 0]])
def test_a_batch_is_the_one_of_pyg(order):
    found, expected = GraphStore.of(GRAPHS, LEVELS).take(order), Batch.from_data_list([GRAPHS[i] for i in order])
    for name in [*LEVELS, "edge_index", "batch", "ptr"]:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert found.num_graphs == len(order)


def test_a_selection_holds_its_graphs_alone():
    selected = GraphStore.of(GRAPHS, LEVELS).select([2, 0])
    assert len(selected) == 2
    for index, graph in enumerate((GRAPHS[2], GRAPHS[0])):
        found = selected.graph(index)
        assert all(torch.equal(getattr(found, name), getattr(graph, name)) for name in [*LEVELS, "edge_index"])


def test_fields_of_another_length_are_refused():
    with pytest.raises(QuintetError, match="node_values has 3 rows for 2 nodes"):
        GraphStore(torch.tensor([2]), torch.tensor([0]), torch.zeros(2, 0).long(), {"node_values": torch.zeros(3, 1)})


def test_whole_numbers_in_few_bytes_come_out_wide():
    categories = {"node_categories": torch.tensor([[0, 130], [5, 3]])}
    targets = {"y": torch.tensor([-1]), "charge": torch.tensor([-200]), "row": torch.tensor([70_000])}
    edges = torch.tensor([[0], [1]])
    store = GraphStore(torch.tensor([2]), torch.tensor([1]), edges, dict(categories), graphs=dict(targets)).narrow()
    kinds = {name: values.dtype for _, name, values in store.fields()}
    assert kinds == {"node_categories": torch.int16, "y": torch.int8, "charge": torch.int16, "row": torch.int32}
    assert store.edge_index.dtype == torch.int32
    batch = store.take([0])
    for name, values in {**categories, **targets, "edge_index": edges}.items():
        assert torch.equal(getattr(batch, name), values)
        assert getattr(batch, name).dtype == torch.long
