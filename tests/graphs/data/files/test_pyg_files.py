"""PyG's Data from files: read where they hold tensors alone, refused and harmless where not."""

import io
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, HeteroData, InMemoryDataset

from quintet.core.errors import QuintetError
from quintet.graphs.data.files.pyg_files import is_pyg_file, read_pyg_file
from quintet.graphs.data.graph_nodes import GraphNodes
from quintet.graphs.data.many_graphs import GraphFiles


def some_graphs(count=8):
    draw = torch.Generator().manual_seed(0)
    return [
        Data(
            x=torch.randn(4, 2, generator=draw),
            edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]),
            edge_attr=torch.tensor([0, 1, 0]),
            y=torch.tensor([number % 2]),
        )
        for number in range(count)
    ]


class TestData:
    def test_a_list_is_read(self, tmp_path):
        torch.save(some_graphs(), tmp_path / "graphs.pt")
        data = GraphFiles(tmp_path / "graphs.pt", scale="none", directed=True)
        data.setup("fit")
        for number, graph in enumerate(some_graphs()):
            ours = data.store.graph(number)
            assert torch.equal(ours.node_values, graph.x)
            assert torch.equal(ours.edge_index, graph.edge_index)
            assert torch.equal(ours.edge_categories.ravel() - 1, graph.edge_attr)
            assert ours.y.tolist() == graph.y.tolist()

    def test_a_saved_dataset_is_read(self, tmp_path):
        InMemoryDataset.save(some_graphs(), str(tmp_path / "data.pt"))
        tables = read_pyg_file(tmp_path / "data.pt")
        assert len(tables.graphs) == 8
        assert tables.ends.shape == (2, 24)
        assert tables.suggested == {"label": ["y"]}
        expected = torch.cat([graph.x for graph in some_graphs()]).numpy()
        assert np.allclose(tables.nodes.columns.to_numpy(), expected)

    def test_one_graph_of_nodes(self, tmp_path):
        parts = ("train_mask", "val_mask", "test_mask")
        masks = {part: torch.arange(6) % 3 == place for place, part in enumerate(parts)}
        x = torch.tensor([[3], [1], [3], [1], [3], [1]])
        graph = Data(x=x, edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([0, 1, 1, 1, 0, 0]), **masks)
        torch.save(graph, tmp_path / "graph.pt")
        data = GraphNodes(tmp_path / "graph.pt")
        data.setup("fit")
        (batch,) = data.train_dataloader()
        assert batch.train_mask.tolist() == masks["train_mask"].tolist()
        assert batch.y.tolist() == graph.y.tolist()
        assert data.description().node_words == {"x 0": ["1", "3"]}

    def test_what_is_not_read_is_said(self, tmp_path):
        torch.save([Data(edge_index=torch.zeros(2, 0).long(), num_nodes=2, smiles="CC")], tmp_path / "graph.pt")
        assert "smiles" in read_pyg_file(tmp_path / "graph.pt").remarks[0]

    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            ({"edge_index": torch.tensor([[0, 1, 2], [1, 2, 7]])}, "has an edge from 2 to 7; its nodes are 0 to 3"),
            ({"edge_index": torch.tensor([[0, 1, 2], [1, 2, -1]])}, "has an edge from 2 to -1"),
            ({"edge_index": torch.tensor([[0.0], [1.0]])}, "an edge_index of .* of float32"),
            ({"edge_index": torch.tensor([0, 1])}, "an edge_index of"),
            ({"edge_index": "no"}, "edge_index that is no tensor"),
            ({"x": torch.zeros(1).expand(10**12)[: 10**12]}, "more numbers than it stores"),
            ({"x": torch.zeros(4, 2, device="meta")}, "no tensor of numbers|refused"),
            ({"x": torch.zeros(4, 2).to_sparse()}, "no tensor of numbers|refused"),
            ({"x": torch.zeros(3, 2), "num_nodes": 4}, "4 rows of numbers are meant"),
            ({"x": torch.zeros(4, 5)}, "graph 0 has 5 columns of float32 in x|graph 1 has 2 columns of float32 in x"),
            ({"x": None, "num_nodes": 4}, "graph 0 has no x"),
            ({"x": None, "edge_index": torch.tensor([[0], [10**9]])}, "says nothing of its nodes; give num_nodes"),
            ({"edge_attr": torch.zeros(9)}, "3 rows of numbers are meant"),
        ],
    )
    def test_fields_that_do_not_fit_are_named(self, tmp_path, fields, match):
        graphs = some_graphs(3)
        for name, value in fields.items():
            graphs[0][name] = value
        torch.save(graphs, tmp_path / "graphs.pt")
        with pytest.raises(QuintetError, match=match) as raised:
            GraphFiles(tmp_path / "graphs.pt").setup("fit")
        assert "graphs.pt" in str(raised.value)


