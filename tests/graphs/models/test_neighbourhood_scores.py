"""Shared neighbours counted as sets by networkx."""

import networkx as nx
import pytest
import torch

from quintet.graphs.models.neighbourhood_scores import NeighbourhoodScores


@pytest.fixture
def graph():
    return nx.gnm_random_graph(12, 30, seed=1)


def scores_of(graph, edges):
    return NeighbourhoodScores(torch.tensor(edges).T, graph.number_of_nodes())


PAIRS = [(u, v) for u in range(12) for v in range(u + 1, 12)]


def test_both_scores_equal_networkx(graph):
    scores = scores_of(graph, list(graph.edges))
    pairs = torch.tensor(PAIRS).T
    shared = [len(list(nx.common_neighbors(graph, *pair))) for pair in PAIRS]
    rare = [score for _, _, score in nx.adamic_adar_index(graph, PAIRS)]
    assert scores.common_neighbours(pairs).tolist() == shared
    assert torch.linalg.norm(scores.adamic_adar(pairs) - torch.tensor(rare, dtype=torch.float64)) < 1e-12


def test_directions_repeats_and_loops_change_nothing(graph):
    edges = list(graph.edges)
    given = edges + [(v, u) for u, v in edges[:9]] + edges[:4] + [(3, 3)]
    pairs = torch.tensor(PAIRS).T
    assert torch.equal(scores_of(graph, given).adamic_adar(pairs), scores_of(graph, edges).adamic_adar(pairs))


def test_no_pairs_and_no_edges():
    scores = NeighbourhoodScores(torch.zeros(2, 0, dtype=torch.long), 3)
    assert scores.common_neighbours(torch.tensor([[0, 1], [1, 2]])).tolist() == [0, 0]
    assert scores.adamic_adar(torch.zeros(2, 0, dtype=torch.long)).tolist() == []
