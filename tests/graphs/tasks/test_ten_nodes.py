"""Figures of a graph of ten nodes that are known by hand: directions, loops, nodes apart, classes that are missing."""

import math

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.graphs import GraphLinks, GraphNodes
from quintet.graphs.models.neighbourhood_scores import NeighbourhoodScores
from quintet.graphs.models.propagation import propagated

# A triangle a, b, c with a tail d; a triangle e, f, g; a loop at h; nothing at i and j.
NAMES = "abcdefghij"
EDGES = ["a,b", "b,c", "c,a", "c,d", "e,f", "f,g", "g,e", "h,h"]
CLASSES = {"a": ("x", "train"), "e": ("y", "train"), "b": ("x", "val"), "d": ("x", "test"), "f": ("y", "test")}


@pytest.fixture
def folder(tmp_path):
    def write(classes=CLASSES):
        rows = [f"{name},{','.join(classes.get(name, ('', '')))}" for name in NAMES]
        (tmp_path / "nodes.csv").write_text("\n".join(["id,label,split", *rows, ""]))
        (tmp_path / "edges.csv").write_text("\n".join(["source,target", *EDGES, ""]))
        return tmp_path

    return write


def the_batch(data):
    data.setup("fit")
    (batch,) = data.train_dataloader()
    return batch


def pairs(text):
    return torch.tensor([[NAMES.index(end) for end in pair] for pair in text.split()]).T


@pytest.mark.parametrize(
    ("rules", "edges", "degrees"),
    [
        ({}, 15, [2, 2, 3, 1, 2, 2, 2, 1, 0, 0]),
        ({"self_loops": "drop"}, 14, [2, 2, 3, 1, 2, 2, 2, 0, 0, 0]),
        ({"directed": True}, 8, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]),
    ],
)
def test_a_node_without_columns_is_told_by_edges_that_lead_to_it(folder, rules, edges, degrees):
    data = GraphNodes(folder(), **rules)
    batch = the_batch(data)
    assert batch.edge_index.shape == (2, edges)
    (mean, deviation) = data.description().node_numbers["degree"]
    assert torch.linalg.norm(batch.node_values[:, 0] * deviation + mean - torch.tensor(degrees)) < 1e-5


def test_labels_stay_in_their_component_and_elsewhere_are_the_shares_of_training(folder):
    batch = the_batch(GraphNodes(folder()))
    assert batch.train_mask.nonzero().flatten().tolist() == [0, 4]
    rows = torch.full((10, 2), float("nan"))
    rows[0], rows[4] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    found = propagated(rows, batch.edge_index, torch.tensor([0.5, 0.5]))
    assert found.tolist() == [[1, 0]] * 4 + [[0, 1]] * 3 + [[0.5, 0.5]] * 3


@pytest.mark.parametrize("directed", [True, False])
def test_shared_neighbours_by_hand_whatever_the_directions(folder, directed):
    data = GraphLinks(folder(), directed=directed)
    data.known = "all"
    edges = torch.from_numpy(data.message_edges().ends)
    near, asked = NeighbourhoodScores(edges, 10), pairs("ab ad ac ef ae hi hh")
    assert near.common_neighbours(asked).tolist() == [1, 1, 1, 1, 0, 0, 0]
    c, b, g = 1 / math.log(3), 1 / math.log(2), 1 / math.log(2)
    assert near.adamic_adar(asked).tolist() == pytest.approx([c, c, b, g, 0, 0, 0])


def test_no_pair_of_a_node_with_itself_is_held_out(folder):
    data = GraphLinks(folder(), val_fraction=0.3, test_fraction=0.3, seed=3)
    data.setup("fit")
    joined, apart = data.links.joined, data.links.apart
    assert {part: len(names) for part, names in joined.items()} == {"train": 3, "val": 2, "test": 2}
    loops = [NAMES.index(name) * 11 for name in NAMES]
    assert not any(set(names.tolist()) & set(loops) for names in [*joined.values(), *apart.values()])
    (batch,) = data.train_dataloader()
    assert batch.edge_index.shape[1] == 2 * 3 + 1  # the pairs of training both ways, and the loop


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"e": ("x", "train"), "f": ("x", "test")}, r"has one class in its training part \(x\)"),
        ({"f": ("z", "test")}, "row 7 has the class 'z', which no training node has"),
    ],
)
def test_classes_that_cannot_be_learned_are_refused(folder, changed, said):
    with pytest.raises(QuintetError, match=said):
        GraphNodes(folder(CLASSES | changed)).setup("fit")


def test_nodes_of_which_nothing_is_known_are_counted(folder):
    data = GraphNodes(folder())
    data.setup("fit")
    assert any("5 of 10 nodes have nothing known of what is predicted" in line for line in data.remarks())
