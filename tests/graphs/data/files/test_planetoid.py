"""Planetoid's raw files give the graphs that papers measure on."""

import pickle

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch_geometric.io import read_planetoid_data

from quintet.core.errors import QuintetError
from quintet.graphs.data.files.planetoid import names_in, read_planetoid


@pytest.fixture
def folder(shared_data):
    return shared_data("graphs_planetoid_cora_citeseer")


@pytest.fixture
def small(tmp_path):
    """Six nodes, of which 4 and 5 are the test, listed backwards."""

    def make(**changes):
        eye = np.eye(6, dtype=np.float32)
        classes = np.eye(2, dtype=np.int32)[[0, 1, 0, 1, 0, 1]]
        parts = {
            "x": csr_matrix(eye[:2]),
            "allx": csr_matrix(eye[:4]),
            "tx": csr_matrix(eye[[5, 4]]),
            "y": classes[:2],
            "ally": classes[:4],
            "ty": classes[[5, 4]],
            "graph": {0: [1, 1], 1: [0], 2: [2, 3], 3: [2], 4: [5], 5: [4]},
        } | changes
        for name, value in parts.items():
            if name != "test_index":
                (tmp_path / f"ind.small.{name}").write_bytes(pickle.dumps(value, 2))
        (tmp_path / "ind.small.test.index").write_text(changes.get("test_index", "5\n4\n"))
        return tmp_path

    return make


class TestPublished:
    @pytest.mark.parametrize(
        ("name", "nodes", "words", "both_ways", "classes"),
        [("cora", 2708, 1433, 2 * 5278, 7), ("citeseer", 3327, 3703, 2 * 4552, 6)],
    )
    def test_sizes_and_public_split(self, folder, name, nodes, words, both_ways, classes):
        tables = read_planetoid(folder, name)
        assert len(tables.nodes) == nodes
        assert len(tables.nodes.columns.columns) == words + 2
        assert tables.ends.shape == (2, both_ways)
        assert tables.nodes.columns["label"].nunique() == classes
        counts = tables.nodes.columns["split"].value_counts().to_dict()
        assert counts == {"train": 20 * classes, "val": 500, "test": 1000}

    def test_cora_lists_5429_citations(self, folder):
        remark = next(text for text in read_planetoid(folder, "cora").remarks if "again" in text)
        assert "302 edges listed again" in remark
        assert (2 * 5278 + 302) // 2 == 5429

    @pytest.mark.parametrize("name", ["cora", "citeseer"])
    def test_everything_is_where_pyg_has_it(self, folder, name):
        theirs, ours = read_planetoid_data(str(folder), name), read_planetoid(folder, name)
        columns = ours.nodes.columns
        features = columns.drop(columns=["label", "split"]).to_numpy(np.float32)
        assert np.array_equal(features, theirs.x.numpy())
        labelled = columns["label"].notna().to_numpy()
        assert np.array_equal(columns["label"][labelled].astype(int), theirs.y.numpy()[labelled])
        assert set(map(tuple, ours.ends.T)) == set(map(tuple, theirs.edge_index.T.tolist()))
        for part in ("train", "val", "test"):
            mask = torch.from_numpy((columns["split"] == part).to_numpy(bool))
            assert torch.equal(mask, theirs[f"{part}_mask"])


class TestOwn:
    def test_test_nodes_stand_where_the_index_says(self, small):
        tables = read_planetoid(small(), "small")
        assert names_in(small()) == ["small"]
        assert tables.nodes.columns["label"].tolist() == ["0", "1", "0", "1", "0", "1"]
        assert np.array_equal(tables.nodes.columns.iloc[:, :6].to_numpy(np.float32), np.eye(6))
        assert tables.ends.T.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2], [4, 5], [5, 4]]
        assert any("1 edges listed again, 1 from a node to itself" in text for text in tables.remarks)

    def test_edges_to_missing_nodes_are_faults(self, small):
        tables = read_planetoid(small(graph={0: [1], 1: [6], 2: [-1]}), "small")
        assert len(tables.faults) == 2
        assert "node 6; the nodes are 0 to 5" in tables.faults[0].what
        assert tables.ends.T.tolist() == [[0, 1]]

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"test_index": "5\nfour\n"}, "row 2 is 'four'"),
            ({"test_index": "5\n5\n"}, "lists a node twice"),
            ({"test_index": "5\n99999999\n"}, "those after the 4 of allx"),
            ({"test_index": "1\n5\n"}, "those after the 4 of allx"),
            ({"test_index": "5\n"}, "2 and 2 rows for 1 nodes"),
            ({"graph": [1, 2]}, "mapping of lists"),
            ({"graph": {0: (1, 2)}}, "a number and its list"),
            ({"graph": {0: ["1"]}}, "number of a node"),
            ({"graph": {0: [10**30]}}, "more digits"),
            ({"tx": csr_matrix(np.eye(2, dtype=np.float32))}, "differ in their columns"),
            ({"allx": np.array([object()], dtype=object)}, "refused"),
        ],
    )
    def test_bad_files_are_named(self, small, changes, match):
        with pytest.raises(QuintetError, match=match) as raised:
            read_planetoid(small(**changes), "small")
        assert "ind.small." in str(raised.value)

    def test_a_missing_file_is_named(self, small):
        folder = small()
        (folder / "ind.small.ty").unlink()
        with pytest.raises(QuintetError, match=r"no file .*ind\.small\.ty"):
            read_planetoid(folder, "small")
