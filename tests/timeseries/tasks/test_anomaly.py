"""The anomaly detector: a threshold that no test row touches, scores of every row, found anomalies as a table."""

import numpy as np
import pandas as pd
import pytest
import torch

from quintet.cli import main
from quintet.core.attention import GatedLinearAttention
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.core.run.metrics_file import read_metrics
from quintet.timeseries import AnomalyData, AnomalyDetector
from quintet.timeseries.models import ITransformer
from quintet.timeseries.tasks.anomaly import RowErrors, measure

CHECKPOINT = "ckpt_path=run/checkpoints/best.ckpt"
SMALL = {"dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.0}
SPIKES = [330, 331, 332, 380, 381]  # rows of the test part


def frame_of(garbage: bool = False) -> pd.DataFrame:
    hours, noise = np.arange(400), np.random.default_rng(0).normal(size=(2, 400)) / 10
    columns = {"a": 10 + np.sin(np.pi * hours / 12) + noise[0], "b": 100 + 10 * np.cos(np.pi * hours / 12) + noise[1]}
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=400, freq="h"), **columns})
    frame.loc[SPIKES, "a"] += 4
    frame["label"] = frame.index.isin(SPIKES).astype(int)
    if garbage:
        frame.loc[300:, ["a", "b"]] = np.random.default_rng(1).normal(size=(100, 2)) * 1e5
        frame.loc[300:, "label"] = 1
    return frame


def fit(name: str, *more: str) -> int:
    options = [f"data.path={name}.csv", "data.context=24", "data.horizon=4", f"run_dir=run_{name}", "trainer=cpu"]
    options += ["data.split={val: 0.25, test: 0.25}", "trainer.max_epochs=3", "trainer.enable_progress_bar=false"]
    options += ["model.lr=5e-3", "model.backbone_arguments={dim:16,depth:1,num_heads:2}", *more]
    return main(["fit", "experiment=timeseries/anomaly", *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, working_in):
    """A folder with a table, the same with garbage for test rows, and a run on each."""
    folder = tmp_path_factory.mktemp("anomalies")
    frame_of().to_csv(folder / "clean.csv", index=False)
    frame_of(garbage=True).to_csv(folder / "garbage.csv", index=False)
    with working_in(folder):
        assert fit("clean") == 0
        assert fit("garbage") == 0
    return folder


@pytest.fixture
def run(trained, working_in):
    with working_in(trained):
        yield trained


def test_no_test_row_and_no_label_reaches_the_threshold(trained):
    ours, theirs = (load_task(trained / f"run_{name}" / "checkpoints" / "last.ckpt") for name in ("clean", "garbage"))
    assert ours.model_threshold.isfinite()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key]), key


def test_everything_is_measured_beside_the_baseline(trained):
    last = read_metrics(trained / "run_clean" / "metrics.csv")[-1]
    names = ("precision", "recall", "f1", "pr_auc", "vus_roc", "vus_pr", "point_adjusted_f1", "flagged")
    assert {f"test/{name}{of}" for name in names for of in ("", "_seasonal_naive")} <= set(last)
    assert last["test/anomalous"] == pytest.approx(0.05)
    assert last["test/pr_auc"] > 0.8
    assert last["test/point_adjusted_f1"] >= last["test/f1"]
    assert (trained / "run_clean" / "pictures" / "anomalies.png").stat().st_size > 10_000


def test_stamps_scores_and_flags_of_every_row(run):
    options = ["data.path=clean.csv", "output=found.csv"]
    assert main(["predict", CHECKPOINT.replace("run/", "run_clean/"), *options]) == 0
    found = pd.read_csv("found.csv", parse_dates=["date"])
    assert list(found.columns) == ["date", "score", "threshold", "anomaly", "channel"]
    assert list(found["date"]) == list(frame_of()["date"])
    assert found["score"].isna().tolist() == [row < 24 for row in range(400)]
    assert (found["anomaly"].isna() == found["score"].isna()).all()
    scored = found.dropna(subset="score")
    assert ((scored["score"] > scored["threshold"]) == scored["anomaly"].astype(bool)).all()
    assert scored.loc[SPIKES, "anomaly"].astype(bool).all()
    assert (scored.loc[SPIKES, "channel"] == "a").all()
    assert (run / "found.png").is_file()


