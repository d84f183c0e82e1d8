"""Numbers of molecules: from one command to predictions in the user's units, beside what needs no network."""

import numpy as np
import pandas as pd
import pytest
import torch

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.core.run.metrics_file import read_metrics
from quintet.graphs import GraphRegressor, Molecules

QUIET = ["trainer=cpu", "trainer.enable_progress_bar=false"]
TINY = "{dim: 8, depth: 1, num_heads: 1, global_mixer: true}"
SMALL = {"dim": 8, "depth": 1, "num_heads": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, working_in, chains):
    """A folder with a table and a run, `run`, of two networks blended with the baselines."""
    folder = tmp_path_factory.mktemp("numbers")
    chains().to_csv(folder / "table.csv", index=False)
    options = ["data.path=table.csv", "data.targets=[length,mass]", "data.split=random", "run_dir=run"]
    options += [f"model.backbone_arguments={TINY}", "model.ensemble=2", "model.blend=true", "trainer.max_epochs=2"]
    options += ["data.descriptors=null", "data.val_fraction=0.25", "data.test_fraction=0.3", *QUIET]
    options += ["model.backbone=gps_tiny"]  # for the picture of its attention
    with working_in(folder):
        assert main(["fit", "experiment=graphs/molecules", *options]) == 0
    return folder


def built(table, **arguments):
    data = Molecules(table, targets=["length", "mass"], split="random", test_fraction=0.3)
    data.setup()
    torch.manual_seed(0)
    task = GraphRegressor(**{"backbone_arguments": SMALL, "baselines": False} | arguments)
    task.adopt(data.description())
    return task, data


def test_a_test_prints_the_network_the_blend_and_each_baseline(trained):
    last = read_metrics(trained / "run" / "metrics.csv")[-1]
    methods = ("", "_network", "_forest", "_boosting", "_nearest", "_mean")
    assert {f"test/{name}{method}" for name in ("mae", "rmse", "r2") for method in methods} <= set(last)
    assert {"test/rmse_length", "test/r2_mass"} <= set(last)
    # The length of a chain is seen in its descriptors, and two epochs of a tiny network see nothing.
    assert last["test/rmse"] < last["test/rmse_network"]
    assert last["test/rmse_forest"] < last["test/rmse_mean"]
    names = {path.stem for path in (trained / "run" / "pictures").iterdir()}
    assert {"parity", "comparison", "worst_median_best", "contributions_gradient", "contributions_masking"} <= names
    assert {"attention", "embeddings", "learning_curves"} <= names


def test_a_table_of_predictions_has_every_row_in_its_order(trained, working_in):
    rows = [("=1+1", "OCCO"), ("b", "C1CC"), ("c", ""), ("d", "NCCCF"), ("e", "[Xe]")]
    pd.DataFrame(rows, columns=["name", "smiles"]).to_csv(trained / "new.csv", index=False)
    with working_in(trained):
        assert main(["predict", "ckpt_path=run/checkpoints/best.ckpt", "data.path=new.csv", *QUIET[1:]]) == 0
    (path,) = (trained / "run").rglob("predictions.csv")
    found = pd.read_csv(path)
    columns = [f"{what}_{name}" for name in ("length", "mass") for what in ("predicted", "deviation")]
    assert list(found) == ["name", "smiles", *columns, "similarity_to_training", "problem"]
    assert found["name"].tolist() == ["'=1+1", "b", "c", "d", "e"]
    read = [True, False, False, True, True]
    assert found["problem"].isna().tolist() == read
    assert "ring" in found["problem"][1]
    assert found[columns].notna().all(axis=1).tolist() == read
    assert found["similarity_to_training"][4] == 0
    assert 0.3 < found["similarity_to_training"][3] <= 1
    assert path.with_name("predictions.png").is_file()
    again = load_task(trained / "run" / "checkpoints" / "best.ckpt").predict(pd.read_csv(trained / "new.csv"))
    np.testing.assert_allclose(again[columns].astype(float), found[columns], rtol=1e-5)


