"""Runs that fail, are stopped, resumed and written: what they say, with which status, and what they leave."""

import json
import math
import os

import pytest
import torch
from matplotlib.figure import Figure

from quintet.cli import main
from quintet.core.metrics_file import read_metrics

EXPERIMENT = ["fit", "experiment=points", "--config-dir", "configs"]
FIT = [*EXPERIMENT, "callbacks.pictures=null", "run_dir=run"]
SHORT = ["trainer.max_epochs=1"]
TRUST = "trust=toy_points"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def rewritten(path, row, column, value):
    """Puts `value` into a cell of a CSV file; rows count from 0 without the header."""
    lines = path.read_text().splitlines()
    cells = lines[row + 1].split(",")
    cells[column] = value
    lines[row + 1] = ",".join(cells)
    path.write_text("\n".join([*lines, ""]))


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


# Losses and weights that are no numbers


@pytest.mark.parametrize(
    ("row", "given", "said"),
    [
        (5, [], "the loss is nan at step "),
        (None, ["model.lr=1e30"], "try a lower model.lr (now 1e+30), a lower trainer.gradient_clip_val (now 0.5), or"),
        (None, ["model.lr=1e30", "trainer.gradient_clip_val=null"], "trainer.gradient_clip_val=1.0"),
    ],
)
def test_a_run_whose_loss_is_no_number_stops_and_says_where_and_what_to_try(toy, capsys, row, given, said):
    if row is not None:
        rewritten(toy / "points" / "points.csv", row, 0, "nan")
    assert main([*FIT, *given]) == 1
    complaint = capsys.readouterr().err
    assert said in complaint
    assert "training stopped" in complaint
    assert "quintet inspect" in complaint
    assert len(complaint.splitlines()) == 2
    assert not [name for name in files(toy / "run") if name.endswith(".ckpt") or "summary" in name]


def test_validation_whose_loss_is_no_number_stops_the_run_before_a_checkpoint_of_it(toy, capsys, monkeypatch):
    import toy_points

    step = toy_points.PointClassifier.step

    def bad(self, batch):
        result = step(self, batch)
        result.loss = result.loss if self.training else result.loss * math.nan
        return result

    monkeypatch.setattr(toy_points.PointClassifier, "step", bad)
    assert main(FIT) == 1
    complaint = capsys.readouterr().err
    assert "the loss on the validation data is nan, though in training it was a number at step 5 (epoch 0)" in complaint
    assert not [name for name in files(toy / "run") if name.endswith(".ckpt")]


