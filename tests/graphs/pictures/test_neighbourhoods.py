"""Neighbourhoods hold the nodes nearest to one, and are drawn with what a legend explains."""

import networkx as nx
import pytest
import torch

from quintet.core.pictures.palette import RIGHT, WRONG
from quintet.graphs.pictures.neighbourhoods import (
    MOST,
    ShownNode,
    neighbourhood,
    neighbourhood_panels,
)


def edges_of(graph) -> torch.Tensor:
    return torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).T


def test_steps_are_shortest_paths_whatever_the_direction():
    graph = nx.gnm_random_graph(30, 40, seed=3)
    around = neighbourhood(4, edges_of(graph), 30, hops=2)
    expected = nx.single_source_shortest_path_length(graph, 4, cutoff=2)
    assert dict(zip(around.nodes.tolist(), around.steps.tolist())) == dict(expected)
    assert around.nodes[0] == 4
    within = {frozenset(edge) for edge in graph.subgraph(expected).edges}
    assert {frozenset(around.nodes[pair].tolist()) for pair in around.edges.T} == within


def test_of_many_the_nearest_are_drawn():
    graph = nx.star_graph(60)
    nx.add_path(graph, [1, 61, 62])
    around = neighbourhood(0, edges_of(graph), 63)
    assert len(around.nodes) == MOST
    assert around.steps.max() == 1


def shown(contributions=True, right=True) -> ShownNode:
    around = neighbourhood(0, edges_of(nx.path_graph(3)), 3)
    shares = torch.tensor([0.5, -1.0, 0.0]) if contributions else None
    known = torch.tensor([False, True, False])
    return ShownNode("$a_$", around, torch.tensor([0, 1, -1]), known, right, shares)


def test_classes_titles_and_contributions_are_told():
    figure = neighbourhood_panels([shown(), shown(right=False)], ["$x_$", "_b"], "$t_$")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["class unknown", "$x_$", "_b", "black border: its class was trained on"]
    assert [panel.title.get_color() for panel in figure.axes[:2]] == [RIGHT, WRONG]
    shares = figure.axes[2].collections[0].get_array()
    assert shares.tolist() == pytest.approx([0.5, -1.0, 0.0])
    figure.canvas.draw()


def test_without_contributions_there_is_one_row():
    assert len(neighbourhood_panels([shown(contributions=False)], ["a", "b"], "t").axes) == 1


def test_a_node_alone_is_drawn():
    around = neighbourhood(1, torch.zeros(2, 0, dtype=torch.long), 3)
    assert around.nodes.tolist() == [1]
    item = ShownNode("a", around, torch.tensor([0]), torch.tensor([False]), None, torch.zeros(1))
    neighbourhood_panels([item], ["a"], "t").canvas.draw()