def test_plain_python_takes_smiles_and_paths_and_says_what_else(trained):
    task = load_task(trained / "run" / "checkpoints" / "best.ckpt")
    listed = task.predict(["OCCO", "nonsense", "NCCCF"])
    assert listed["predicted_mass"].isna().tolist() == [False, True, False]
    alone = task.predict(("NCCCF",))
    assert alone["predicted_mass"][0] == pytest.approx(listed["predicted_mass"][2], rel=1e-5)
    assert len(task.predict(trained / "table.csv")) == 63
    with pytest.raises(QuintetError, match="takes a table"):
        task.predict(3)


def test_embeddings_of_new_molecules(trained, working_in, table):
    table.head(5).to_csv(trained / "five.csv", index=False)
    with working_in(trained):
        assert main(["embed", "ckpt_path=run/checkpoints/best.ckpt", "data.path=five.csv", *QUIET[1:]]) == 0
    (path,) = (trained / "run").rglob("embeddings.parquet")
    found = pd.read_parquet(path)
    assert list(found) == ["row", "name", "smiles", "embedding"]
    assert found["row"].tolist() == [1, 2, 3, 4, 5]
    task, data = load_task(trained / "run" / "checkpoints" / "best.ckpt"), Molecules(trained / "five.csv")
    data.adopt(task.description)
    data.prepare(("predict",))
    batch = data.datasets["predict"].take(range(5))
    with torch.no_grad():
        expected = torch.cat([member.pool(batch, member.embed(batch)) for member in task.network.members], 1)
    np.testing.assert_allclose(np.stack(found["embedding"]), expected, atol=1e-5)
    assert path.with_name("embeddings.png").is_file()


def test_other_targets_are_learned_from_its_weights(trained, table):
    file = str(trained / "run" / "checkpoints" / "best.ckpt")
    source = load_task(file).network
    table["third"] = table["length"] * 2
    data = Molecules(table[["smiles", "third"]], targets=["third"], split="random")
    data.setup()
    options = {"backbone_arguments": SMALL, "pretrained": file, "baselines": False}
    task = GraphRegressor(**options, freeze=["backbone"], ensemble=2)
    task.adopt(data.description())
    own, head = task.network.state_dict(), [key for key in source.head_keys if key in source.state_dict()]
    last = [key for key in head if source.state_dict()[key].shape != own[key].shape]
    assert last
    for name, values in task.network.named_parameters():
        if name not in last:
            assert torch.equal(values, source.state_dict()[name]), name
    learning = {name.removeprefix("network.") for name, own in task.named_parameters() if own.requires_grad}
    assert learning == set(head)
    alone = GraphRegressor(**options, layer_decay=0.5)
    alone.adopt(data.description())
    assert torch.equal(
        alone.network.encoder.state_dict()["blocks.0.norm1.weight"],
        source.members[0].encoder.state_dict()["blocks.0.norm1.weight"],
    )
    assert alone.layer_groups()


def test_gaps_do_not_count_and_losses_are_of_standardised_targets(table):
    task, data = built(table, loss="squared")
    batch = data.datasets["train"].take(range(20))
    task.eval()
    result = task.step(batch)
    scale = torch.tensor(list(data.description().target_scale.values()))
    truth = (batch.y - scale[:, 0]) / scale[:, 1]
    known = truth.isfinite()
    assert int((~known).sum()) > 0
    torch.testing.assert_close(result.targets[known], truth[known])
    torch.testing.assert_close(result.loss, (result.predictions - truth)[known].square().mean())


def test_an_ensemble_is_its_members_and_their_spread(table):
    task, data = built(table, ensemble=3)
    task.eval()
    data.adopt(task.description)
    data.prepare(("predict",))
    task.source = data
    batch = data.datasets["predict"].take(range(6))
    with torch.no_grad():
        found = task.predict_step(batch, 0)
        each = torch.stack([member(batch) for member in task.network.members]).double() * task.std + task.mean
    torch.testing.assert_close(found.values, each.mean(0), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.deviations, each.std(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"ensemble": 0}, "ensemble"), ({"blend": True, "baselines": False}, "blend"), ({"backbone": "gps_tinny"}, "gps")],
)
def test_what_makes_no_sense_is_refused(table, arguments, message):
    with pytest.raises(QuintetError, match=message):
        built(table, **arguments)
