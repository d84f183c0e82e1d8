"""Tasks on whole graphs as plain tensors: what leaves the house says what the task says."""

import pytest
import torch

from quintet.core.run.export import traced, verified
from quintet.graphs import GraphClassifier, GraphRegressor, Molecules

SMALL = {"dim": 8, "depth": 1, "num_heads": 1}


@pytest.fixture
def task(table):
    data = Molecules(table, targets=["length", "mass"], split="random", test_fraction=0.3, encodings={"random_walk": 4})
    data.setup()
    torch.manual_seed(0)
    task = GraphRegressor(backbone_arguments=SMALL | {"encoding_dim": 2}, ensemble=2, baselines=False)
    task.adopt(data.description())
    return task.eval(), data


@pytest.mark.compilation
def test_a_graph_takes_molecules_of_any_size_and_gives_the_users_units(task):
    task, data = task
    deployable = task.deployable()
    program, note = traced(deployable)
    assert note == deployable.note == ""
    assert all(error < 1e-5 for _, error in verified(deployable, lambda inputs: list(program.module()(*inputs))))
    batch = data.datasets["train"].take(range(5))
    with torch.no_grad():
        expected = task(batch).double() * task.std + task.mean
        fields = [batch.ptr if name == "borders" else getattr(batch, name, None) for name in deployable.inputs]
        fields = [batch.ptr.diff() if own is None else own for own in fields]
        found = program.module()(*fields)
    torch.testing.assert_close(found[0].double(), expected.mean(0), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found[1].double(), expected.std(0), rtol=1e-4, atol=1e-4)
    assert deployable.outputs == ["predictions", "predictions_deviation"]
    assert deployable.about["targets"] == ["length", "mass"]


def test_a_classifier_gives_chances(table):
    table["what"] = ["long" if length > 4 else "short" for length in table["length"]]
    data = Molecules(table, targets=["what"], split="random")
    data.setup()
    task = GraphClassifier(backbone_arguments=SMALL, blend=True)
    task.adopt(data.description())
    deployable = task.eval().deployable()
    (found,) = deployable.module.eval()(*deployable.inputs.values())
    torch.testing.assert_close(found.sum(1), torch.ones(2))
    assert "blend" in deployable.note
    assert deployable.about["classes"] == ["long", "short"]
