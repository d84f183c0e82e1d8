"""GraphML, GEXF, edge lists and published sets by name."""

import networkx as nx
import pytest

from quintet.core.errors import QuintetError
from quintet.graphs.data.files.graph_files import form_of, holds_many_graphs, holds_one_graph, read_graphs
from quintet.graphs.data.files.table_graphs import Reading


def read(path, **options):
    return read_graphs(str(path), None, Reading(**options))


@pytest.fixture
def drawn():
    """A graph of networkx with columns of words, numbers and truth values."""
    graph = nx.Graph()
    graph.add_node("a", size=1.5, colour="red", seen=True)
    graph.add_node("b", size=2, colour="blue", seen=False)
    graph.add_node("c", colour="red", seen=True)
    graph.add_edge("a", "b", weight=0.5)
    graph.add_edge("b", "c", weight=1.5)
    return graph


class TestNetworkx:
    @pytest.mark.parametrize(("ending", "write"), [("graphml", nx.write_graphml), ("gexf", nx.write_gexf)])
    def test_attributes_become_columns(self, tmp_path, drawn, ending, write):
        path = tmp_path / f"graph.{ending}"
        write(drawn, path)
        tables = read(path)
        assert list(tables.nodes.names) == ["a", "b", "c"]
        assert tables.ends.T.tolist() == [[0, 1], [1, 2]]
        columns = tables.nodes.columns
        assert columns["size"].tolist()[:2] == [1.5, 2.0]
        assert columns["size"].isna().tolist() == [False, False, True]
        assert columns["colour"].tolist() == ["red", "blue", "red"]
        assert tables.edges.columns["weight"].tolist() == [0.5, 1.5]
        assert tables.faults == []

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "is empty"),
            ("<graphml><graph>", "cannot be read"),
            ("no graph", "cannot be read"),
            ('<!DOCTYPE g [<!ENTITY a SYSTEM "/etc/passwd">]><graphml>&a;</graphml>', "refused: it declares <!DOCTYPE"),
            ('<?xml version="1.0" encoding="utf-16"?><graphml/>', "written as utf-16; save it as UTF-8"),
            ('<?xml version="1.0" encoding="cp037"?><graphml/>', "written as cp037"),
            ('<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph/><graph/></graphml>', "holds 2 graphs"),
        ],
    )
    def test_damaged_and_dangerous_files_are_refused(self, tmp_path, text, match):
        path = tmp_path / "graph.graphml"
        path.write_text(text)
        with pytest.raises(QuintetError, match=match):
            read(path)

    def test_other_encodings_cannot_hide_entities(self, tmp_path):
        path = tmp_path / "graph.graphml"
        path.write_bytes('<?xml version="1.0"?><!DOCTYPE g [<!ENTITY a "b">]><graphml/>'.encode("utf-16"))
        with pytest.raises(QuintetError, match=r"not UTF-8|no text"):
            read(path)

    def test_negative_and_mixed_cells_are_faults(self, tmp_path):
        graph = nx.Graph()
        graph.add_nodes_from([(-1, {"size": "1"}), (0, {"size": "2"}), (1, {"size": "old"}), (2, {"size": "4"})])
        nx.write_graphml(graph, tmp_path / "graph.graphml")
        faults = read(tmp_path / "graph.graphml").faults
        told = [f"{fault.where} {fault.what}" for fault in faults]
        assert any("node '-1' has '-1'" in text and "negative" in text for text in told)
        assert any("node '1' has 'old' in the column 'size'" in text for text in told)


