"""Strangers' files of molecules and graphs: read as they were meant, or refused in a line or two; never guessed."""

import csv
import gzip
import os
import pickle
import sys
from collections import defaultdict
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from rdkit import Chem
from torch_geometric.data import Data

from quintet.core.errors import QuintetError
from quintet.graphs import GraphFiles, GraphLinks, GraphNodes, Molecules

SMILES = ["CCO", "CCN", "c1ccccc1", "CC(=O)O", "CCCC", "C1CCCCC1", "CCOCC", "c1ccncc1", "CCCl", "CCBr", "CC#N", "OCCO"]
SHARES = {"val_fraction": 0.2, "test_fraction": 0.2}


def refused(make):
    """The message of a refusal; anything else that is raised is a fault of ours."""
    with pytest.raises(QuintetError) as caught:
        make().setup("fit")
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


# Tables of molecules


def table(row, header="smiles,y"):
    return "\n".join([header, *(row(number, text) for number, text in enumerate(SMILES)), ""])


def molecules(tmp_path, content, ending=".csv", **options):
    path = tmp_path / f"a{ending}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Molecules(path, **SHARES, **options)


PLAIN = table(lambda n, s: f"{s},{n}.5")
VALUES = [number + 0.5 for number in range(12)]
READ = {
    "plain": PLAIN,
    "BOM": b"\xef\xbb\xbf" + PLAIN.encode(),
    "Windows": PLAIN.replace("\n", "\r\n"),
    "empty rows": PLAIN.replace("CCBr", "\n,\n\nCCBr") + "\n,\n  \n",
    "capitals": PLAIN.replace("smiles,y", "SMILES,y"),
    "quoted line ends": table(lambda n, s: f'{s},"two\nlines",{n}.5', "smiles,note,y"),
    "quotation marks": table(lambda n, s: f'"{s}","{n}.5"'),
    "blanks": table(lambda n, s: f" {s} , {n}.5 "),
    "one atom": PLAIN.replace("CCCC,", "C,"),
    "semicolons": PLAIN.replace(",", ";"),
    "first column without a name": table(lambda n, s: f"{n},{s},{n}.5", ",smiles,y"),
}


@pytest.mark.parametrize("name", READ)
def test_tables_are_read_as_they_were_meant(tmp_path, name):
    data = molecules(tmp_path, READ[name])
    found = data.usable()
    assert found.roles.targets == ["y"]
    assert found.targets.values[:, 0].tolist() == VALUES
    assert len(found.molecules.positions) == 12
    assert sum(map(len, found.parts.values())) == 12


