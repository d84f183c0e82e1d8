"""The classifier of series: from one command to predictions and pictures, beside the nearest neighbour."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from quintet.cli import main
from quintet.core.attention import GatedLinearAttention
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.core.run.metrics_file import read_metrics
from quintet.timeseries import LabelledSeries, SeriesClassifier
from quintet.timeseries.models import PatchClassifier

SMALL = {"dim": 16, "depth": 1, "patch_size": 4, "stride": 2, "dropout": 0.0}


def write_problem(folder, train: int = 24, test: int = 12) -> None:
    """Two channels of 8 to 13 steps; the class is where the bump is."""
    for part, count, seed in (("TRAIN", train, 0), ("TEST", test, 1)):
        random, lines = np.random.default_rng(seed), []
        for number in range(count):
            values = 0.2 * random.normal(size=(2, 8 + number % 6))
            values[number % 2, 2:6] += 2
            text = ":".join(",".join(f"{value:.3f}" for value in channel) for channel in values)
            lines.append(f"{text}:{'first' if number % 2 == 0 else 'second'}")
        header = "@problemName Bumps\n@univariate false\n@dimensions 2\n@classLabel true first second\n@data\n"
        (folder / f"Bumps_{part}.ts").write_text(header + "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, working_in):
    """A folder with a problem and a run trained on it, `run`."""
    folder = tmp_path_factory.mktemp("classes")
    write_problem(folder)
    options = ["data.path=.", "run_dir=run", "trainer.max_epochs=15", "trainer.enable_progress_bar=false"]
    options += ["trainer=cpu", "model.backbone_arguments={filters:4,depth:3}", "data.batch_size=8"]
    with working_in(folder):
        assert main(["fit", "experiment=timeseries/classify", *options]) == 0
    return folder


def built(folder, **arguments):
    data = LabelledSeries(folder)
    data.setup()
    torch.manual_seed(0)
    task = SeriesClassifier(**{"backbone": "patch_classifier", "backbone_arguments": SMALL} | arguments)
    task.adopt(data.description())
    return task.eval(), data


def test_one_command_learns_and_stands_beside_the_neighbour(trained):
    last = read_metrics(trained / "run" / "metrics.csv")[-1]
    wanted = {"accuracy", "f1", "calibration_error", "loss", "accuracy_nearest_neighbor", "f1_nearest_neighbor"}
    assert {f"test/{name}" for name in wanted} <= set(last)
    assert last["test/accuracy"] >= 0.9
    names = {path.stem for path in (trained / "run" / "pictures").iterdir()}
    assert {"classes", "confusion_matrix", "learning_curves"} <= names
    assert names & {"predictions", "mistakes"}


def test_predictions_of_files_without_classes(trained, working_in):
    lines = (trained / "Bumps_TEST.ts").read_text().splitlines()
    header = ["@problemName New", "@univariate false", "@classLabel false", "@data"]
    body = [line.rsplit(":", 1)[0] for line in lines if not line.startswith("@")]
    (trained / "new.ts").write_text("\n".join([*header, *body]) + "\n")
    with working_in(trained):
        assert main(["predict", "ckpt_path=run/checkpoints/best.ckpt", "data.path=new.ts"]) == 0
    (table,) = (trained / "run").rglob("predictions.csv")
    found = pd.read_csv(table)
    assert list(found.columns) == ["series", "label", "probability_first", "probability_second"]
    assert found["series"].tolist() == [f"new {number}" for number in range(1, 13)]
    assert (found["label"] == ["first", "second"] * 6).mean() >= 0.9
    assert table.with_name("predictions.png").is_file()


def test_a_checkpoint_holds_the_neighbours_and_scores_are_those_of_scikit_learn(trained):
    task = load_task(trained / "run" / "checkpoints" / "best.ckpt")
    assert task.neighbor.series.isfinite().all()
    data = LabelledSeries(trained / "Bumps_TRAIN.ts")
    data.adopt(task.description)
    data.setup("test")
    batch = data.collate()([data.datasets["test"][index] for index in range(12)])
    with torch.no_grad():
        result = task.step(batch)
    metrics = task.metrics()
    metrics.update(result.predictions, result.targets)
    expected = f1_score(batch.label, result.predictions.argmax(1), average="macro")
    assert metrics.compute()["f1"].item() == pytest.approx(expected)


def test_a_series_is_classified_alike_in_any_batch(tmp_path):
    write_problem(tmp_path)
    task, data = built(tmp_path)
    samples = [data.datasets["train"][index] for index in range(6)]
    together, alone = data.collate()(samples), [data.collate()([one]) for one in samples]
    with torch.no_grad():
        whole = task(together.values, together.mask)
        single = torch.cat([task(one.values, one.mask) for one in alone])
    assert torch.allclose(whole, single, atol=1e-5)


def test_a_mixer_is_put_in(tmp_path):
    write_problem(tmp_path)
    task, _ = built(tmp_path, mixer=GatedLinearAttention)
    assert isinstance(task.network.tokens.encoder.blocks[0].mixer, GatedLinearAttention)


def test_balanced_weights(tmp_path):
    write_problem(tmp_path)
    task, data = built(tmp_path, class_weights="balanced")
    counts = torch.tensor(data.description().class_counts)
    assert torch.allclose(task.loss_weights * counts, torch.full((2,), float(counts.sum() / 2)))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"backbone": PatchClassifier(1, 2, dim=8)}, "model.backbone is a built PatchClassifier"),
        ({"label_smoothing": 1.0}, "model.label_smoothing is 1.0; it lies between 0 and 1"),
        ({"backbone": "itransformer", "backbone_arguments": {}}, "itransformer takes no"),
        ({"backbone_arguments": {"dept": 2}}, "patch_classifier takes no dept; nearest: depth"),
        (
            {"backbone": "inception_time", "backbone_arguments": {}, "mixer": GatedLinearAttention},
            "inception_time takes no mixer; give a backbone that does, such as patch_classifier",
        ),
        (
            {"backbone": partial(torch.nn.ReLU), "backbone_arguments": {}},
            "a classifier is called with channels and num",
        ),
    ],
)
def test_what_is_refused(tmp_path, arguments, complaint):
    write_problem(tmp_path)
    with pytest.raises(QuintetError, match=complaint) as caught:
        built(tmp_path, **arguments)
    assert len(str(caught.value).splitlines()) == 1