class Calls:
    """Pickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.made = (function, arguments)

    def __reduce__(self):
        return self.made


def archive(pickled: bytes, compress=zipfile.ZIP_STORED, twice=b"") -> bytes:
    """A file as torch.save writes it, with a pickle of one's own."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compress) as file:
        if twice:
            file.writestr("archive/data.pkl", twice)
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return content.getvalue()


def saved(value) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


CALL = pickle.dumps(Calls(os.system, "touch OWNED"), 2)
EVIL = {
    "call of the system": archive(pickle.dumps(Calls(os.system, "touch OWNED"), 2)),
    "by protocol 4": archive(pickle.dumps(Calls(os.system, "touch OWNED"), 4)),
    "inside of a Data": saved([Data(x=Calls(os.system, "touch OWNED"))]),
    "instance": archive(b"(S'touch OWNED'\nios\nsystem\n."),
    "object": archive(b"(cos\nsystem\nS'touch OWNED'\no."),
    "import of a module": archive(b"chelper_that_opens\nrun\n."),
    "another class of PyG": saved([HeteroData()]),
    "a dataset of PyG": archive(b"ctorch_geometric.datasets.planetoid\nPlanetoid\n(S'.'\nS'Cora'\ntR."),
    "a module of torch": saved(torch.nn.Linear(2, 2)),
    "bytes that grow": archive(b"c__builtin__\nbytearray\n\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R."),
    "a pickle alone": pickle.dumps(Calls(os.system, "touch OWNED")),
    "torch's old format": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    + pickle.dumps(Calls(os.system, "touch OWNED"), 2),
    "a compressed archive": archive(b"N." + b"\0" * 10**5, zipfile.ZIP_DEFLATED),
    "an entry twice": archive(pickle.dumps([], 2), twice=pickle.dumps(Calls(os.system, "touch OWNED"), 2)),
    "far place in memory": archive(b"\x80\x02K\x01r" + struct.pack("<I", 2**32 - 1) + b"."),
    "a damaged directory": saved([]).replace(b"PK\x01\x02", b"PK\x01\x00", 1),
    "no Data": saved([{"x": torch.zeros(2)}]),
    "an empty list": saved([]),
    "a number": saved(3),
    "nothing": b"",
}


@pytest.fixture
def watched():
    """What a test imports and starts."""
    "names of an archive".encode("cp437")  # which imports the encoding once
    seen, on = [], [True]

    def hook(event, arguments):
        if on[0] and event.startswith(("import", "exec", "compile", "os.", "subprocess", "ctypes", "socket")):
            seen.append((event, str(arguments[:1])))

    sys.addaudithook(hook)
    yield seen
    on[0] = False


class TestEvil:
    @pytest.mark.parametrize("content", EVIL.values(), ids=EVIL.keys())
    @pytest.mark.filterwarnings("ignore")
    def test_is_refused_in_a_line_and_starts_nothing(self, tmp_path, monkeypatch, watched, content):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "helper_that_opens.py").write_text("open('OWNED', 'w')\n")
        monkeypatch.syspath_prepend(tmp_path)
        path = tmp_path / "graphs.pt"
        path.write_bytes(content)
        (tmp_path / "honest.pt").write_bytes(saved(some_graphs(1)))
        read_pyg_file(tmp_path / "honest.pt")  # the first file of any kind imports what it needs
        watched.clear()
        with pytest.raises(QuintetError) as raised:
            read_pyg_file(path)
        assert watched == []
        assert not (tmp_path / "OWNED").exists()
        assert len(str(raised.value)) < 300
        assert "\n" not in str(raised.value)

    def test_files_that_name_no_data_are_not_recognised(self, tmp_path):
        path = tmp_path / "weights.pt"
        torch.save(torch.nn.Linear(2, 2).state_dict(), path)
        assert not is_pyg_file(path)
        torch.save(some_graphs(2), path)
        assert is_pyg_file(path)