REFUSED = {
    "two columns of SMILES": (table(lambda n, s: f"{s},{s},{n}", "smiles,canonical_smiles,y"), "data.smiles=COLUMN"),
    "smiles and SMILES": (table(lambda n, s: f"{s},{s},{n}", "smiles,SMILES,y"), "data.smiles=COLUMN"),
    "thousands": (table(lambda n, s: f'{s},"1,{n:03}"'), "column 'y' has a number with marks between its thousands"),
    "decimal commas": (
        table(lambda n, s: f"{s};1,{n % 2}", "smiles;y"),
        "column 'y' has a number with a comma for its",
    ),
    "one comma": (PLAIN.replace("3.5", '"3,5"'), "row 5 has '3,5' in the column 'y', a number with a comma for its"),
    "units": (table(lambda n, s: f"{s},{n % 2}.2 uM"), "column 'y' has a number with its unit, 'uM', e.g. '0.2 uM'"),
    "per cent": (table(lambda n, s: f"{s},{n % 2}%"), "a number with its unit, '%'"),
    "errors": (table(lambda n, s: f"{s},{n % 2}.1 ± 0.2"), "a number with its error"),
    "a bound": (PLAIN.replace("3.5", ">10"), "row 5 has '>10' in the column 'y', a bound where a number is meant"),
    "bounds": (table(lambda n, s: f"{s},{'>10' if n < 7 else n}"), "column 'y' has a bound where a number is meant"),
    "a word": (PLAIN.replace("3.5", "bad"), "row 5 has 'bad' in the column 'y', no number"),
    "beyond float32": (PLAIN.replace("3.5", "1e300"), "row 5 has '1e300' in the column 'y', a number beyond 1e+30"),
    "beyond float64": (PLAIN.replace("3.5", "1e400"), "row 5 has '1e400'"),
    "Latin-1": (PLAIN.replace("CCO,", "Säure,").encode("latin-1"), "line 2 is not in UTF-8; save the file in UTF-8"),
    "UTF-16": (PLAIN.encode("utf-16"), "export it as CSV in UTF-8"),
    "old Mac": (PLAIN.replace("\n", "\r"), "ends its lines with carriage returns alone; save it"),
    "a name twice": (table(lambda n, s: f"{s},{n},{n}", "smiles,y,y"), "several columns called 'y'"),
    "no header": (PLAIN.split("\n", 1)[1].replace("CCO,", "CCOCCC,"), "has no header"),
    "a comment": ("# of our own\n" + PLAIN, "remove the lines before the header"),
    "a spreadsheet's note": ("sep=,\n" + PLAIN, "line 1 is 'sep=,', which is a note to a spreadsheet; remove it"),
    "a longer row": (PLAIN.replace("3.5", "3.5,7"), "row 5 has 3 cells and the header 2"),
    "an open quotation mark": (PLAIN.replace("3.5", '"3.5'), "row 5 has '3.5"),
    "no molecule": (PLAIN.replace("CCCC,", "C(C,"), "row 6 has 'C(C', which is no molecule: extra open parentheses"),
    "no molecules": (table(lambda n, s: f"Q{n},1"), "row 2 has 'Q0', which is no molecule"),
    "empty": ("", "is empty"),
    "a header alone": ("smiles,y\n", "has no rows"),
    "no target": (table(lambda n, s: f"{s},"), "has no column to be predicted"),
    "one class": (table(lambda n, s: f"{s},red", "smiles,class"), "has fewer than two classes"),
    "one label": (table(lambda n, s: f"{s},1"), "column 'y' is 1 in every training row"),
    "a constant": (table(lambda n, s: f"{s},3.3"), "column 'y' is 3.3 in every training row"),
    "two molecules": ("smiles,y\nCCO,1\nCCN,2\n", "leaves no molecule for val of 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_are_refused(tmp_path, name):
    content, words = REFUSED[name]
    options = {"targets": "class"} if "class" in words else {}
    message = refused(lambda: molecules(tmp_path, content, **options))
    assert words in message
    assert str(tmp_path / "a.csv") in message


def test_a_column_that_is_empty_is_named(tmp_path):
    words = refused(lambda: molecules(tmp_path, table(lambda n, s: f"{s},NaN"), targets="y"))
    assert "column 'y' is empty; leave it out of data.targets" in words


@pytest.mark.parametrize("ending", [".csv.gz", ".parquet", ".sdf", ".smi"])
def test_files_that_are_not_what_their_ending_says(tmp_path, ending):
    assert str(tmp_path) in refused(lambda: molecules(tmp_path, b"PK\x03\x04 nothing of the kind", ending))


def test_a_packed_table_that_is_cut(tmp_path):
    words = refused(lambda: molecules(tmp_path, gzip.compress(PLAIN.encode())[:-20], ".csv.gz"))
    assert "ends in the middle of what was packed; copy it again" in words


@pytest.mark.parametrize("given", ["folder", "folder.csv", "missing.csv", "pipe.csv", "loop.csv", "n" * 5000 + ".csv"])
@pytest.mark.parametrize("kind", [Molecules, GraphFiles, GraphNodes, GraphLinks])
def test_paths_that_hold_no_file(tmp_path, given, kind):
    path = tmp_path / given
    if given.startswith("folder"):
        path.mkdir()
    elif given == "pipe.csv":
        os.mkfifo(path)
    elif given == "loop.csv":
        path.symlink_to(path)
    assert given in refused(lambda: kind(path))


def test_gaps_are_no_targets_and_such_rows_are_in_no_part(tmp_path):
    data = molecules(tmp_path, table(lambda n, s: f"{s},{'' if n % 3 == 0 else n}"))
    assert sum(map(len, data.usable().parts.values())) == 8
    assert any("4 rows without any target" in remark for remark in data.remarks())


def test_one_constant_label_beside_others_is_no_fault(tmp_path):
    found = molecules(tmp_path, table(lambda n, s: f"{s},{n % 2},0", "smiles,a,b")).usable()
    assert found.roles.targets == ["a", "b"]


def test_classes_are_the_same_with_and_without_a_point(tmp_path):
    data = molecules(tmp_path, table(lambda n, s: f"{s},{n % 2 + 1}{'.0' * (n > 5)}"), kind="classes")
    assert data.usable().targets.words == ["1", "2"]
    assert data.usable().targets.values[:, 0].tolist() == [0.0, 1.0] * 6


def test_labels_as_floats_are_labels(tmp_path):
    found = molecules(tmp_path, table(lambda n, s: f"{s},{n % 2}.0")).usable()
    assert (found.roles.kind, found.targets.values[:3, 0].tolist()) == ("labels", [0, 1, 0])


def test_units_may_be_meant_as_classes(tmp_path):
    found = molecules(tmp_path, table(lambda n, s: f"{s},{n % 2 + 1} mg"), kind="classes").usable()
    assert found.targets.words == ["1 mg", "2 mg"]


@pytest.mark.parametrize("option", [{"split": "time", "time": "when"}, {"split": "part"}, {"split": "random"}])
def test_molecules_are_said_to_stay_together_only_where_they_do(tmp_path, option):
    rows = table(lambda n, s: f"{s},{n},{n},{('train', 'val', 'test')[n % 3]}", "smiles,y,when,part")
    data = molecules(tmp_path, rows + "CCO,3,99,val\n", targets="y", **option)
    remark = next(remark for remark in data.remarks() if "stands in several rows" in remark)
    assert remark.endswith("they stay in one part") == (option == {"split": "random"})


def test_more_folds_than_molecules(tmp_path):
    assert "data.folds=30 is more than the 12" in refused(lambda: molecules(tmp_path, PLAIN, fold=29, folds=30))


def test_reading_a_table_leaves_the_limit_of_cells_as_it_was(tmp_path):
    before = csv.field_size_limit()
    molecules(tmp_path, PLAIN).usable()
    assert csv.field_size_limit() == before
    long = molecules(tmp_path, PLAIN.replace("CCO,0.5", f'CCO,0.5,"{"x" * 200_000}"').replace("y\n", "y,note\n", 1))
    assert long.source.frame["note"].iloc[0] == "x" * 200_000


@pytest.mark.parametrize("kind", ["index", "bytes", "category"])
def test_parquet_of_other_programs(tmp_path, kind):
    frame = pd.DataFrame({"smiles": SMILES, "y": VALUES})
    if kind == "bytes":
        frame["smiles"] = [text.encode() for text in SMILES]
    elif kind == "category":
        frame["smiles"] = pd.Categorical(SMILES)
    (frame.set_index("smiles") if kind == "index" else frame).to_parquet(tmp_path / "a.parquet")
    found = Molecules(tmp_path / "a.parquet", **SHARES).usable()
    assert found.table.frame[found.roles.smiles].tolist() == SMILES
    assert found.targets.values[:, 0].tolist() == VALUES


# SDF

V2000 = [Chem.MolToMolBlock(Chem.MolFromSmiles(text)) for text in SMILES]
V3000 = [Chem.MolToV3KMolBlock(Chem.MolFromSmiles(text)) for text in SMILES]


def sdf(blocks=V2000, end="$$$$\n", value=lambda n: f"{n}.5"):
    return "".join(f"{block}>  <y>\n{value(n)}\n\n{end}" for n, block in enumerate(blocks))


COUNTS = V2000[2].split("\n")[3]
SDF_READ = {
    "V2000": sdf(),
    "V3000": sdf(V3000),
    "no last terminator": sdf()[: -len("$$$$\n")],
    "Windows": sdf().replace("\n", "\r\n"),
    "BOM": "\ufeff" + sdf(),
}
SDF_REFUSED = {
    "no terminator": (
        sdf(end=""),
        "record 1 (line 1) holds several molecules: a line of '$$$$' has to stand behind each",
    ),
    "other counts": (sdf().replace(COUNTS, "  9  9" + COUNTS[6:], 1), "record 3 (line 29) is no molecule: its fourth"),
    "counts of letters": (sdf().replace(COUNTS, "  x  y" + COUNTS[6:], 1), "record 3 (line 29) is no molecule: its"),
    "V3000 counts": (sdf(V3000).replace("COUNTS 6 6", "COUNTS 9 9", 1), "record 3 (line 43) is no molecule: "),
    "cut": (sdf()[:900], "record 3 (line 29) is cut off: it has no 'M  END'"),
    "a bound": (sdf(value=lambda n: ">10" if n == 3 else n), "record 4 (line 50) has '>10' in the column 'y', a bound"),
    "two values": (sdf().replace("\n3.5\n", "\n3.5\n4.5\n"), "record 4 (line 50) has '3.5 4.5' in the column 'y'"),
    "old Mac": (sdf().replace("\n", "\r"), "ends its lines with carriage returns alone"),
    "text": ("hello", "holds no record that ends in 'M  END'; is it an SDF?"),
    "empty": ("", "holds no record"),
}


@pytest.mark.parametrize("name", SDF_READ)
def test_sdf_is_read(tmp_path, name):
    found = molecules(tmp_path, SDF_READ[name], ".sdf").usable()
    assert found.molecules.canonical == [Chem.CanonSmiles(text) for text in SMILES]
    assert found.targets.values[:, 0].tolist() == VALUES


@pytest.mark.parametrize("name", SDF_REFUSED)
def test_sdf_is_refused(tmp_path, name):
    content, words = SDF_REFUSED[name]
    assert words in refused(lambda: molecules(tmp_path, content, ".sdf"))


# Tables of nodes and edges

COUNT = 20


def nodes(cell=lambda n: n * 0.5, label=lambda n: n % 2, name=str, header="id,x,label"):
    return "\n".join([header, *(f"{name(n)},{cell(n)},{label(n)}" for n in range(COUNT)), ""])


def edges(name=str, rest="", header="source,target"):
    return "\n".join([header, *(f"{name(n)},{name((n + 1) % COUNT)}{rest}" for n in range(COUNT)), ""])


def folder(tmp_path, **files):
    for name, content in files.items():
        path = tmp_path / f"{name}.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def padded(number):
    return f"{number:03}"


NODES_READ = {
    "plain": (nodes(), edges(), 40),
    "ids that begin with 0": (nodes(name=padded), edges(padded), 40),
    "BOM": (b"\xef\xbb\xbf" + nodes().encode(), b"\xef\xbb\xbf" + edges().encode(), 40),
    "Windows": (nodes().replace("\n", "\r\n"), edges().replace("\n", "\r\n"), 40),
    "old Mac": (nodes().replace("\n", "\r"), edges().replace("\n", "\r"), 40),
    "empty rows": (nodes() + "\n,,\n\n", edges() + "\n,\n", 40),
    "another column of edges": (nodes(), edges(rest=",3", header="source,target,weight"), 40),
    "labels as floats": (nodes(label=lambda n: f"{n % 2}.0"), edges(), 40),
    "a loop and an edge twice": (nodes(), edges() + "3,3\n0,1\n", 43),
}


@pytest.mark.parametrize("name", NODES_READ)
def test_nodes_and_edges_are_read(tmp_path, name):
    of_nodes, of_edges, count = NODES_READ[name]
    data = GraphNodes(folder(tmp_path, nodes=of_nodes, edges=of_edges))
    data.setup("fit")
    assert list(data.description().classes) == ["0", "1"]
    assert data.tables.nodes.columns["x"].tolist() == [number * 0.5 for number in range(COUNT)]
    assert data.edges.ends.shape == (2, count)
    both = set(map(tuple, data.edges.ends.T.tolist()))
    assert {(0, 1), (1, 0), (19, 0)} <= both


NODES_REFUSED = {
    "a missing node": (nodes(), edges() + "3,99\n", "edges.csv row 22 has '99' in the column 'target', a node that"),
    "ids twice": (nodes() + "3,1.0,0\n", edges(), "nodes.csv row 22 names the node '3' again (row 5)"),
    "negative ids": (nodes(name=lambda n: n - 1), edges(lambda n: n - 1), "row 2 has '-1' in the column"),
    "float ids": (nodes(name=float), edges(), "nodes.csv row 2 has '0.0' in the column 'id', a number with a point"),
    "zeros of one file": (nodes(name=padded), edges(), "the nearest is '000'"),
    "mixed types": (nodes(label=lambda n: n % 2 if n else "red"), edges(), "nodes.csv row 2 has 'red' in the column"),
    "units": (
        nodes(lambda n: f"{n % 3} uM"),
        edges(),
        "nodes.csv row 2 has '0 uM' in the column 'x', a number with its",
    ),
    "commas": (nodes(lambda n: f'"{n % 3},5"'), edges(), "row 2 has '0,5' in the column 'x', a number with a comma"),
    "a bound": (nodes(lambda n: ">10" if n == 2 else n), edges(), "row 4 has '>10' in the column 'x', whose other"),
    "beyond float32": (nodes(lambda n: f"{n}e300"), edges(), "row 3 has 1e+300 in the column 'x'"),
    "infinite": (nodes(lambda n: f"{n + 1}e400"), edges(), "row 2 has an infinite number in the column 'x'"),
    "lines in a cell": (nodes(lambda n: '"b\nd"' if n == 2 else n), edges(), "has 'b d' in the column 'x'"),
    "a gap": (nodes(lambda n: "" if n == 2 else n), edges(), "row 4 has no number in the column 'x'"),
    "Latin-1": (nodes(label=lambda n: "ä").encode("latin-1"), edges(), "nodes.csv line 2 is not UTF-8"),
    "a name twice": (nodes(header="id,x,x"), edges(), "several columns called 'x'"),
    "a longer row": (nodes() + "77,1,1,1,1\n", edges(), "nodes.csv row 22 has 5 cells and the header 3"),
    "an open quotation mark": (nodes() + '77,"1,1\n', edges(), "row 22 opens a quotation mark that nothing closes"),
    "no nodes": ("", edges(), "nodes.csv is empty"),
    "no edges": (nodes(), "source,target\n", "edges.csv has no rows"),
    "no header": (nodes(), edges().split("\n", 1)[1], "edges.csv has no header"),
    "unknown columns": (nodes(), "a,b,c\n0,1,2\n", "data.edge_source"),
    "no label": (nodes(label=lambda n: ""), edges(), "the column 'label' is empty in every row"),
    "one class": (nodes(label=lambda n: "a"), edges(), "has one class in its training part"),
    "two nodes": ("id,label\n0,a\n1,b\n", "source,target\n0,1\n", "the val part has no node"),
}


@pytest.mark.parametrize("name", NODES_REFUSED)
def test_nodes_and_edges_are_refused(tmp_path, name):
    of_nodes, of_edges, words = NODES_REFUSED[name]
    assert words in refused(lambda: GraphNodes(folder(tmp_path, nodes=of_nodes, edges=of_edges)))


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (lambda n: 2, "the column 'label' is 2 in every training row"),
        (lambda n: "NA", "the column 'label' has no number in any row"),
        (lambda n: "bad" if n == 3 else n, "row 5 has 'bad' in the column 'label'"),
        (lambda n: f"{n}e300", "row 3 has 1e+300 in the column 'label'"),
    ],
)
def test_targets_of_nodes_are_refused(tmp_path, cell, words):
    root = folder(tmp_path, nodes=nodes(label=cell), edges=edges())
    assert words in refused(lambda: GraphNodes(root, targets=["label"]))