def test_checkpoints_from_before_the_loss_was_no_number_stay_and_are_named(toy, capsys):
    assert main([*FIT, *SHORT]) == 0
    before = {name: (toy / "run" / name).read_bytes() for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt")}
    capsys.readouterr()
    assert main([*FIT, "ckpt_path=run/checkpoints/last.ckpt", "model.lr=1e30"]) == 1
    complaint = capsys.readouterr().err
    assert "the loss is " in complaint
    assert "run/checkpoints/last.ckpt is from before" in complaint
    assert all((toy / "run" / name).read_bytes() == content for name, content in before.items())


@pytest.mark.parametrize(
    ("verb", "value"),
    [(verb, math.nan) for verb in ("test", "validate", "predict", "weigh", "export", "show")] + [("predict", math.inf)],
)
def test_weights_that_are_no_numbers_are_refused_by_every_verb(toy, toy_run, capsys, verb, value):
    content = torch.load(toy_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["state_dict"]["net.head.weight"][0, 0] = value
    content["quintet"].pop("weights", None)
    torch.save(content, "bad.ckpt")
    given = {"export": ["format=safetensors", "output=bad.safetensors"], "show": []}.get(verb, ["data.root=points"])
    status = main([verb, "ckpt_path=bad.ckpt", *([] if verb == "show" else [TRUST]), *given])
    shown = capsys.readouterr()
    if verb == "show":
        assert status == 0
        assert "1 tensors hold NaN" in shown.out
        return
    assert status == 1
    assert "1 tensors of these weights hold NaN or infinity (first: net.head.weight)" in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not list(toy.rglob("predictions.csv"))
    assert not (toy / "bad.safetensors").exists()


def test_gradients_that_are_no_numbers_make_no_checkpoint(toy, capsys):
    """The root of zero has an infinite slope: the loss is a number, the weights are none after the last step."""
    (toy / "roots.py").write_text(
        """
import torch
from torch import nn

class Root(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return (self.weight * x).abs().sqrt()
"""
    )
    given = ["model.net=roots.Root", "trainer.limit_train_batches=1", "trainer.limit_val_batches=0", "monitor=train/lr"]
    assert main([*FIT, *SHORT, *given]) == 1
    assert "the weights hold NaN or infinity (first: net.weight) at step 1" in " ".join(capsys.readouterr().err.split())
    assert not [name for name in files(toy / "run") if name.endswith(".ckpt")]


# Constants for long runs in short ones, and axes of size one


def test_averaged_weights_learn_in_a_short_run(toy):
    """With a fixed decay of 0.999 the average of fifteen steps is the first weights."""
    assert main([*FIT, "callbacks=ema", "callbacks.pictures=null", "trainer.max_epochs=8", "model.lr=3e-2"]) == 0
    assert json.loads((toy / "run" / "summary.json").read_text())["metrics"]["test/accuracy"] > 0.85


@pytest.mark.parametrize("given", [["trainer.max_time=00:00:00:02"], ["trainer.max_steps=7"]])
def test_a_run_without_a_last_epoch_ends_by_its_time_or_steps(toy, given):
    assert main([*FIT, "trainer.max_epochs=-1", *given]) == 0
    rows = read_metrics(toy / "run" / "metrics.csv")
    if "max_steps" in given[0]:
        assert torch.load(toy / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 7
    else:
        rates = [row["train/lr"] for row in rows if "train/lr" in row]
        assert rates[1:] == pytest.approx([1e-2] * (len(rates) - 1))
    assert (toy / "run" / "summary.json").is_file()


def test_a_run_that_is_never_validated_is_tested_all_the_same(toy, capsys):
    """Nothing can be called best; the last epoch is what there is."""
    assert main([*FIT, *SHORT, "trainer.check_val_every_n_epoch=2"]) == 0
    said = capsys.readouterr().out
    assert "no epoch ended with a number as val/accuracy, so none is called the best" in said
    summary = json.loads((toy / "run" / "summary.json").read_text())
    assert summary["checkpoint"] == "run/checkpoints/last.ckpt"
    assert "test/accuracy" in summary["metrics"]


def test_a_single_sample_or_batch_is_enough(toy):
    path = toy / "points" / "points.csv"
    for rows in (4, 5):  # two train, one validates, one tests; then two of them
        lines = ["x,y,label", *(f"{row}.5,{row % 2},{'above' if row % 2 else 'below'}" for row in range(rows))]
        path.write_text("\n".join([*lines, ""]))
        assert main([*FIT, *SHORT, f"run_dir=run{rows}"]) == 0


def test_more_processes_than_cores_are_refused(toy, capsys):
    cores = len(os.sched_getaffinity(0))
    assert main([*FIT, *SHORT, "trainer.devices=99"]) == 1
    expected = f"error: trainer.devices is 99, but there are {cores} CPU cores: give at most as many\n"
    assert capsys.readouterr().err.endswith(expected)


# Pictures and what is written


def test_a_picture_that_fails_does_not_take_the_run_with_it(toy, monkeypatch, capsys):
    import toy_points

    def pictures(self):
        yield "first", Figure()
        raise IndexError("index 1 is out of bounds for axis 0 with size 1")

    monkeypatch.setattr(toy_points.PointClassifier, "pictures", pictures)
    assert main([*EXPERIMENT, *SHORT, "run_dir=run"]) == 0
    left_out = "warning: a picture of the test part is left out: IndexError: index 1 is out of bounds for axis 0"
    assert left_out in capsys.readouterr().err
    assert {"pictures/first.png", "pictures/learning_curves.png", "report.html", "summary.json"} <= files(toy / "run")