def built(path, **arguments):
    data = AnomalyData(path, 24, 4)
    data.setup()
    torch.manual_seed(0)
    task = AnomalyDetector(**{"backbone_arguments": SMALL} | arguments)
    task.adopt(data.description())
    return task.eval(), data


def test_a_reconstruction_never_sees_what_it_rebuilds(csv):
    task, data = built(csv(), score_by="reconstruction")
    batch = data.datasets["val"].__getitems__(range(3))
    clean = task.step(batch).predictions
    spoiled = torch.cat([batch.context, batch.target], 1)
    spoiled[:, 8:12] = 1e6
    other = task.step(batch._replace(context=spoiled[:, :24], target=spoiled[:, 24:])).predictions
    assert torch.equal(clean[:, 8:12], other[:, 8:12])
    assert not torch.equal(clean[:, 12:], other[:, 12:])
    task.train()
    hidden = task.step(batch).targets.isfinite()
    assert hidden.sum((1, 2)).tolist() == [8, 8, 8]


def test_errors_of_rows_are_means_over_windows():
    rows = RowErrors([5, 3], 1)
    errors = torch.tensor([[1.0, 2.0, torch.nan], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])[..., None]
    rows.add(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), errors)
    first, second = rows.reduced(lambda part: part)
    assert np.array_equal(first[:, 0], [1.0, 2.5, 4.0, 5.0, np.nan], equal_nan=True)
    assert second[:, 0].tolist() == [6.0, 7.0, 8.0]


def test_channels_count_alike_whatever_their_units(csv):
    task, _ = built(csv(), smoothing=2)
    task.model_scale.copy_(torch.tensor([0.1, 10.0]))
    (scores,) = task.scores([np.array([[0.01, 100.0], [0.04, np.nan], [np.nan, np.nan]])])
    assert np.allclose(scores, [1.0, 1.5, np.nan], equal_nan=True)


def test_measured_without_labels_and_with_unknown_ones():
    scores = [np.array([0.0, 1.0, 3.0, np.nan])]
    assert measure(scores, None, 2.0, 1) == {"flagged": pytest.approx(1 / 3)}
    measured = measure(scores, [np.array([0.0, np.nan, 1.0, 1.0])], 2.0, 1)
    assert (measured["f1"], measured["anomalous"]) == (1.0, 0.5)


def test_a_mixer_is_put_in(csv):
    task, _ = built(csv(), mixer=GatedLinearAttention, backbone_arguments={"dim": 32, "depth": 1})
    assert isinstance(task.network.encoder.blocks[0].mixer, GatedLinearAttention)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"level": 1.5}, "model.level is 1.5; a quantile lies between 0 and 1"),
        ({"threshold": "pot", "level": 0.98, "risk": 0.1}, "model.risk is 0.1; with model.level=0.98 it lies between"),
        ({"smoothing": 0}, "model.smoothing is 0; give at least 1 row"),
        ({"backbone": ITransformer(8, 8, dim=8)}, "model.backbone is a built ITransformer"),
    ],
)
def test_what_is_refused(arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        AnomalyDetector(**arguments)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["data.path=short.csv"], "short.csv has 20 rows; the model takes windows of 28 (context 24, horizon 4)"),
        (["data.path=clean.csv", "output=clean.csv"], "clean.csv exists and is not overwritten"),
        (["data.path=clean.csv", "output=x.nc"], "output=x.nc: give a file that ends in .csv, .parquet"),
    ],
)
def test_what_predict_refuses(run, capsys, options, complaint):
    frame_of()[:20].to_csv("short.csv", index=False)
    assert main(["predict", CHECKPOINT.replace("run/", "run_clean/"), *options]) == 1
    assert complaint in capsys.readouterr().err