def test_words_that_look_like_numbers_are_words_where_it_is_said(tmp_path):
    data = GraphNodes(folder(tmp_path, nodes=nodes(lambda n: f"{n % 3} uM"), edges=edges()), words=["x"])
    data.setup("fit")
    assert data.description().node_words == {"x": ["0 uM", "1 uM", "2 uM"]}


def test_directions_are_kept_where_they_are_meant(tmp_path):
    data = GraphNodes(folder(tmp_path, nodes=nodes(), edges=edges()), directed=True)
    assert data.edges.ends.tolist() == [list(range(20)), [*range(1, 20), 0]]
    both = GraphNodes(tmp_path)
    assert any("data.directed=true" in remark for remark in both.remarks())


LINKS_REFUSED = {
    "two nodes": ("source,target\n0,1\n", "has no edge in the val part"),
    "every pair": ("source,target\n" + "".join(f"{i},{j}\n" for i in range(20) for j in range(i)), "hold out fewer"),
    "loops alone": ("source,target\n0,0\n1,1\n", "hold out fewer"),
    "an unknown part": (
        edges(rest=",train", header="source,target,split").replace("2,3,train", "2,3,trane"),
        "'trane'",
    ),
}


@pytest.mark.parametrize("name", LINKS_REFUSED)
def test_links_are_refused(tmp_path, name):
    of_edges, words = LINKS_REFUSED[name]
    assert words in refused(lambda: GraphLinks(folder(tmp_path, nodes=nodes(), edges=of_edges)))


