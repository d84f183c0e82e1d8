"""`quintet inspect` of the files of chemists."""

import pytest
from rdkit import Chem

from quintet.cli import main
from quintet.graphs import GraphNodes, Molecules

CHAIN = [f"{'C' * length}O" for length in range(1, 31)]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_with_faults_is_looked_through(here, capsys):
    rows = [f"{text},{number / 10},=SUM(A1)" for number, text in enumerate(CHAIN)]
    rows[3], rows[9] = "CC(C,1,x", "C1CC1,high,x"
    (here / "m.csv").write_text("\n".join(["smiles,logS,id", *rows]))
    assert main(["inspect", "m.csv"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "m.csv row 5 has 'CC(C', which is no molecule" in said
    assert "m.csv row 11 has 'high' in the column 'logS', no number" in said
    assert "2 faults" in said
    assert {path.name for path in (here / "inspect" / "m").iterdir()} >= {"molecules.png", "targets.png"}


def test_records_are_looked_through_without_a_fault(here, capsys):
    blocks = [f"{Chem.MolToMolBlock(Chem.MolFromSmiles(text))}> <y>\n{n}\n\n$$$$\n" for n, text in enumerate(CHAIN)]
    (here / "m.sdf").write_text("".join(blocks))
    assert main(["inspect", "m.sdf"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "records 30" in said
    assert "no faults found" in said


@pytest.mark.parametrize(
    ("name", "text", "recognised"),
    [
        ("a.csv", "smiles,y\nCCO,1\n", True),
        ("a.csv", "what,y\nCCCCO,1\nCCN,2\n", True),
        ("a.csv", "date,y\n2024-01-01,1\n2024-01-02,1\n", False),
        ("a.csv", "path,label\na.jpg,C\nb.jpg,N\n", False),
        ("a.csv", "class,y\nC,1\nN,2\n", False),
        ("a.csv", "", False),
        ("a.smi", "CCO ethanol\n", True),
        ("a.png", "CCO\n", False),
    ],
)
def test_what_looks_like_molecules(here, name, text, recognised):
    (here / name).write_text(text)
    assert Molecules.recognises(here / name) == recognised
    assert Molecules.reads(here / name) == (name == "a.smi")  # a table may be of any kind


def test_a_graph_of_nodes_is_drawn_with_its_degrees_and_classes(here, capsys):
    nodes = [f"{number:03d},{number},{'xy'[number % 2] if number % 3 else ''}" for number in range(30)]
    edges = [f"{one:03d},{other:03d}" for one, other in [(0, other) for other in range(1, 20)] + [(1, 2), (5, 5)]]
    for name, rows in (("nodes.csv", ["id,size,label", *nodes]), ("edges.csv", ["source,target", *edges])):
        (here / "own").mkdir(exist_ok=True)
        (here / "own" / name).write_text("\n".join([*rows, ""]))
    assert main(["inspect", "own"]) == 0
    assert "10 of 30 nodes have nothing known of what is predicted" in capsys.readouterr().out
    assert {path.name for path in (here / "inspect" / "own").iterdir()} == {"overview.png", "drawings.png"}
    data = GraphNodes(here / "own")
    degrees, classes = dict(data.pictures())["overview"].axes
    assert degrees.get_title() == "30 nodes, 10 without an edge, at most 19 edges at one"
    assert [patch.get_height() for patch in degrees.patches] == [10, 17, 2, *[0] * 16, 1]
    assert {label.get_text() for label in classes.get_yticklabels()} == {"x", "y", "no class"}
    assert sorted(bar.get_width() for bar in classes.patches) == [10, 10, 10]
