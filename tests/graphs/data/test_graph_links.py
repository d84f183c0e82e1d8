"""Edges that are held out are known from nowhere else, and pairs beside them are no edges."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintet.core.errors import QuintetError
from quintet.graphs.data.graph_links import GraphLinks
from quintet.graphs.data.link_parts import link_parts, names_of, pairs_of

FRACTIONS = {"val": 0.2, "test": 0.2}
RING = "source,target\n" + "".join(f"n{i},n{(i + 1) % 30}\n" for i in range(30))


def unordered(ends):
    return {frozenset(pair) for pair in np.asarray(ends).T.tolist()}


@st.composite
def edges(draw):
    nodes = draw(st.integers(8, 25))
    node = st.integers(0, nodes - 1)
    listed = draw(st.lists(st.tuples(node, node), min_size=6, max_size=60))
    ring = [(i, i + 1) for i in range(nodes - 1)]
    return nodes, np.array(listed[: nodes * 2] + ring).T


@pytest.fixture
def folder(tmp_path):
    def write(edges=RING, nodes=None):
        (tmp_path / "edges.csv").write_text(edges)
        if nodes is not None:
            (tmp_path / "nodes.csv").write_text(nodes)
        return tmp_path

    return write


def batch_of(data, stage):
    (batch,) = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[stage]()
    return batch


class TestParts:
    @given(edges(), st.integers(0, 9))
    def test_a_pair_is_on_one_side_alone_in_either_direction(self, graph, seed):
        nodes, ends = graph
        parts = link_parts(ends, nodes, FRACTIONS, seed)
        sides = {part: unordered(pairs_of(names, nodes)) for part, names in parts.joined.items()}
        assert not sides["train"] & sides["val"]
        assert not sides["train"] & sides["test"]
        assert not sides["val"] & sides["test"]
        everything = {pair for pair in unordered(ends) if len(pair) == 2}
        assert set.union(*sides.values()) == everything
        assert sum(map(len, parts.joined.values())) == len(everything)

    @given(edges(), st.integers(0, 9))
    def test_pairs_apart_are_no_edges_and_as_many(self, graph, seed):
        nodes, ends = graph
        parts = link_parts(ends, nodes, FRACTIONS, seed)
        apart = [unordered(pairs_of(parts.apart[part], nodes)) for part in ("val", "test")]
        assert not apart[0] & apart[1]
        assert not (apart[0] | apart[1]) & unordered(ends)
        assert all(len(pair) == 2 for pair in apart[0] | apart[1])
        assert [len(pairs) for pairs in apart] == [len(parts.joined[part]) for part in ("val", "test")]

    def test_large_graphs_draw_and_small_ones_list(self, monkeypatch):
        ends = np.array([[i, (i + 1) % 50] for i in range(50)]).T
        monkeypatch.setattr("quintet.graphs.data.link_parts.LISTED", 0)
        parts = link_parts(ends, 50, {"val": 0.5, "test": 0.4}, 1)
        drawn = np.concatenate([parts.apart["val"], parts.apart["test"]])
        assert len(set(drawn.tolist())) == len(drawn) == 45
        assert not set(drawn.tolist()) & set(names_of(ends, 50).tolist())

    def test_the_seed_fixes_everything(self):
        ends = np.array([[i, (i + 1) % 50] for i in range(50)]).T
        first, again, other = (link_parts(ends, 50, FRACTIONS, seed) for seed in (3, 3, 4))
        assert all(np.array_equal(first.apart[part], again.apart[part]) for part in ("val", "test"))
        assert not np.array_equal(first.joined["val"], other.joined["val"])

    def test_a_complete_graph_has_no_pairs_apart(self):
        ends = np.stack(np.triu_indices(10, 1))
        with pytest.raises(QuintetError, match=r"18 pairs that no edge joins are needed, and there are 0"):
            link_parts(ends, 10, FRACTIONS, 0)

    def test_no_pair_left_is_refused(self):
        with pytest.raises(QuintetError, match="none is left to train on"):
            link_parts(np.array([[0], [1]]), 5, {"val": 0.5, "test": 0.5}, 0)


class TestGraph:
    def test_messages_go_along_training_edges_alone(self, folder):
        data = GraphLinks(folder(RING + "n1,n0\nn3,n3\n"), val_fraction=0.2, test_fraction=0.2)
        data.setup()
        known = unordered(batch_of(data, "train").edge_index)
        for stage in ("val", "test"):
            batch = batch_of(data, stage)
            held = unordered(batch.candidates[:, batch.linked == 1])
            assert len(held) == 6
            assert not held & known
            assert unordered(batch.edge_index) == known
            assert batch.linked.tolist() == [1] * 6 + [0] * 6
        assert frozenset([3]) in known
        assert "candidates" not in batch_of(data, "train")

    def test_degrees_are_those_of_known_edges(self, folder):
        data = GraphLinks(folder(), val_fraction=0.2, test_fraction=0.2)
        data.setup("fit")
        batch = batch_of(data, "val")
        mean, std = data.description().node_numbers["degree"]
        degrees = (batch.node_values.ravel() * std + mean).round().long()
        assert torch.equal(degrees, torch.bincount(batch.edge_index[1], minlength=30))
        assert int(degrees.sum()) == 2 * (30 - 12)

    def test_predicting_knows_all_edges_and_names_all_nodes(self, folder):
        known = GraphLinks(folder(), val_fraction=0.2).description()
        data = GraphLinks(folder(), val_fraction=0.2)
        data.adopt(known)
        data.setup("predict")
        (batch,) = data.predict_dataloader()
        assert batch.edge_index.shape[1] == 60
        assert [row.text for row in data.rows] == [f"n{i}" for i in range(30)]
        assert batch.node_row.tolist() == list(range(30))

    def test_parts_of_a_column(self, folder):
        text = "source,target,part\na,b,train\nb,c,train\nc,d,valid\nd,e,test\nb,a,train\n"
        data = GraphLinks(folder(text))
        assert {part: len(names) for part, names in data.links.joined.items()} == {"train": 2, "val": 1, "test": 1}
        assert data.features.edges == []

    def test_a_pair_in_two_parts_is_a_fault(self, folder):
        text = "source,target,split\na,b,train\nb,c,val\nc,b,train\nc,d,test\n"
        with pytest.raises(QuintetError, match=r"row 4 is in another part than .*row 3, which joins the same nodes"):
            GraphLinks(folder(text)).setup("fit")

    def test_cora(self, shared_data):
        data = GraphLinks(shared_data("graphs_planetoid_cora_citeseer"), "cora")
        assert {part: len(names) for part, names in data.links.joined.items()} == {
            "train": 5278 - 264 - 528,
            "val": 264,
            "test": 528,
        }
        # Neither the class nor the part of a node is a feature of it.
        assert len(data.features.nodes) == 1433