# Many graphs


def many(tmp_path, cell=lambda n: n + 0.5, of_edges="", more=""):
    pairs = "".join(f"{2 * n},{2 * n + 1}{of_edges and f',{n}'}\n" for n in range(20))
    return folder(
        tmp_path,
        nodes="id,graph,x\n" + "".join(f"{n},{n // 2},{n}\n" for n in range(40)),
        edges=f"source,target{of_edges}\n{pairs}{more}",
        graphs="graph,y\n" + "".join(f"{n},{cell(n)}\n" for n in range(20)),
    )


GRAPHS_REFUSED = {
    "an edge of a graph without nodes": ({"of_edges": ",graph", "more": "0,1,99\n"}, "'0 of graph 99'"),
    "an edge between graphs": ({"more": "0,39\n"}, "edges.csv row 22 joins nodes of two graphs"),
    "thousands": (
        {"cell": lambda n: f'"1,{n:03}"'},
        "graphs.csv row 2 has '1,000' in the column 'y', a number with marks",
    ),
    "mixed types": ({"cell": lambda n: n if n % 2 else "high"}, "graphs.csv row 2 has 'high' in the column 'y'"),
    "a constant": ({"cell": lambda n: 3}, "the column 'y' is 3 in every training row"),
    "beyond float32": ({"cell": lambda n: f"{n}e300"}, "graphs.csv row 3 has 1e+300 in the column 'y'"),
}


