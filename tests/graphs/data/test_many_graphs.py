"""Many graphs of one's own: tables, TU folders, lists of PyG's Data."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.io import read_tu_data

from quintet.core.errors import QuintetError
from quintet.graphs.data.graph_parts import Draw, graph_parts
from quintet.graphs.data.many_graphs import GraphFiles

NODES = "graph,id,size,atom\n" + "".join(
    f"g{g},{n},{g + n}.5,{'CN'[n % 2]}\n" for g in range(8) for n in range(g % 3 + 1)
)
EDGES = "graph,source,target,bond\n" + "".join(f"g{g},0,{n},{n}.25\n" for g in range(8) for n in range(1, g % 3 + 1))
GRAPHS = "graph,mass,label\n" + "".join(f"g{g},{g}.5,{'xy'[g % 2]}\n" for g in range(8))


@pytest.fixture
def folder(tmp_path):
    def write(nodes=NODES, edges=EDGES, graphs=GRAPHS):
        for name, text in (("nodes", nodes), ("edges", edges), ("graphs", graphs)):
            if text is not None:
                (tmp_path / f"{name}.csv").write_text(text)
        return tmp_path

    return write


class TestTables:
    def test_graphs_become_batches(self, folder):
        data = GraphFiles(folder(), val_fraction=0.25, test_fraction=0.25)
        data.setup()
        known = data.description()
        assert known.classes == {"x": 2, "y": 2}
        assert known.node_words == {"atom": ["C", "N"]}
        assert list(known.graph_numbers) == ["mass"]
        assert known.targets == ["label"]
        seen = []
        for stage in ("train", "val", "test"):
            store = data.datasets[stage]
            batch = store.take(range(len(store)))
            seen += batch.row.tolist()
            assert batch.y.tolist() == [row % 2 for row in batch.row.tolist()]
            assert torch.bincount(batch.batch).tolist() == [row % 3 + 1 for row in batch.row.tolist()]
            mean, std = known.graph_numbers["mass"]
            assert torch.allclose(batch.graph_values.ravel() * std + mean, batch.row + 0.5)
        assert sorted(seen) == list(range(8))

    def test_edges_are_counted_within_their_graph(self, folder):
        data = GraphFiles(folder())
        data.setup("fit")
        graph = data.store.graph(5)
        assert graph.edge_index.T.tolist() == [[0, 1], [0, 2], [1, 0], [2, 0]]

    def test_nodes_may_stand_in_any_order(self, folder):
        lines = NODES.splitlines()
        mixed = "\n".join([lines[0], *lines[:0:-1]]) + "\n"
        straight = GraphFiles(folder())
        straight.setup("fit")
        values = [straight.store.graph(g).node_values.ravel().sort().values for g in range(8)]
        other = GraphFiles(folder(nodes=mixed))
        other.setup("fit")
        assert all(torch.allclose(other.store.graph(g).node_values.ravel().sort().values, values[g]) for g in range(8))
        # Node 0 is now the last of its graph.
        assert other.store.graph(5).edge_index.T.tolist() == [[2, 1], [2, 0], [1, 2], [0, 2]]

    def test_several_targets_with_gaps(self, folder):
        rows = [f"g{g},{g % 2},{'' if g == 3 else g % 3 // 2}" for g in range(8)]
        data = GraphFiles(folder(graphs="graph,toxic,active\n" + "\n".join(rows)), targets=["toxic", "active"])
        data.setup("fit")
        assert data.store.graphs["y"].shape == (8, 2)
        assert torch.isnan(data.store.graphs["y"][3]).tolist() == [False, True]
        assert list(data.description().positives) == ["toxic", "active"]
        assert data.description().target_scale == {}

    def test_new_graphs_keep_their_order_and_names(self, folder, tmp_path):
        known = GraphFiles(folder()).description()
        new = tmp_path / "new"
        new.mkdir()
        (new / "nodes.csv").write_text("graph,id,size,atom\nzz,a,1.5,C\naa,a,2.5,P\nzz,b,3.5,N\n")
        (new / "edges.csv").write_text("graph,source,target,bond\nzz,a,b,1.25\n")
        (new / "graphs.csv").write_text("graph,mass\nzz,1.5\naa,2.5\n")
        data = GraphFiles(new)
        data.adopt(known)
        data.setup("predict")
        (batch,) = data.predict_dataloader()
        assert [row.text for row in data.rows] == ["zz", "aa"]
        assert batch.row.tolist() == [0, 1]
        assert batch.node_categories.ravel().tolist() == [1, 2, 0]
        assert batch.y.tolist() == [-1, -1]

    @pytest.mark.parametrize(
        ("files", "match"),
        [
            ({"graphs": GRAPHS + "g9,1.5,x\n"}, r"graphs.csv row 10 is the graph 'g9', of which nodes.csv has no node"),
            ({"graphs": GRAPHS + "g7,1.5,x\n"}, r"graphs.csv row 10 names the graph 'g7' again \(row 9\)"),
            ({"graphs": GRAPHS.replace("g7,7.5,y\n", "")}, r"is of the graph 'g7', which graphs.csv lacks"),
            ({"nodes": NODES + "g7,0,1.5,C\n"}, r"names the node '0' again"),
            ({"edges": EDGES + "g0,0,5,1.5\n"}, r"has '5 of graph g0' in the column 'target', a node that"),
            ({"edges": "source,target\n0,1\n"}, r"nodes.csv row 3 names the node '0' again"),
            ({"graphs": GRAPHS.replace("3.5,y", "heavy,y")}, r"graphs.csv row 5 has 'heavy' in the column 'mass'"),
            ({"graphs": GRAPHS.replace("3.5,y", "3.5,")}, r"graphs.csv row 5 is in the .* part and has no class"),
            ({"graphs": GRAPHS.replace(",label", ",kind")}, r"have no column of what is to be predicted"),
            ({"graphs": "graph,label\n"}, r"graphs.csv has no rows"),
            ({"graphs": GRAPHS.replace(",y", ",x")}, r"has one class in its training part \(x\)"),
        ],
    )
    def test_bad_input_names_file_and_row(self, folder, files, match):
        with pytest.raises(QuintetError, match=match) as raised:
            GraphFiles(folder(**files)).setup("fit")
        assert str(raised.value).count("\n") <= 1

    def test_an_edge_between_two_graphs(self, folder):
        nodes = "graph,id\ng0,a\ng0,b\ng1,c\n"
        files = {"nodes": nodes, "edges": "source,target\na,b\nb,c\n", "graphs": "graph,label\ng0,x\ng1,y\n"}
        with pytest.raises(QuintetError, match=r"edges.csv row 3 joins nodes of two graphs"):
            GraphFiles(folder(**files)).setup("fit")


@pytest.fixture
def collection(tmp_path):
    """Nine graphs as the TU collection writes them."""
    draw = np.random.default_rng(0)
    sizes = [3, 4, 5] * 3
    owner = np.repeat(np.arange(9), sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    listed = []
    for graph, size in enumerate(sizes):
        for node in range(size - 1):
            listed += [
                (starts[graph] + node, starts[graph] + node + 1),
                (starts[graph] + node + 1, starts[graph] + node),
            ]
    files = {
        "A": [f"{a + 1}, {b + 1}" for a, b in listed],
        "graph_indicator": owner + 1,
        "node_labels": draw.integers(0, 3, len(owner)),
        "node_attributes": [f"{value:.3f}, {value * 2:.3f}" for value in draw.normal(size=len(owner))],
        "edge_labels": draw.integers(0, 2, len(listed)),
        "graph_labels": np.where(np.arange(9) % 2, -1, 1),
    }

    def write(**changes):
        for name, lines in (files | changes).items():
            (tmp_path / f"TOY_{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        return tmp_path

    return write


class TestCollection:
    def test_is_what_pyg_reads(self, collection):
        theirs, slices, _ = read_tu_data(str(collection()), "TOY")
        data = GraphFiles(collection(), scale="none")
        data.setup("fit")
        ours = data.store
        assert ours.node_counts.tolist() == (slices["x"][1:] - slices["x"][:-1]).tolist()
        attributes = ours.nodes["node_values"]
        # PyG takes node_attributes for no file of its own, as a comma is missing in its list of names.
        labels = torch.nn.functional.one_hot(ours.nodes["node_categories"][:, 0] - 1).float()
        assert torch.equal(labels, theirs.x[:, -3:])
        assert attributes.shape == (36, 2)
        shift = ours.node_counts.cumsum(0) - ours.node_counts
        ends = ours.edge_index + shift.repeat_interleave(ours.edge_counts)
        global_theirs = theirs.edge_index + slices["x"][:-1].repeat_interleave(slices["edge_index"].diff())
        assert set(map(tuple, ends.T.tolist())) == set(map(tuple, global_theirs.T.tolist()))
        assert data.description().classes.keys() == {"1", "-1"}
        assert any("listed in both directions" in text for text in data.remarks())

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"A": ["1, 2", "2, 99"]}, r"has 32|TOY_edge_labels"),
            ({"A": ["1, 2", "two, 1"]}, r"TOY_A.txt row 2 has 'two', which is no number"),
            ({"A": ["1, 2", "2"]}, r"TOY_A.txt row 2 has 1 columns"),
            ({"graph_indicator": ["0"] * 36}, r"row 1 has the graph 0; graphs are numbered from 1"),
            ({"graph_indicator": ["99"] * 36}, r"has the graph 99; TOY_graph_labels.txt has 9 rows"),
            ({"node_labels": [1, 2]}, r"TOY_node_labels.txt has 2 rows for 36 nodes"),
            ({"graph_labels": []}, r"TOY_graph_labels.txt is empty"),
        ],
    )
    def test_bad_files_are_named(self, collection, changes, match):
        with pytest.raises(QuintetError, match=match):
            GraphFiles(collection(**changes)).setup("fit")


class TestParts:
    @given(st.lists(st.sampled_from("xyz"), min_size=6, max_size=40), st.integers(2, 5), st.integers(0, 3))
    def test_folds_cover_every_graph_once(self, classes, folds, seed):
        tests = [graph_parts(classes, None, Draw(0.2, 0.0, "stratified", folds, k), seed)["test"] for k in range(folds)]
        assert sorted(np.concatenate(tests)) == list(range(len(classes)))

    @given(
        st.lists(st.sampled_from("xy"), min_size=6, max_size=40),
        st.integers(2, 5),
        st.sampled_from(["stratified", "random"]),
    )
    def test_parts_are_disjoint_and_complete(self, classes, folds, by):
        for draw in (Draw(0.2, 0.2, by), Draw(0.3, 0.0, by, folds, 1)):
            parts = graph_parts(classes, None, draw, 1)
            assert sorted(np.concatenate(list(parts.values()))) == list(range(len(classes)))

    @pytest.mark.parametrize("options", [{"folds": 1}, {"folds": 3, "fold": 3}, {"val": 0.8, "test": 0.8}])
    def test_options_that_make_no_parts_are_refused(self, options):
        with pytest.raises(QuintetError):
            Draw(**options)
