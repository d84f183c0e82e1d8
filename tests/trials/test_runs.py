"""Runs that fail, are stopped, resumed and written: what they say, with which status, and what they leave."""

import contextlib
import inspect
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from jsonargparse import ArgumentError
from lightning import Trainer
from matplotlib.figure import Figure

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.core.run import run_lock
from quintet.core.run.checkpoint_io import AtomicCheckpointIO
from quintet.core.run.export import export_checkpoint
from quintet.core.run.metrics_file import MetricsFile, read_metrics
from quintet.core.run.parsers import CountOrShare, argument_parser
from quintet.core.run.report import write_report
from quintet.core.run.run_folder import given_run_folder, write_summary
from quintet.core.run.runner import trainer_of
from quintet.core.weights.sealing import digest_of

EXPERIMENT = ["fit", "experiment=points", "--config-dir", "configs"]
FIT = [*EXPERIMENT, "callbacks.pictures=null", "run_dir=run"]
SHORT = ["trainer.max_epochs=1"]
TRUST = "trust=toy_points"
EXECUTABLE = shutil.which("quintet", path=str(Path(sys.executable).parent)) or "quintet"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def rewritten(path, row, column, value):
    """Puts `value` into a cell of a CSV file; rows count from 0 without the header."""
    lines = path.read_text().splitlines()
    cells = lines[row + 1].split(",")
    cells[column] = value
    lines[row + 1] = ",".join(cells)
    path.write_text("\n".join([*lines, ""]))


def resumable(toy_run, folder):
    """Puts a finished run into `folder`; returns what resumes it for one epoch more."""
    shutil.copytree(toy_run, folder)
    return [f"ckpt_path={folder}/checkpoints/last.ckpt", "trainer.max_epochs=4"]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


# Losses and weights that are no numbers


