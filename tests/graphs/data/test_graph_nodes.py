"""One graph of one's own whose nodes are classified."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintet.core.errors import QuintetError
from quintet.graphs.data.graph_nodes import GraphNodes
from quintet.graphs.data.node_parts import Shares, node_parts

NODES = """id,age,colour,label,split
a,1.5,red,x,train
b,2.5,blue,y,train
c,3.5,red,x,val
d,4.5,green,y,test
"""
EDGES = "source,target,weight\na,b,1.5\nb,c,2.5\nc,d,3.5\n"


@pytest.fixture
def folder(tmp_path):
    """Writes nodes.csv and edges.csv and gives their folder."""

    def write(nodes=NODES, edges=EDGES):
        for name, text in (("nodes", nodes), ("edges", edges)):
            if text is not None:
                (tmp_path / f"{name}.csv").write_text(text)
        return tmp_path

    return write


def many_nodes(count=40):
    """Nodes in a ring, two classes, no part given."""
    nodes = "id,size,kind\n" + "".join(f"{i:03d},{i % 7}.5,{'xy'[i % 2]}\n" for i in range(count))
    edges = "from,to\n" + "".join(f"{i:03d},{(i + 1) % count:03d}\n" for i in range(count))
    return nodes, edges


def the_batch(data, stage="fit"):
    data.setup(stage)
    loader = data.train_dataloader() if stage == "fit" else data.predict_dataloader()
    (batch,) = loader
    return batch


class TestOwnTables:
    def test_a_table_becomes_one_batch(self, folder):
        data = GraphNodes(folder(), ignore=[])
        batch = the_batch(data)
        known = data.description()
        assert known.node_words == {"colour": ["blue", "red"]}
        assert known.classes == {"x": 1, "y": 1}
        assert known.targets == ["label"]
        # Of the training nodes 1.5 and 2.5: mean 2, deviation a half.
        assert known.node_numbers == {"age": [2.0, 0.5]}
        assert batch.node_values.ravel().tolist() == [-1.0, 1.0, 3.0, 5.0]
        assert batch.node_categories.ravel().tolist() == [2, 1, 2, 0]
        assert batch.y.tolist() == [0, 1, 0, 1]
        assert batch.edge_index.T.tolist() == [[0, 1], [1, 2], [2, 3], [1, 0], [2, 1], [3, 2]]
        assert batch.train_mask.tolist() == [True, True, False, False]
        assert batch.val_mask.tolist() == [False, False, True, False]
        assert batch.test_mask.tolist() == [False, False, False, True]
        assert batch.node_row.tolist() == [0, 1, 2, 3]
        assert batch.seeds.tolist() == batch.train_mask.tolist()

    def test_directed_edges_stay_as_listed(self, folder):
        batch = the_batch(GraphNodes(folder(), directed=True))
        assert batch.edge_index.T.tolist() == [[0, 1], [1, 2], [2, 3]]
        assert np.allclose(batch.edge_values.ravel(), np.array([-1.0, 0.0, 1.0]) / np.std([0, 1, 2]), atol=1e-6)

    def test_ids_are_text(self, folder):
        nodes, edges = many_nodes()
        data = GraphNodes(folder(nodes, edges), label="kind")
        assert data.faults() == []
        assert [row.named["node"] for row in data.rows[:2]] == ["000", "001"]

    def test_parts_are_drawn_where_none_is_given(self, folder):
        nodes, edges = many_nodes()
        data = GraphNodes(folder(nodes, edges), label="kind")
        assert {part: len(rows) for part, rows in data.parts.items()} == {"train": 24, "val": 8, "test": 8}

    def test_a_column_that_names_each_node_is_kept_and_not_learnt(self, folder):
        nodes, edges = many_nodes()
        lines = nodes.splitlines()
        named = [f"{lines[0]},person", *(f"{line},p{number}" for number, line in enumerate(lines[1:]))]
        data = GraphNodes(folder("\n".join(named), edges), label="kind")
        assert data.features.nodes == ["size"]
        assert data.rows[3].named == {"node": "003", "person": "p3"}
        assert any("'person'" in text for text in data.remarks())

    def test_neighbourhoods_are_served_where_fanouts_say_so(self, folder):
        nodes, edges = many_nodes()
        data = GraphNodes(folder(nodes, edges), label="kind", fanouts=[-1], batch_size=8)
        data.setup("fit")
        batches = list(data.train_dataloader())
        seeds = torch.cat([batch.node_row[batch.seeds] for batch in batches])
        assert sorted(seeds.tolist()) == data.parts["train"].tolist()
        whole = data.store
        assert all(torch.equal(batch.y, whole.nodes["y"][batch.node_row]) for batch in batches)

    def test_encodings_become_fields(self, folder):
        data = GraphNodes(folder(), encodings={"random_walk": 2})
        # From the ends of a path of four nodes one comes back after two steps half the time, from the others 3/4.
        assert the_batch(data).random_walk[:, 1].tolist() == [0.5, 0.75, 0.75, 0.5]

    def test_numbers_are_predicted(self, folder):
        nodes, edges = many_nodes()
        data = GraphNodes(folder(nodes, edges), targets=["size"], ignore=["kind"])
        batch = the_batch(data)
        assert batch.y.shape == (40, 1)
        sizes = np.array([i % 7 + 0.5 for i in data.parts["train"]])
        assert np.allclose(data.description().target_scale["size"], [sizes.mean(), sizes.std()])
        assert data.counts_edges
        assert data.description().node_numbers == {"degree": [2.0, 1.0]}

    def test_parquet_and_tsv(self, tmp_path):
        parts = ["train", "train", "val", "test"]
        nodes = pd.DataFrame({"id": [1, 2, 3, 4], "label": list("xyxy"), "split": parts})
        nodes.to_parquet(tmp_path / "nodes.parquet")
        (tmp_path / "edges.tsv").write_text("src\tdst\n1\t2\n2\t3\n")
        data = GraphNodes(tmp_path)
        assert data.faults() == []
        assert data.tables.ends.T.tolist() == [[0, 1], [1, 2]]

    def test_edges_alone_make_their_nodes(self, folder):
        data = GraphNodes(folder(nodes=None))
        assert list(data.tables.nodes.names) == ["a", "b", "c", "d"]
        assert "no column of what is to be predicted" in data.faults()[0].what


class TestNewFiles:
    def test_are_read_as_the_model_was_trained(self, folder):
        known = GraphNodes(folder()).description()
        new = "id,colour,age\nz,red,2.5\ny,pink,1.5\n"
        data = GraphNodes(folder(new, "source,target,weight\nz,y,1.5\n"))
        data.adopt(known)
        batch = the_batch(data, "predict")
        assert batch.node_values.ravel().tolist() == [1.0, -1.0]
        assert batch.node_categories.ravel().tolist() == [2, 0]
        assert batch.y.tolist() == [-1, -1]
        assert [row.text for row in data.rows] == ["z", "y"]
        assert any("unknown to training, e.g. 'pink'" in text for text in data.remarks())

    @pytest.mark.parametrize(
        ("nodes", "match"),
        [
            ("id,age\nz,1.5\n", "no column 'colour', which the model reads"),
            ("id,age,colour\nz,old,red\n", "words in the column 'age', where the model was trained on numbers"),
        ],
    )
    def test_columns_must_be_those_of_training(self, folder, nodes, match):
        known = GraphNodes(folder()).description()
        data = GraphNodes(folder(nodes, "source,target,weight\nz,z,1.5\n"))
        data.adopt(known)
        with pytest.raises(QuintetError, match=match):
            data.setup("predict")

    def test_words_that_look_like_numbers_stay_words(self, folder):
        nodes = NODES.replace("red", "c1").replace("blue", "02").replace("green", "x")
        known = GraphNodes(folder(nodes)).description()
        data = GraphNodes(folder("id,age,colour\nz,1.5,02\n", "source,target,weight\nz,z,1\n"))
        data.adopt(known)
        assert the_batch(data, "predict").node_categories.tolist() == [[1]]

    def test_classes_unknown_to_the_model_cannot_be_tested(self, folder):
        known = GraphNodes(folder()).description()
        data = GraphNodes(folder(NODES.replace("green,y", "green,z")))
        data.adopt(known)
        with pytest.raises(QuintetError, match=r"row 5 has the class 'z'; the model knows x, y"):
            data.setup("test")


BAD = {
    "edge to a missing node": (
        NODES,
        EDGES + "d,q,1\n",
        r"edges.csv row 5 has 'q' in the column 'target', a node that n",
    ),
    "duplicate ids": (NODES + "a,1.5,red,x,train\n", EDGES, r"nodes.csv row 6 names the node 'a' again \(row 2\)"),
    "negative ids": (NODES.replace("d,4", "-4,4"), EDGES, r"nodes.csv row 5 has '-4' in the column 'id', a negative"),
    "float ids": (NODES.replace("d,4", "4.0,4"), EDGES, r"nodes.csv row 5 has '4.0' in the column 'id', a number with"),
    "empty ids": (NODES.replace("d,4", ",4"), EDGES.replace("c,d,3.5\n", ""), r"nodes.csv row 5 has no 'id'"),
    "empty end": (NODES, EDGES + ",a,1\n", r"edges.csv row 5 has no 'source'"),
    "zeros in front": (
        "id,label\n001,x\n002,y\n",
        "source,target\n001,2\n",
        r"edges.csv row 2 has '2' .* nearest is '002': ids are compared as text",
    ),
    "mixed types": (NODES.replace("3.5", "old"), EDGES, r"nodes.csv row 4 has 'old' in the column 'age', whose other"),
    "missing number": (NODES.replace("3.5", "NA"), EDGES, r"nodes.csv row 4 has no number in the column 'age'"),
    "empty file": ("", EDGES, r"nodes.csv is empty"),
    "header alone": ("id,label\n", EDGES, r"nodes.csv has no rows"),
    "no header": ("1,2\n3,4\n", EDGES, r"nodes.csv has no header"),
    "no ids": (NODES.replace("id,", "person,"), EDGES, r"nodes.csv has no column that names its nodes"),
    "no ends": (NODES, "first,second,third\na,b,c\n", r"edges.csv has no columns that say which nodes an edge joins"),
    "two columns of a name": (NODES.replace("age", "id"), EDGES, r"several columns called 'id'"),
    "no class": (NODES.replace(",x,train", ",,train"), EDGES, r"has one class in its training part \(y\)"),
    "a part's class is empty": (NODES.replace(",x,val", ",,val"), EDGES, r"row 4 is in the val part and has no class"),
    "unseen class": (
        NODES.replace("green,y", "green,z"),
        EDGES,
        r"row 5 has the class 'z', which no training node has",
    ),
    "unknown part": (
        NODES.replace("x,val", "x,hold"),
        EDGES,
        r"row 4 has 'hold' in the column 'split'; parts are called",
    ),
}


class TestBadInput:
    @pytest.mark.parametrize(("nodes", "edges", "match"), BAD.values(), ids=BAD.keys())
    def test_is_told_in_a_line_that_names_file_and_row(self, folder, nodes, edges, match):
        with pytest.raises(QuintetError, match=match) as raised:
            GraphNodes(folder(nodes, edges)).setup("fit")
        assert str(raised.value).count("\n") <= 1

    @pytest.mark.parametrize(
        ("cells", "match"),
        [
            ("1.5,2.5,much,4.5", r"nodes.csv row 4 has 'much' in the column 'mass', whose other cells are numbers"),
            (",,,", r"the column 'mass' has no number in any row"),
            ("a,b,c,d", r"has 'a' in the column 'mass', which is to be predicted as a number; .*data.label=mass"),
        ],
    )
    def test_targets_without_numbers(self, folder, cells, match):
        lines = [line + f",{cell}" for line, cell in zip(NODES.splitlines(), ["mass", *cells.split(",")], strict=True)]
        with pytest.raises(QuintetError, match=match):
            GraphNodes(folder("\n".join(lines)), targets=["mass"]).setup("fit")

    def test_decimals_are_no_classes(self, folder):
        with pytest.raises(QuintetError, match=r"row 2 has 1.5 in the column of classes 'age'.*data.targets=\[age\]"):
            GraphNodes(folder(), label="age").setup("fit")

    def test_gaps_can_be_filled_by_the_training_mean(self, folder):
        batch = the_batch(GraphNodes(folder(NODES.replace("3.5", "NA")), gaps="mean"))
        assert batch.node_values[2].item() == 0.0

    def test_loops_and_repeated_edges_are_kept_and_said(self, folder):
        edges = EDGES + "a,a,1\na,b,2\n"
        data = GraphNodes(folder(edges=edges))
        assert the_batch(data).edge_index.shape[1] == 2 * 4 + 1
        said = " ".join(data.remarks())
        assert "1 edges lead from a node to itself, the first in" in said
        assert "1 edges are listed again" in said
        assert "edges.csv row 5: kept" in said
        dropped = GraphNodes(folder(edges=edges), self_loops="drop", repeated="drop")
        assert the_batch(dropped).edge_index.shape[1] == 2 * 3

    def test_directions_are_said(self, folder):
        assert any("listed in one direction" in text for text in GraphNodes(folder()).remarks())
        both = EDGES + "b,a,1.5\nc,b,2.5\nd,c,3.5\n"
        assert any("listed in both directions" in text for text in GraphNodes(folder(edges=both)).remarks())
        some = GraphNodes(folder(edges=EDGES + "b,a,9\n"))
        assert any("1 edges are listed in both directions, 2 in one" in text for text in some.remarks())
        assert the_batch(some).edge_index.shape[1] == 6

    def test_label_and_targets_exclude_each_other(self, folder):
        with pytest.raises(QuintetError, match="give one of the two"):
            GraphNodes(folder(), label="label", targets=["age"])


class TestParts:
    @given(st.lists(st.sampled_from(["x", "y", None]), min_size=1, max_size=60), st.integers(0, 5))
    def test_are_disjoint_and_complete(self, classes, seed):
        classes = np.array(classes, dtype=object)
        parts = node_parts(classes, None, Shares(0.3, 0.3), seed)
        together = np.concatenate(list(parts.values()))
        assert sorted(together) == [row for row, name in enumerate(classes) if name is not None]

    @given(st.integers(1, 4), st.integers(0, 5))
    def test_so_many_of_each_class(self, count, seed):
        classes = np.array(["x", "y", "z"] * 20, dtype=object)
        parts = node_parts(classes, None, Shares(10, 0.5, count), seed)
        assert pd.Series(classes[parts["train"]]).value_counts().to_dict() == dict.fromkeys("xyz", count)
        assert len(parts["val"]) == 10
        assert len(parts["test"]) == (60 - 3 * count) // 2
        assert len(set(np.concatenate(list(parts.values())))) == sum(map(len, parts.values()))

    def test_more_than_there_are_is_refused(self):
        with pytest.raises(QuintetError, match="ask for 500 nodes; 2 are left"):
            node_parts(np.array(["x", "y", "x", "y"], dtype=object), None, Shares(500, 0.0, 1), 0)


class TestCora:
    def test_words_are_shares_of_their_node(self, shared_data):
        data = GraphNodes(shared_data("graphs_planetoid_cora_citeseer"), "cora")
        batch = the_batch(data)
        assert torch.allclose(batch.node_values.sum(1), torch.ones(2708))
        assert [int(batch[f"{part}_mask"].sum()) for part in ("train", "val", "test")] == [140, 500, 1000]
        assert data.description().sizes["node_values"] == 1433

    def test_several_graphs_in_a_folder_are_listed(self, shared_data):
        with pytest.raises(QuintetError, match=r"choose one with data\.name: citeseer, cora"):
            GraphNodes(shared_data("graphs_planetoid_cora_citeseer")).setup("fit")


class TestTrainedOtherwise:
    def test_edges_are_treated_as_in_training(self, folder):
        known = GraphNodes(folder(), directed=True, self_loops="drop").description()
        data = GraphNodes(folder(edges=EDGES + "a,a,1\n"))
        data.adopt(known)
        assert the_batch(data, "predict").edge_index.shape[1] == 3

    def test_other_options_are_refused(self, folder):
        known = GraphNodes(folder(), directed=True).description()
        with pytest.raises(QuintetError, match=r"data.directed=False: this model was trained with data.directed=True"):
            GraphNodes(folder(), directed=False).adopt(known)

    def test_nodes_without_classes_can_be_predicted_whatever_the_shares(self, folder):
        nodes, edges = many_nodes()
        options = {"per_class": 3, "val_fraction": 10, "test_fraction": 10}
        known = GraphNodes(folder(nodes, edges), label="kind", **options).description()
        new = "\n".join(line.rsplit(",", 1)[0] for line in nodes.splitlines())
        data = GraphNodes(folder(new, edges), **options)
        data.adopt(known)
        assert the_batch(data, "predict").seeds.all()
