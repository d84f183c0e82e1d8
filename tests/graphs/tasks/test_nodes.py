"""Classes of nodes: what is learned from, what is measured, what is written, and what stands beside it."""

import csv
from functools import partial

import lightning as L
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.graphs import GraphNodes, NodeClassifier
from quintet.graphs.data.neighbours import NeighbourSampler
from quintet.graphs.models import GPS
from quintet.graphs.tasks.node_pictures import contributions

TINY = {"dim": 8, "depth": 1, "num_heads": 2, "local": "gcn"}
NODES = 24


@pytest.fixture
def folder(tmp_path):
    """Two rings of twelve nodes, one red and one blue, with a bridge; the file lists the last node first."""
    rows = [["id", "weight", "kind", "label", "split"]]
    for node in range(NODES):
        side = node // 12
        part = ("train", "val", "test")[node % 3]
        rows.append([f"n{node}", side + 0.1 * (node % 5), "ab"[node % 2], ("red", "blue")[side], part])
    rows[1:] = rows[:0:-1]  # the order of the file, not of the names
    write(tmp_path / "nodes.csv", rows)
    edges = [(f"n{12 * side + step}", f"n{12 * side + (step + 1) % 12}") for side in (0, 1) for step in range(12)]
    write(tmp_path / "edges.csv", [["source", "target"], *edges, ("n0", "n12")])
    return tmp_path


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def task_of(**arguments):
    return NodeClassifier("gps_tiny", TINY, **{"lr": 0.02} | arguments)


def trainer_in(folder, **arguments):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, **quiet | {"enable_checkpointing": False} | arguments)


def adopted(folder, **arguments):
    data = GraphNodes(root=folder)
    data.setup("fit")
    task = task_of(**arguments)
    task.adopt(data.description())
    return task, data, data.store.take([0])


def test_each_stage_counts_its_own_nodes_alone(folder):
    task, _, batch = adopted(folder)
    assert torch.equal(task.train().asked(batch), batch.train_mask)
    task.eval()
    for part in ("val", "test"):
        task.part = part
        assert torch.equal(task.asked(batch), batch[f"{part}_mask"])


def test_labels_of_other_parts_change_no_training_loss(folder):
    torch.manual_seed(0)
    task, _, batch = adopted(folder)
    loss = task.step(batch).loss
    other = batch.clone()
    other.y = torch.where(batch.train_mask, batch.y, 1 - batch.y)
    assert torch.equal(task.step(other).loss, loss)
    other.y = torch.where(batch.val_mask, batch.y, 1 - batch.y)
    assert not torch.equal(task.step(other).loss, loss)


def test_accuracy_and_f1_are_those_of_scikit_learn(folder):
    torch.manual_seed(1)
    task, data, batch = adopted(folder)
    (measured,) = trainer_in(folder).test(task, data, verbose=False)
    with torch.no_grad():
        found = task.eval()(batch)[batch.test_mask].argmax(1)
    truth = batch.y[batch.test_mask]
    assert measured["test/accuracy"] == pytest.approx(accuracy_score(truth, found))
    assert measured["test/f1"] == pytest.approx(f1_score(truth, found, average="macro"))
    assert {"test/accuracy_label_propagation", "test/accuracy_mlp"} <= measured.keys()


def test_baselines_never_see_labels_of_the_test(folder):
    task, data, batch = adopted(folder)
    trainer = trainer_in(folder)
    trainer.test(task, data, verbose=False)
    before = dict(task._estimates)
    data.store.nodes["y"] = torch.where(batch.test_mask, 1 - batch.y, batch.y)
    trainer.test(task, data, verbose=False)
    for name, values in before.items():
        assert torch.equal(task._estimates[name], values)


def test_seeds_among_all_their_neighbours_are_told_as_in_the_whole_graph(folder):
    _, data, batch = adopted(folder)
    task = NodeClassifier(partial(GPS, **TINY, global_mixer=False), propagation=0)
    task.adopt(data.description())
    task.eval()
    seeds = batch.val_mask.nonzero().flatten().tolist()
    sampled = NeighbourSampler(data.store, (-1, -1)).take(seeds)
    with torch.no_grad():
        whole, part = task.step(batch), task.step(sampled)
    assert len(part.targets) == len(seeds)
    assert torch.linalg.norm(part.predictions - whole.predictions) < 1e-5