@pytest.mark.parametrize(
    ("row", "given", "said"),
    [
        (5, [], "the loss is nan at step "),
        (None, ["model.lr=1e30"], "try a lower model.lr (now 1e+30), a lower trainer.gradient_clip_val (now 0.5), or"),
        slow(None, ["model.lr=1e30", "trainer.gradient_clip_val=null"], "trainer.gradient_clip_val=1.0"),
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


def test_checkpoints_from_before_the_loss_was_no_number_stay_and_are_named(toy, toy_run, capsys):
    resume = resumable(toy_run, "run")
    before = {name: (toy / "run" / name).read_bytes() for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt")}
    capsys.readouterr()
    assert main([*FIT, *resume, "model.lr=1e30"]) == 1
    complaint = capsys.readouterr().err
    assert "the loss is " in complaint
    assert "run/checkpoints/last.ckpt is from before" in complaint
    assert all((toy / "run" / name).read_bytes() == content for name, content in before.items())


@pytest.mark.parametrize(
    ("verb", "value"),
    [
        *((verb, math.nan) for verb in ("test", "predict", "export", "show")),
        *(slow(verb, math.inf) for verb in ("validate", "predict", "weigh")),
    ],
)
def test_weights_that_are_no_numbers_are_refused_by_every_verb(toy, toy_run, capsys, verb, value):
    content = torch.load(toy_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["state_dict"]["net.head.weight"][0, 0] = value
    content["quintet"]["digest"] = digest_of(content["quintet"], content["state_dict"])
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


def test_gradients_that_are_no_numbers_make_no_checkpoint(toy):
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
    # In a process of its own, as a person runs it.
    done = subprocess.run([EXECUTABLE, *FIT, *SHORT, *given], cwd=toy, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the weights hold NaN or infinity (first: net.weight) at step 1" in " ".join(done.stderr.split())
    assert not [name for name in files(toy / "run") if name.endswith(".ckpt")]


# Constants for long runs in short ones, and axes of size one


def test_averaged_weights_learn_in_a_short_run(toy):
    """With a fixed decay of 0.999 the average of fifteen steps is the first weights."""
    assert main([*FIT, "callbacks=ema", "callbacks.pictures=null", "trainer.max_epochs=8", "model.lr=3e-2"]) == 0
    assert json.loads((toy / "run" / "summary.json").read_text())["metrics"]["test/accuracy"] > 0.85


def test_averaged_weights_are_what_early_stopping_looks_at_and_what_is_tested(toy):
    """Stopping early changes no epoch before it, and what was best is the average that was measured."""
    average = "{_target_: quintet.core.run.callbacks.WeightAverage, decay: 0.5}"
    both = ["callbacks=early_stopping", f"+callbacks.average={average}", "trainer.max_epochs=4"]
    both += ["callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=10"]
    plain = ["callbacks=ema", "callbacks.average.decay=0.5", "trainer.max_epochs=4"]
    for run, given in (("both", both), ("plain", plain)):
        assert main([*EXPERIMENT, "callbacks.pictures=null", f"run_dir={run}", *given]) == 0
    stopped, whole = (
        [row for row in read_metrics(toy / run / "metrics.csv") if "val/loss" in row] for run in ("both", "plain")
    )
    assert len(stopped) == 2
    assert stopped == whole[:2]
    best = torch.load(toy / "both" / "checkpoints" / "best.ckpt", weights_only=True)
    assert (
        main(["test", "ckpt_path=both/checkpoints/best.ckpt", TRUST, "data.root=points", "callbacks.progress=null"])
        == 0
    )
    ((again, first),) = [
        [json.loads(path.read_text())["metrics"] for path in (found, toy / "both" / "summary.json")]
        for found in (toy / "both" / "test").rglob("summary.json")
    ]
    assert again == pytest.approx(first)
    assert "averaging_state" in best or "current_model_state" in best


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


def test_every_option_that_counts_or_is_a_share_is_read_as_a_count_first():
    """Readers of types may hand back `int | float` in the order in which anybody wrote it first: 1 became 1.0, all."""
    own = inspect.signature(trainer_of).parameters
    for name, parameter in inspect.signature(Trainer.__init__).parameters.items():
        kinds = set(get_args(parameter.annotation))
        if {int, float} <= kinds:
            assert set(get_args(own[name].annotation) or [own[name].annotation]) == kinds - {int, float} | {
                CountOrShare
            }
            assert own[name].default == parameter.default


@pytest.mark.parametrize("typed", ["1", "1.0", "0.5", "abc", "true", "null"])
def test_a_count_is_told_from_a_share(typed):
    parser = argument_parser()
    parser.add_function_arguments(trainer_of, "trainer")
    if typed in ("abc", "true"):
        with pytest.raises(ArgumentError, match="limit_train_batches"):
            parser.parse_args([f"--trainer.limit_train_batches={typed}"])
        return
    expected = {"1": 1, "1.0": 1.0, "0.5": 0.5, "null": None}[typed]
    for parsed in (
        parser.parse_args([f"--trainer.limit_train_batches={typed}"]),
        parser.parse_object({"trainer": {"limit_train_batches": expected}}),
    ):
        found = parsed.trainer.limit_train_batches
        assert (type(found), found) == (type(expected), expected)


def test_one_batch_stays_one_batch_in_a_stored_configuration(toy):
    assert main([*FIT, *SHORT, "trainer.limit_train_batches=1"]) == 0
    assert main(["fit", "--config", "run/config.yaml", "--run_dir", "again"]) == 0
    for run in ("run", "again"):
        assert yaml.safe_load((toy / run / "config.yaml").read_text())["trainer"]["limit_train_batches"] == 1
        assert [row["step"] for row in read_metrics(toy / run / "metrics.csv")] == [0, 1]


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


@contextlib.contextmanager
def files_no_longer_than(size):
    """As on a disk that is full after some bytes: what is written beyond fails, whoever writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def write_metrics(folder):
    file = MetricsFile(folder)
    file.log_metrics({f"train/{number}": 0.1 for number in range(100)}, 0)
    file.save()


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_metrics, "metrics.csv"),
        (lambda folder: write_summary(folder, {"metrics": dict.fromkeys(map(str, range(100)), 0.1)}), "summary.json"),
        (lambda folder: write_report(folder, "title", {}, []), "report.html"),
        (
            lambda folder: AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(1000)}, folder / "last.ckpt"),
            "last.ckpt",
        ),
    ],
)
@pytest.mark.parametrize("before", [None, "as it was"])
def test_a_full_disk_leaves_nothing_half_and_what_was_there(tmp_path, write, name, before):
    folder = tmp_path / "run"
    folder.mkdir()
    if before:
        (folder / name).write_text("step\n" if name == "metrics.csv" else before)
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    with files_no_longer_than(200), pytest.raises(QuintetError, match=rf"cannot write .*{name} \(File too large\); "):
        write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected


@pytest.mark.parametrize(("kind", "ending"), [("safetensors", "safetensors"), ("torch_export", "pt2")])
def test_an_export_onto_a_full_disk_leaves_nothing(toy, toy_run, kind, ending):
    lines = export_checkpoint(
        toy_run / "checkpoints" / "best.ckpt", {"format": kind, "output": f"m.{ending}"}, ["toy_points"]
    )
    before = files(toy)
    with files_no_longer_than(500), pytest.raises(QuintetError, match=r"cannot write m\..* \(File too large\)"):
        list(lines)
    assert files(toy) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("toy_nets.py", "run_dir: toy_nets.py is a file; choose a folder with run_dir=FOLDER"),
        ("x" * 5000, f"cannot create {'x' * 200}... (File name too long); choose another with run_dir=FOLDER"),
        ("toy_nets.py/run", "cannot create toy_nets.py/run (Not a directory); choose another with run_dir=FOLDER"),
        ("/proc/run", "cannot create /proc/run (No such file or directory); choose another with run_dir=FOLDER"),
        ("a\0b", "cannot create a\0b (embedded null byte); choose another with run_dir=FOLDER"),
    ],
)
def test_a_folder_that_cannot_be_is_refused_in_one_line(toy, given, said):
    with pytest.raises(QuintetError) as caught:
        given_run_folder(given)
    assert str(caught.value) == said


# Two runs in one folder


def owner_of_another(pid=None, host=None, started="1"):
    return json.dumps({"host": host or run_lock.socket.gethostname(), "pid": pid, "started": started})


def test_a_second_run_in_a_folder_is_refused_also_before_the_first_checkpoint(toy, capsys):
    (toy / "run").mkdir()
    with run_lock.locked(toy / "run"):
        assert main([*FIT, *SHORT]) == 1
        complaint = capsys.readouterr().err
        assert f"{toy / 'run'} is written by another run (process {os.getpid()} on " in complaint
        assert "choose another run_dir=FOLDER" in complaint
        assert files(toy / "run") == {run_lock.FILE}
    assert files(toy / "run") == set()


def test_of_many_that_want_a_folder_one_gets_it(tmp_path):
    held = run_lock.locked(tmp_path)
    with held, pytest.raises(QuintetError, match="is written by another run"), run_lock.locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", ["reaped", "zombie", "number given again"])
def test_the_lock_of_a_killed_run_does_not_stay(tmp_path, left):
    process = subprocess.Popen([sys.executable, "-c", ""])
    if left == "reaped":
        process.wait()
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    pid = os.getpid() if left == "number given again" else process.pid
    (tmp_path / run_lock.FILE).write_text(owner_of_another(pid))
    with run_lock.locked(tmp_path):
        assert json.loads((tmp_path / run_lock.FILE).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []
    process.wait()


@pytest.mark.parametrize("content", [owner_of_another(1, "elsewhere"), "", "[1]", '{"pid": "x"}'])
def test_a_lock_of_which_nobody_knows_stays_and_its_file_is_named(tmp_path, content):
    path = tmp_path / run_lock.FILE
    path.write_text(content)
    with pytest.raises(QuintetError) as caught, run_lock.locked(tmp_path):
        pass
    assert str(caught.value).endswith(f"if nothing runs there any more, remove {path}")
    assert path.read_text() == content


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(tmp_path, monkeypatch):
    def refused(*arguments, **keywords):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(run_lock.Path, "write_text", refused)
    with pytest.raises(QuintetError, match=r"cannot write in .* \(Read-only file system\); copy the run elsewhere"):
        run_lock.locked(tmp_path).__enter__()


def test_a_configuration_that_is_not_of_a_run_is_not_overwritten(toy, capsys):
    (toy / "run").mkdir()
    (toy / "run" / "config.yaml").write_text("mine: 1\n")
    assert main([*FIT, *SHORT]) == 1
    assert "config.yaml is not of a run and is not overwritten" in capsys.readouterr().err
    assert (toy / "run" / "config.yaml").read_text() == "mine: 1\n"


# Signals and killed processes


def stopping(epoch, batch, by):
    given = {"_target_": "toy_nets.Interrupt", "epoch": epoch, "batch": batch, "by": by}
    return [f"++callbacks.interrupt.{key}={value}" for key, value in given.items()]


@pytest.mark.parametrize(
    ("epoch", "batch", "by"), [(0, 2, "SIGTERM"), slow(1, 0, "SIGHUP"), slow(2, 3, "SIGTERM"), (2, 4, "SIGTERM")]
)
def test_a_signal_stops_a_run_at_any_moment_and_it_is_said_how_to_go_on(toy, capsys, epoch, batch, by):
    with pytest.raises(SystemExit) as caught:
        main([*FIT, *stopping(epoch, batch, by)])
    assert caught.value.code == 128 + getattr(signal, by)
    command, said = "quintet fit --config run/config.yaml", capsys.readouterr().out
    if epoch:
        assert f"stopped by {by}; continue with: {command} --ckpt_path run/checkpoints/last.ckpt\n" in said
        assert torch.load(toy / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == epoch - 1
    else:
        assert f"stopped by {by}; no epoch was finished; start again with: {command}\n" in said
    assert not (toy / "run" / "summary.json").exists()
    assert run_lock.FILE not in files(toy / "run")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("by", "status"), [("Ctrl-C", 130), slow("SIGTERM", 143)])
def test_a_run_stopped_in_its_last_test_says_how_to_test_again(toy, capsys, monkeypatch, by, status):
    import toy_points

    def stop(self, batch, index):
        if by == "Ctrl-C":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(toy_points.PointClassifier, "test_step", stop)
        try:
            ended = main([*FIT, *SHORT])
        except SystemExit as error:
            ended = error.code
    assert ended == status
    command = f"quintet test ckpt_path=run/checkpoints/best.ckpt {TRUST}"
    assert f"stopped by {by}; training is done; test with: {command}\n" in capsys.readouterr().out
    assert main(command.split()[1:]) == 0


@pytest.mark.parametrize("end", ["refuses", "fails", "is killed"])
def test_what_ends_a_process_that_reads_data_is_said_in_a_line_or_two(toy, toy_run, capsys, monkeypatch, end):
    import toy_points

    def read(self, sample):
        if end == "refuses":
            raise QuintetError("photos/a.jpg is cut short; copy it again")
        if end == "fails":
            raise OSError(5, "Input/output error", "photos/a.jpg")
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(toy_points.Jitter, "__call__", read)
    capsys.readouterr()
    assert main([*FIT, *resumable(toy_run, "run"), "data.num_workers=1"]) == 1
    complaint = capsys.readouterr().err.strip()
    if end == "refuses":
        assert complaint == "error: photos/a.jpg is cut short; copy it again"
    elif end == "fails":
        assert complaint.startswith("error: OSError: [Errno 5] Input/output error: 'photos/a.jpg'")
    else:
        first, second = complaint.splitlines()
        assert first.startswith("error: a process that reads data (pid ")
        assert "was killed (Killed); often memory ran out: lower data.num_workers or data.batch_size" in first
        assert second == "continue with: quintet fit --config run/config.yaml --ckpt_path run/checkpoints/last.ckpt"


@pytest.mark.slow
def test_a_killed_process_of_a_distributed_run_is_said_and_how_to_go_on(toy):
    """The processes of one run are told apart by LOCAL_RANK; the second kills itself in its second epoch."""
    (toy / "killed.py").write_text(
        "import os, signal\nfrom lightning.pytorch.callbacks import Callback\n\n\nclass Killed(Callback):\n"
        "    def on_train_batch_end(self, trainer, *arguments):\n"
        "        if trainer.current_epoch and trainer.global_rank:\n            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    given = ["trainer.strategy=ddp", "trainer.devices=2", "++callbacks.killed._target_=killed.Killed"]
    ended = subprocess.run([EXECUTABLE, *FIT, *given], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    first, second = ended.stderr.strip().splitlines()[-2:]
    assert first.startswith("error: process 1 of 0 to 1 (pid ")
    assert "was killed by SIGKILL" in first
    assert second == "continue with: quintet fit --config run/config.yaml --ckpt_path run/checkpoints/last.ckpt"


# Resuming


def test_a_run_is_not_resumed_on_other_data(toy, toy_run, capsys):
    path = toy / "points" / "points.csv"
    path.write_text(path.read_text().replace("below", "under"))
    capsys.readouterr()
    assert main([*FIT, *resumable(toy_run, "run")]) == 1
    complaint = capsys.readouterr().err
    assert complaint == (
        "error: the checkpoint was trained on other data: classes differ; start a new run, "
        "or from its weights with model.pretrained=FILE\n"
    )


def test_a_resumed_run_learns_at_the_rate_it_is_given(toy, toy_run):
    assert main([*FIT, *resumable(toy_run, "run"), "model.lr=1e-4", "model.final_lr=1"]) == 0
    rates = [row["train/lr"] for row in read_metrics(toy / "run" / "metrics.csv") if "train/lr" in row]
    assert rates[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    "damage",
    [{"callbacks": [1]}, {"loops": {"fit_loop": 7}}, {"optimizer_states": [{"state": 1}]}, {"lr_schedulers": ["a"]}],
    ids=lambda damage: next(iter(damage)),
)
def test_a_checkpoint_whose_training_is_damaged_is_one_line(toy, toy_run, capsys, damage):
    given = resumable(toy_run, toy / "run")
    last = toy / "run" / "checkpoints" / "last.ckpt"
    torch.save(torch.load(last, weights_only=True) | damage, last)
    assert main([*FIT, *given]) == 1
    assert "last.ckpt cannot be continued: what it says of its training is damaged" in capsys.readouterr().err