@pytest.mark.parametrize("name", GRAPHS_REFUSED)
def test_many_graphs_are_refused(tmp_path, name):
    given, words = GRAPHS_REFUSED[name]
    assert words in refused(lambda: GraphFiles(many(tmp_path, **given), targets=["y"]))


def test_a_graph_without_nodes_is_refused(tmp_path):
    root = many(tmp_path)
    with (root / "graphs.csv").open("a") as file:
        file.write("77,3\n")
    assert "graphs.csv row 22 is the graph '77', of which nodes.csv has no node" in refused(
        lambda: GraphFiles(root, targets=["y"])
    )


def test_gaps_of_many_graphs_are_not_learnt_from(tmp_path):
    data = GraphFiles(many(tmp_path, lambda n: "" if n % 4 == 0 else n + 0.5), targets=["y"])
    data.setup("fit")
    assert [number for number in range(20) if np.isnan(data.measurements[number, 0])] == [0, 4, 8, 12, 16]
    assert np.isfinite(data.description().target_scale["y"]).all()


# GraphML

GRAPH = nx.path_graph(20)
nx.set_node_attributes(GRAPH, {n: "ab"[n % 2] for n in GRAPH}, "label")
nx.set_node_attributes(GRAPH, {n: n * 0.5 for n in GRAPH}, "x")
XML = "\n".join(nx.generate_graphml(GRAPH))
XML_REFUSED = {
    "a document type": ("<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + XML, "declares <!DOCTYPE"),
    "cut": (XML[:400], "cannot be read"),
    "empty": ("", "is empty"),
    "another format": ("<html><body>x</body></html>", "cannot be read"),
    "a missing node": (XML.replace('target="5"', 'target="77"'), "an edge from '4' to '77' and no node '77'; add the"),
    "a node twice": (XML.replace('<node id="5"', '<node id="4"'), "names the node '4' twice; name each once"),
    "a word among numbers": (XML.replace("0.5</data>", "x</data>", 1), "could not convert string to float: 'x'"),
    "depth": ("<a>" * 100_000, "cannot be read"),
}


def test_graphml_is_read(tmp_path):
    (tmp_path / "a.graphml").write_text(XML)
    data = GraphNodes(tmp_path / "a.graphml")
    data.setup("fit")
    assert list(data.description().classes) == ["a", "b"]
    assert data.edges.ends.shape == (2, 38)
    assert data.tables.nodes.columns["x"].tolist() == [number * 0.5 for number in range(20)]


@pytest.mark.parametrize("name", XML_REFUSED)
def test_graphml_is_refused(tmp_path, name):
    content, words = XML_REFUSED[name]
    (tmp_path / "a.graphml").write_text(content)
    assert words in refused(lambda: GraphNodes(tmp_path / "a.graphml"))


# TU


def collection(tmp_path, drop="", **files):
    whole = {
        "A": "".join(f"{2 * n + 1}, {2 * n + 2}\n{2 * n + 2}, {2 * n + 1}\n" for n in range(20)),
        "graph_indicator": "".join(f"{n // 2 + 1}\n" for n in range(40)),
        "graph_labels": "".join(f"{n % 2}\n" for n in range(20)),
        "node_labels": "".join(f"{n % 3}\n" for n in range(40)),
    }
    for name, text in (whole | files).items():
        if name != drop:
            (tmp_path / f"M_{name}.txt").write_text(text)
    return tmp_path


TU_REFUSED = {
    "no indicator": ({"drop": "graph_indicator"}, "has M_A.txt and no M_graph_indicator.txt"),
    "no labels": ({"drop": "graph_labels"}, "no column of what is to be predicted"),
    "a negative graph": ({"graph_indicator": "-1\n" * 40}, "row 1 has the graph -1; graphs are numbered from 1"),
    "a far graph": (
        {"drop": "graph_labels", "graph_indicator": "".join(f"{n // 2 + 1}\n" for n in range(39)) + "99999999999\n"},
        "row 40 has the graph 99999999999, and there are 40 nodes",
    ),
    "a graph beyond measure": ({"graph_indicator": "1e300\n" * 40}, "row 1 has a number beyond"),
    "a node beyond measure": ({"A": "1e300, 2\n"}, "M_A.txt row 1 has a number beyond"),
    "a broken node": ({"A": "1.5, 2\n"}, "M_A.txt row 1 is no whole number"),
    "fewer labels": ({"node_labels": "1\n" * 39}, "M_node_labels.txt has 39 rows for 40 nodes"),
    "beyond float32": ({"node_attributes": "1e300\n" + "1\n" * 39}, "has 1e+300 in the column 'node_attributes'"),
}


@pytest.mark.parametrize("name", TU_REFUSED)
def test_collections_are_refused(tmp_path, name):
    given, words = TU_REFUSED[name]
    assert words in refused(lambda: GraphFiles(collection(tmp_path, **given)))


def test_codes_of_many_digits_stay_apart(tmp_path):
    labels = "".join(f"{1234567 + n % 2}\n" for n in range(20))
    data = GraphFiles(collection(tmp_path, graph_labels=labels))
    data.setup("fit")
    assert list(data.description().classes) == ["1234567", "1234568"]


# Pickles


class Attack:
    def __reduce__(self):
        return os.system, ("touch OWNED",)


def planetoid(tmp_path, **files):
    x, y = scipy.sparse.csr_matrix(np.eye(20, 5)), np.eye(2)[np.arange(20) % 2]
    graph = defaultdict(list, {n: [(n + 1) % 20] for n in range(20)})
    whole = {"x": x[:6], "y": y[:6], "allx": x[:14], "ally": y[:14], "tx": x[14:], "ty": y[14:], "graph": graph}
    for name, value in (whole | files).items():
        content = value if isinstance(value, bytes) else pickle.dumps(value, 2)
        (tmp_path / f"ind.c.{name}").write_bytes(content)
    (tmp_path / "ind.c.test.index").write_text("\n".join(map(str, range(14, 20))))
    return tmp_path


def sparse(**changes):
    matrix = scipy.sparse.csr_matrix(np.eye(14, 5))
    for name, value in changes.items():
        setattr(matrix, name, value)
    return matrix


PICKLES_REFUSED = {
    "code in x": ({"x": Attack()}, "names posix.system"),
    "code in a graph": ({"graph": Attack()}, "names posix.system"),
    "code in an array": ({"ty": np.array([Attack()], object)}, "was refused: "),
    "bytes": ({"graph": b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."}, "names __builtin__.bytearray"),
    "itself": ({"graph": b"\x80\x02]q\x00h\x00a."}, "was refused: "),
    "a far column": ({"allx": sparse(indices=np.arange(5) + 100)}, "whose parts do not agree"),
    "a vast shape": ({"allx": sparse(_shape=(10**9, 10**9))}, "for which there is too little memory"),
    "a negative node": ({"graph": {0: [-5]}}, "leads from node 0 to node -5"),
    "cut": ({"allx": pickle.dumps(sparse(), 2)[:-30]}, "is damaged: it is no pickle that can be read to its end"),
    "empty": ({"graph": b""}, "is damaged"),
    "beyond float32": ({"allx": np.eye(14, 5) * 1e300}, "has inf in the column 'word 0'"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="names what POSIX has")
@pytest.mark.parametrize("name", PICKLES_REFUSED)
def test_pickles_are_refused(tmp_path, monkeypatch, name):
    given, words = PICKLES_REFUSED[name]
    monkeypatch.chdir(tmp_path)
    assert words in refused(lambda: GraphNodes(planetoid(tmp_path, **given)))
    assert not Path("OWNED").exists()


def test_planetoids_files_are_read(tmp_path):
    data = GraphNodes(planetoid(tmp_path))
    data.setup("fit")
    assert data.edges.ends.shape == (2, 40)
    assert {part: len(rows) for part, rows in data.parts.items()} == {"train": 6, "val": 8, "test": 6}


def graphs(y=lambda n: float(n), x=lambda n: torch.ones(3, 2) * n, ends=((0, 1), (1, 2))):
    return [Data(x=x(n), edge_index=torch.tensor(ends), y=torch.tensor([y(n)])) for n in range(20)]


PT_REFUSED = {
    "code": ([Attack()], "names posix.system"),
    "a foreign class": (torch.nn.Linear(2, 2), "which is no tensor and no Data of PyG"),
    "a dictionary": ({"a": 1}, "a list of PyG's Data is meant"),
    "an empty list": ([], "holds an empty list"),
    "a missing node": (graphs(ends=((0,), (9,))), "graph 0 has an edge from 0 to 9"),
    "a negative node": (graphs(ends=((0,), (-1,))), "graph 0 has an edge from 0 to -1"),
    "float nodes": (graphs(ends=((0.0,), (1.0,))), "of whole numbers is meant"),
    "NaN": (graphs(x=lambda n: torch.full((3, 2), float("nan"))), "graph 0 node 0 has no number in the column 'x 0'"),
    "infinite targets": (graphs(lambda n: float("inf")), "graph 0 has inf in the column 'y'"),
    "other widths": (graphs(x=lambda n: torch.ones(3, 2 + n % 2)), "graph 1 has 3 columns"),
}


@pytest.mark.parametrize("name", PT_REFUSED)
def test_files_of_pyg_are_refused(tmp_path, monkeypatch, name):
    content, words = PT_REFUSED[name]
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "a.pt")
    assert words in refused(lambda: GraphFiles(tmp_path / "a.pt"))
    assert not Path("OWNED").exists()


def test_whole_numbers_of_pyg_are_classes_and_others_are_targets(tmp_path):
    torch.save(graphs(lambda n: n % 2), tmp_path / "classes.pt")
    torch.save(graphs(), tmp_path / "numbers.pt")
    assert list(GraphFiles(tmp_path / "classes.pt").description().classes) == ["0", "1"]
    assert list(GraphFiles(tmp_path / "numbers.pt").description().target_scale) == ["y"]


# Options of a checkpoint


def test_only_options_of_the_checkpoint_are_inherited(tmp_path):
    from quintet.core.run.configuration import restored_objects
    from quintet.core.weights.described import description_of
    from quintet.core.weights.records import RECORD
    from quintet.graphs import GraphRegressor

    data = molecules(tmp_path, table(lambda n, s: f"{s},m{n},{n}.5", "smiles,code,y"), id="code")
    task = GraphRegressor(backbone="gps_tiny")
    task.adopt(task.describe(data))
    content = {RECORD: task.record() | {"data": description_of(data)}, "state_dict": task.state_dict()}
    (tmp_path / "new.csv").write_text("smiles,name\nCCO,ethanol\n")
    new = {"data.path": str(tmp_path / "new.csv")}
    restored = restored_objects(content, tmp_path / "a.ckpt", new, [])["data"]
    assert {"id", "val_fraction", "test_fraction"} == restored.inherited
    restored.adopt(task.description)
    assert restored.rows[0].named == {"name": "ethanol", "smiles": "CCO"}
    for name in ("id", "smiles"):
        typed = restored_objects(content, tmp_path / "a.ckpt", new | {f"data.{name}": "code"}, [])["data"]
        typed.adopt(task.description)
        with pytest.raises(QuintetError, match=rf"data\.{name}: .*new.csv has no column 'code'"):
            _ = typed.rows
