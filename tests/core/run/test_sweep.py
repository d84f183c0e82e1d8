"""Sweeps: every combination runs, and a table says what each measured."""

import csv
import json
import sys

import pytest

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.core.run.run_folder import RUN_FOLDER
from quintet.core.run.sweep import _first_of_each, sweep

SWEEP = [
    "fit",
    "-m",
    "experiment=points",
    "--config-dir",
    "configs",
    "callbacks.pictures=null",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
]


def folders(toy):
    (folder,) = (toy / "runs" / "points").glob("sweep_*")
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_every_value_is_run_and_measured(toy, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    typed = list(sys.argv)
    assert main([*SWEEP, "model.lr=1e-2,3e-2"]) == 0
    runs = folders(toy)
    assert [run.name for run in runs] == ["0", "1"]
    shown = capsys.readouterr().out
    for run, rate in zip(runs, ("0.01", "0.03"), strict=True):
        measured = json.loads((run / "summary.json").read_text())["metrics"]
        assert (run / "checkpoints" / "best.ckpt").is_file()
        assert rate in shown
        assert f"{measured['test/loss']:.4f}" in shown
    assert "experiment" not in shown.split("model.lr")[-1]  # what all share is left out
    (table,) = (toy / "runs" / "points").glob("sweep_*/sweep.csv")
    rows = list(csv.DictReader(table.open()))
    assert [(row["run"], row["model.lr"], row["result"]) for row in rows] == [
        ("0", "0.01", "done"),
        ("1", "0.03", "done"),
    ]
    measured = json.loads((runs[1] / "summary.json").read_text())["metrics"]
    assert float(rows[1]["test/loss"]) == measured["test/loss"]
    assert sorted(path.name for path in table.parent.iterdir()) == ["0", "1", "multirun.yaml", "sweep.csv"]
    assert sys.argv == typed
    assert RUN_FOLDER not in __import__("os").environ


def test_a_run_that_fails_is_said_and_the_others_go_on(toy, capsys):
    assert main([*SWEEP, "model.lr=-1,3e-2"]) == 1
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error")]
    assert line.startswith("error: run 0 (experiment=points")
    assert line.endswith("model.lr is -1.0; it lies between 0 and inf")
    assert "Traceback" not in captured.err
    assert "failed" in captured.out
    assert [run.name for run in folders(toy)] == ["1"]  # what was refused leaves no folder, but stands in the table
    (table,) = (toy / "runs" / "points").glob("sweep_*/sweep.csv")
    assert [(row["model.lr"], row["result"]) for row in csv.DictReader(table.open())] == [
        ("-1", "failed"),
        ("0.03", "done"),
    ]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["experiment=pionts", "seed=1,2"], "no experiment is called 'pionts'; nearest: points"),
        (["experiment=points", "model.lrr=1,2"], "model.lrr: PointClassifier has no option 'lrr'; nearest: lr"),
        (["experiment=points", "model.net=toy_nets.OtherNt,toy_nets.OtherNet"], "toy_nets has no OtherNt"),
        (["experiment=points", "model.lr=many,few"], "model.lr: expected a float, got many"),
        (["experiment=points", "model.lr=[1,"], "model.lr: expected a float, got [1,"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(toy, capsys, overrides, complaint):
    assert main(["fit", "-m", *overrides, "--config-dir", "configs"]) == 1
    assert complaint in capsys.readouterr().err
    assert not (toy / "runs").exists()


def test_only_training_is_swept():
    with pytest.raises(QuintetError, match="a sweep fits; 'test -m' is not possible"):
        sweep("test", ["seed=1,2"])


def test_the_first_combination_is_the_one_checked():
    typed = ["model.lr=1e-2,3e-2", "seed=range(3,5)", "trainer=cpu", "model.net=choice(a.B,a.C)"]
    typed.append("model.lr=interval(0,1)")  # a sweeper thinks up its values
    assert _first_of_each(typed) == ["model.lr=0.01", "seed=3", "trainer=cpu", "model.net=a.B"]


def test_a_traceback_is_shown_on_request(toy, monkeypatch):
    monkeypatch.setenv("QUINTET_DEBUG", "1")
    with pytest.raises(ValueError, match=r"model.lr is -1"):
        main([*SWEEP, "model.lr=-1,1"])
