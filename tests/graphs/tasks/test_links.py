"""Links that are missing: what training hides, what is measured, what stands beside it and what is written."""

import csv
import math
from dataclasses import dataclass, field

import lightning as L
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.data import Dataset
from torch_geometric.data import Batch
from torchmetrics.classification import BinaryAUROC

from quintet.core.data.module import DataModule
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.graphs import GraphDescription, LinkPredictor
from quintet.graphs.data.rows import Row
from quintet.graphs.models.neighbourhood_scores import NeighbourhoodScores
from quintet.graphs.models.pair_decoders import DotProduct, HadamardNetwork
from quintet.graphs.tasks.link_files import read_pairs, top_candidates
from quintet.graphs.tasks.links import _scored_by, between, pair_names, pairs_apart
from quintet.graphs.tasks.tested import Tested, against_best

TINY = {"dim": 8, "depth": 1, "num_heads": 2, "local": "gcn"}
NODES = 12


@dataclass
class Known:
    """Two cliques of six nodes without a few of their edges, which are held out."""

    held: list = field(default_factory=lambda: [(0, 1), (2, 3), (6, 7), (8, 9)])
    others: list = field(default_factory=lambda: [(0, 6), (1, 7), (2, 8), (5, 11), (3, 10)])

    def batch(self) -> Batch:
        cliques = [(u, v) for u in range(NODES) for v in range(u) if u // 6 == v // 6 and (v, u) not in self.held]
        edges = torch.tensor(cliques).T
        return Batch(
            edge_index=torch.cat([edges, edges.flip(0)], 1),
            edge_values=torch.arange(2.0 * edges.shape[1])[:, None],
            node_values=torch.eye(NODES)[:, :2] + torch.arange(NODES)[:, None] // 6,
            batch=torch.zeros(NODES, dtype=torch.long),
            ptr=torch.tensor([0, NODES]),
            candidates=torch.tensor(self.held + self.others).T,
            linked=torch.tensor([1] * len(self.held) + [0] * len(self.others)),
        )


class One(Dataset):
    """One graph."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return 0


class Links(DataModule):
    """What a data module of links hands out."""

    files = None

    def prepare(self, stages):
        self.datasets |= dict.fromkeys(stages, One())

    def collate(self):
        return lambda _: Known().batch()

    def description(self):
        numbers = {"a": [0.0, 1.0], "b": [0.0, 1.0]}
        return GraphDescription("links", node_numbers=numbers, edge_numbers={"c": [0.0, 1.0]}, largest=NODES)

    @property
    def rows(self):
        return [Row(number, named={"id": f"n{number}"}) for number in range(NODES)]


def task_of(**arguments):
    task = LinkPredictor("gps_tiny", TINY, **{"dim": 4, "lr": 0.02} | arguments)
    task.adopt(Links().description())
    return task


def trainer_in(folder, **arguments):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, **quiet | {"enable_checkpointing": False} | arguments)


def test_what_a_step_asks_for_it_does_not_show():
    task, whole = task_of(hidden=0.4), Known().batch()
    loop = torch.full((2, 1), 5)
    whole.edge_index = torch.cat([whole.edge_index, loop], 1)
    whole.edge_values = torch.cat([whole.edge_values, torch.full((1, 1), -1.0)])
    left, pairs, linked = task._hidden(whole)
    assert (pairs[0] != pairs[1]).all()
    distinct = len(pair_names(whole.edge_index, NODES).unique()) - 1
    asked = pair_names(pairs[:, linked == 1], NODES)
    assert len(asked) == round(0.4 * distinct)
    assert not torch.isin(pair_names(left.edge_index, NODES), asked).any()
    assert left.edge_index.shape[1] == whole.edge_index.shape[1] - 2 * len(asked)
    # What belongs to an edge stays with it.
    values = dict(zip(map(tuple, whole.edge_index.T.tolist()), whole.edge_values.flatten().tolist()))
    assert [values[tuple(edge)] for edge in left.edge_index.T.tolist()] == left.edge_values.flatten().tolist()
    assert whole.edge_values.shape[0] == whole.edge_index.shape[1]


def test_pairs_that_are_none_are_different_nodes_without_an_edge():
    known = pair_names(Known().batch().edge_index, NODES).unique()
    drawn = pairs_apart(NODES, known, 20)
    assert not torch.isin(drawn, known).any()
    assert len(drawn) == 20
    assert (drawn // NODES < drawn % NODES).all()


def test_of_a_full_graph_there_are_none():
    pairs = torch.combinations(torch.arange(5)).T
    assert len(pairs_apart(5, pair_names(pairs, 5), 9)) == 0


def test_measures_are_those_of_scikit_learn(tmp_path):
    torch.manual_seed(0)
    task, batch = task_of(), Known().batch()
    (measured,) = trainer_in(tmp_path).test(task, Links(), verbose=False)
    with torch.no_grad():
        scores = task.eval()(batch, batch.candidates)
    assert measured["test/roc_auc"] == pytest.approx(roc_auc_score(batch.linked, scores))
    assert measured["test/average_precision"] == pytest.approx(average_precision_score(batch.linked, scores))
    shared = NeighbourhoodScores(batch.edge_index, NODES).common_neighbours(batch.candidates)
    assert measured["test/roc_auc_common_neighbours"] == pytest.approx(roc_auc_score(batch.linked, shared))
    assert measured["test/hits_at_10"] != measured["test/hits_at_10"]  # of five others there is no tenth
    assert [name for name, _ in task.pictures()] == ["comparison_roc_auc", "comparison_mrr", "scores", "embeddings"]


def test_scores_come_between_zero_and_one_in_their_order():
    scores = torch.tensor([-1e6, -3.0, 0.0, 0.5, 50.0, 51.0, 1e6])
    found = between(scores)
    assert (found.diff() > 0).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_pair_scores_the_same_either_way_and_decoders_are_what_they_say():
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 4, dtype=torch.float64)
    dot, network = DotProduct(4).double(), HadamardNetwork(4).double()
    for decoder in (dot, network):
        assert torch.equal(decoder(first, second), decoder(second, first))
    assert torch.linalg.norm(dot(first, second) - (first @ second.T).diagonal()) < 1e-12
    product = first * second
    hidden = (product @ network.feedforward.fc1.weight.T + network.feedforward.fc1.bias).clamp(min=0)
    added = product + hidden @ network.feedforward.fc2.weight.T + network.feedforward.fc2.bias
    expected = (added @ network.score.weight.T + network.score.bias)[:, 0]
    assert torch.linalg.norm(network(first, second) - expected) < 1e-12


@pytest.mark.parametrize(("name", "value"), [("hidden", 0.0), ("hidden", 1.0), ("dim", 0)])
def test_arguments_out_of_range_are_refused(name, value):
    with pytest.raises(QuintetError, match=f"model.{name} is {value}"):
        LinkPredictor(**{name: value})


def test_training_tells_cliques_apart_and_a_checkpoint_writes_what_is_asked_for(tmp_path):
    torch.manual_seed(0)
    task = LinkPredictor("gps_tiny", TINY, dim=4, decoder=HadamardNetwork, lr=0.03)
    trainer = trainer_in(tmp_path, max_epochs=60)
    trainer.fit(task, Links())
    (measured,) = trainer.test(task, Links(), verbose=False)
    assert measured["test/roc_auc"] > 0.9
    trainer.save_checkpoint(tmp_path / "links.ckpt")
    task = load_task(tmp_path / "links.ckpt")
    (tmp_path / "pairs.csv").write_text("source,target\nn0,n1\nn0,nobody\nn3,n3\n,n2\nn0,n6\n")
    (path,) = task.predict(Links(), trainer_in(tmp_path), tmp_path / "asked", pairs=str(tmp_path / "pairs.csv"))
    rows = list(csv.DictReader(path.open()))
    assert [row["problem"] for row in rows] == [
        "",
        "no node is called 'nobody'",
        "a node is not linked with itself",
        "an end is empty",
        "",
    ]
    assert [row["probability"] == "" for row in rows] == [False, True, True, True, False]
    assert float(rows[0]["probability"]) > float(rows[4]["probability"])

    (path,) = task.predict(Links(), trainer_in(tmp_path), tmp_path / "top", top=2)
    rows = list(csv.DictReader(path.open()))
    assert [row["source"] for row in rows] == [f"n{node}" for node in range(NODES) for _ in range(2)]
    known = {frozenset(edge) for edge in Known().batch().edge_index.T.tolist()}
    assert not {frozenset((int(row["source"][1:]), int(row["target"][1:]))) for row in rows} & known


def test_candidates_are_the_highest_that_are_no_edges():
    table = torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    edges = torch.tensor([[0, 1, 2], [3, 4, 5]])
    asked = top_candidates(lambda pairs: table[pairs[0], pairs[1]], edges, list("abcdefg"), 3)
    free = table.clone()
    free[edges[0], edges[1]] = free[edges[1], edges[0]] = -1
    free.fill_diagonal_(-1)
    expected = [(row, column) for row in range(7) for column in free[row].argsort(descending=True)[:3].tolist()]
    assert [pair.nodes for pair in asked] == expected


def test_a_table_without_ends_is_refused(tmp_path):
    (tmp_path / "pairs.csv").write_text("a,target\nx,y\n")
    with pytest.raises(QuintetError, match="has no column 'source'"):
        read_pairs(tmp_path / "pairs.csv", ["x", "y"])


def test_shared_neighbours_add_to_the_score_of_a_pair():
    task, plain = task_of(neighbours=True).eval(), task_of().eval()
    plain.load_state_dict(task.state_dict(), strict=False)
    batch, pairs = Known().batch(), torch.tensor([[0, 0, 0], [1, 6, 2]])
    # 0 and 1 share 2, 3, 4, 5; 0 and 6 none; 0 and 2 share 4 and 5, as 1 knows 2 but not 0, and 3 knows 0 but not 2.
    degrees = {2: 4, 3: 4, 4: 5, 5: 5}
    shared = [[2, 3, 4, 5], [], [4, 5]]
    rare = torch.tensor([sum(1 / math.log(degrees[node]) for node in nodes) for nodes in shared], dtype=torch.float64)
    count = torch.tensor([len(nodes) for nodes in shared], dtype=torch.float64)
    with torch.no_grad():
        added = (task(batch, pairs) - plain(batch, pairs)).double()
    assert torch.linalg.norm(added - (1 + count).log() - (1 + rare).log()) < 1e-5


def test_what_is_said_of_a_test_names_the_better_baseline_and_who_wins():
    truth = torch.tensor([1, 1, 1, 0, 0, 0] * 20)
    bad, good = torch.linspace(0, 1, 120), truth + torch.linspace(0, 0.5, 120)
    tested = Tested()
    tested.add(torch.arange(120), bad, truth, {"even": torch.zeros(120), "better": good})
    (comparison,) = against_best(tested, {"roc_auc": _scored_by(BinaryAUROC)}, "pairs")
    assert comparison.against == "better"
    assert comparison.sentence.startswith(f"the network does not beat better: roc_auc {roc_auc_score(truth, bad):.3f} ")
    assert f"against 1.000 (worse by {1 - roc_auc_score(truth, bad):.3f}, " in comparison.sentence
