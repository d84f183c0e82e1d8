"""What is counted of graphs, against a loop over them."""

import torch
from torch_geometric.data import Data

from quintet.graphs import GraphStore
from quintet.graphs.data.statistics import MOST, graph_statistics

SIZES = {"node_categories": [3], "edge_categories": [2]}


def test_counts_shares_and_means_of_each_graph():
    draw = torch.Generator().manual_seed(0)
    graphs = []
    for nodes, edges in ((4, 6), (1, 0), (3, 2)):
        graphs.append(
            Data(
                node_categories=torch.randint(0, 4, (nodes, 1), generator=draw),
                node_values=torch.randn(nodes, 2, generator=draw),
                edge_index=torch.randint(0, nodes, (2, edges), generator=draw),
                edge_categories=torch.randint(0, 3, (edges, 1), generator=draw),
                num_nodes=nodes,
            )
        )
    levels = {"node_categories": "nodes", "node_values": "nodes", "edge_categories": "edges"}
    found = graph_statistics(GraphStore.of(graphs, levels).take([2, 0, 1]), SIZES)
    for row, graph in zip(found, (graphs[2], graphs[0], graphs[1]), strict=True):
        nodes, edges = graph.num_nodes, graph.edge_index.shape[1]
        expected = [nodes, edges, edges / nodes]
        expected += [(graph.node_categories == code).sum().item() / nodes for code in range(4)]
        expected += graph.node_values.double().mean(0).tolist()
        expected += [(graph.edge_categories == code).sum().item() / max(edges, 1) for code in range(3)]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64))


def test_many_categories_are_counted_together_beyond_the_first():
    graph = Data(node_categories=torch.tensor([[1], [500], [900]]), edge_index=torch.zeros(2, 0).long(), num_nodes=3)
    store = GraphStore.of([graph], {"node_categories": "nodes"})
    found = graph_statistics(store.take([0]), {"node_categories": [1000]})
    assert found.shape == (1, 3 + MOST)
    assert found[0, -1].item() == 2 / 3