class TestEdgeList:
    def test_lines_are_edges(self, tmp_path):
        path = tmp_path / "graph.edgelist"
        path.write_text("# comment\n001 002 1.5\n\n002 003 2\n")
        tables = read(path)
        assert list(tables.nodes.names) == ["001", "002", "003"]
        assert tables.ends.T.tolist() == [[0, 1], [1, 2]]
        assert tables.edges.columns["weight"].tolist() == [1.5, 2.0]

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("# nothing\n", "has no edges"),
            ("a b\nb c 1\n", "row 2 has 3 columns, the first 2"),
            ("a\n", "row 1 has 1 columns"),
            ("a b {} x\n", "row 1 has 4 columns"),
        ],
    )
    def test_other_lines_are_refused(self, tmp_path, text, match):
        path = tmp_path / "graph.edgelist"
        path.write_text(text)
        with pytest.raises(QuintetError, match=match):
            read(path)

    def test_marks_of_what_is_missing_are_no_nodes(self, tmp_path):
        path = tmp_path / "graph.edgelist"
        path.write_text("1 2\n2 -1\n")
        assert "a negative number" in read(path).faults[0].what


class TestForms:
    def test_nothing_and_other_things(self, tmp_path):
        with pytest.raises(QuintetError, match="no file or folder"):
            read(tmp_path / "absent")
        with pytest.raises(QuintetError, match="holds no graphs in a form that is read here: nodes"):
            read(tmp_path)
        (tmp_path / "nodes.csv").write_text("id\na\n")
        with pytest.raises(QuintetError, match=r"has nodes\.csv and no table of edges; add edges\.csv"):
            read(tmp_path)

    def test_two_tables_of_a_kind(self, tmp_path):
        for name in ("edges.csv", "my_edges.tsv"):
            (tmp_path / name).write_text("source,target\na,b\n")
        with pytest.raises(QuintetError, match=r"two tables of edges: edges\.csv and my_edges\.tsv"):
            read(tmp_path)

    def test_one_graph_and_many_are_told_apart(self, tmp_path, shared_data):
        planetoid = shared_data("graphs_planetoid_cora_citeseer")
        assert holds_one_graph(planetoid)
        assert not holds_many_graphs(planetoid)
        (tmp_path / "edges.csv").write_text("source,target\n1,2\n")
        (tmp_path / "nodes.csv").write_text("graph,id\na,1\nb,2\n")
        assert holds_many_graphs(tmp_path)
        assert form_of(tmp_path / "nodes.csv") is None


class TestNamed:
    @pytest.mark.parametrize(
        ("root", "match"),
        [
            ("other:Cora", "published sets are planetoid:NAME, tu:NAME, ogb:NAME"),
            ("planetoid:../Cora", "is no name of a set"),
            ("tu:", "nothing is no name of a set"),
            ("ogb:ogbg-molhiv", "needs the package ogb: pip install ogb"),
        ],
    )
    def test_unknown_names(self, root, match):
        with pytest.raises(QuintetError, match=match):
            read_graphs(root, None, Reading())

    @pytest.mark.parametrize(("root", "kind"), [("planetoid:Cora", "Planetoid"), ("tu:MUTAG", "TUDataset")])
    def test_pyg_fetches_and_what_it_says_is_one_line(self, tmp_path, monkeypatch, root, kind):
        monkeypatch.setenv("QUINTET_CACHE", str(tmp_path))

        def download(dataset):
            raise OSError("no network here\nsecond line")

        monkeypatch.setattr(f"torch_geometric.datasets.{kind}.download", download)
        with pytest.raises(QuintetError, match=r"cannot be fetched: no network here; .* give the folder") as raised:
            read_graphs(root, None, Reading())
        assert "\n" not in str(raised.value)

    def test_what_pyg_fetched_is_read_here(self, tmp_path, monkeypatch, shared_data):
        raw = shared_data("graphs_planetoid_cora_citeseer")
        monkeypatch.setenv("QUINTET_CACHE", str(tmp_path))

        def download(dataset):
            from pathlib import Path

            for name in dataset.raw_file_names:
                (Path(dataset.raw_dir) / name).write_bytes((raw / name).read_bytes())

        monkeypatch.setattr("torch_geometric.datasets.Planetoid.download", download)
        assert len(read_graphs("planetoid:Cora", None, Reading()).nodes) == 2708