@pytest.mark.parametrize(("name", "value"), [("restart", 1.0), ("feature_dropout", -0.1), ("propagation", -1)])
def test_shares_out_of_range_are_refused(name, value):
    with pytest.raises(QuintetError, match=f"model.{name} is {value}"):
        task_of(**{name: value})


def test_numbers_are_refused(folder):
    data = GraphNodes(root=folder, targets=["weight"])
    data.setup("fit")
    with pytest.raises(QuintetError, match="targets are numbers"):
        task_of().adopt(data.description())


def test_dropped_features_leave_the_batch_as_it_was(folder):
    task, _, batch = adopted(folder, feature_dropout=0.5)
    before = batch.node_values.clone()
    first, second = task.train()(batch), task(batch)
    assert torch.equal(batch.node_values, before)
    assert not torch.equal(first, second)


def test_what_is_said_of_nodes_spreads(folder):
    task, _, batch = adopted(folder, propagation=3, restart=0.2)
    task.eval()
    with torch.no_grad():
        reached = start = task.network(batch).double()
        adjacency = torch.eye(NODES, dtype=torch.float64)
        adjacency[batch.edge_index[0], batch.edge_index[1]] = 1
        scale = adjacency.sum(1).rsqrt()
        for _ in range(3):
            reached = 0.8 * (scale[:, None] * adjacency * scale) @ reached + 0.2 * start
        assert torch.linalg.norm(task(batch).double() - reached) < 1e-5


def test_training_learns_writes_and_reads_back(folder):
    torch.manual_seed(0)
    data, task = GraphNodes(root=folder), task_of(propagation=2, lr=0.05)
    trainer = trainer_in(folder, max_epochs=40)
    trainer.fit(task, data)
    (measured,) = trainer.test(task, data, verbose=False)
    assert measured["test/accuracy"] == 1
    trainer.save_checkpoint(folder / "nodes.ckpt")
    pictures = dict(task.pictures())
    assert {"comparison", "confusion_matrix", "embeddings", "predictions"} == pictures.keys()

    task = load_task(folder / "nodes.ckpt")
    new = GraphNodes(root=folder)
    new.adopt(task.description)
    paths = task.predict(new, trainer_in(folder), folder / "out")
    assert [path.name for path in paths] == ["predictions.csv", "predictions.png"]
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["node"] for row in rows] == [f"n{node}" for node in range(NODES)][::-1]
    assert all(
        float(row["probability_red"]) + float(row["probability_blue"]) == pytest.approx(1, abs=2e-6) for row in rows
    )
    right = [row["class"] == ("red" if int(row["node"][1:]) < 12 else "blue") for row in rows]
    assert sum(right) >= NODES - 2
    with pytest.raises(QuintetError, match="exists and is not overwritten"):
        task.predict(new, trainer_in(folder), folder / "out")


def test_several_labels_with_gaps(folder):
    rows = [row.split(",") for row in (folder / "nodes.csv").read_text().splitlines()]
    for number, row in enumerate(rows):
        told = (
            ["big", "odd"] if number == 0 else ["", number % 2] if number % 4 == 0 else [int(number > 12), number % 2]
        )
        rows[number] = [row[0], row[1], row[4], *told]
    write(folder / "nodes.csv", rows)
    data = GraphNodes(root=folder, targets=["big", "odd"])
    task = task_of()
    (measured,) = trainer_in(folder).test(task, data, verbose=False)
    assert task.several
    assert {"test/roc_auc", "test/roc_auc_label_propagation", "test/roc_auc_mlp"} <= measured.keys()
    assert [name for name, _ in task.pictures()] == ["comparison", "embeddings"]


class Linear(nn.Module):
    """Two steps of a sum over neighbours, then W: what each node adds to a logit is known by hand."""

    def begin(self, batch):
        return batch.node_values.double(), {}

    def forward(self, batch):
        x, _ = self.begin(batch)
        for _ in range(2):
            x = x.index_add(0, batch.edge_index[1], x[batch.edge_index[0]])
        return x @ torch.tensor([[1.0, -2.0]], dtype=torch.float64)


def test_contributions_add_up_to_the_logit(folder):
    task, _, batch = adopted(folder)
    task.network = Linear()
    adds = contributions(task, batch, 3, 1)
    assert adds.sum() == pytest.approx(float(task(batch)[3, 1]))
    steps = torch.eye(NODES, dtype=torch.float64)
    steps[batch.edge_index[1], batch.edge_index[0]] += 1
    expected = -2 * (steps @ steps)[3] * batch.node_values[:, 0].double()
    assert torch.linalg.norm(adds - expected) < 1e-9
