"""The command `quintet` as it is typed: what it answers to mistakes, and whole runs in processes of their own."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from quintet import cli
from quintet.cli import main
from quintet.core.learning.task import RECORD
from quintet.core.run.metrics_file import read_metrics
from quintet.core.weights import registry
from quintet.core.weights.pretrained import Source

USER = ["--config-dir", "configs"]
EXECUTABLE = shutil.which("quintet", path=str(Path(sys.executable).parent)) or "quintet"


def complaint(capsys):
    """What stands on stderr: one or two lines, no traceback."""
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("note: ")]
    assert 1 <= len(lines) <= 2, lines
    assert lines[0].startswith("error: "), lines
    return "\n".join(lines).removeprefix("error: ")


def failed(typed, capsys):
    assert main(typed.split()) == 1
    return complaint(capsys)


# Mistakes in what was typed


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("fitt", "no command is called 'fitt'; nearest: fit"),
        ("prdict", "no command is called 'prdict'; nearest: predict"),
        ("list modls", "nothing to list is called 'modls'; nearest: models"),
        ("pull", "quintet pull NAME"),
        ("pull a b c", "quintet pull NAME"),
        ("pull nat_tinny", "no model is called 'nat_tinny'; "),
        ("inspect", "quintet inspect PATH"),
        ("inspect data=points", "quintet inspect PATH"),
        ("inspect nowhere", "no file or folder nowhere"),
        ("fit", "no model is chosen: add experiment=NAME (quintet list experiments) or model=NAME"),
        ("fit model=vision/classifier", "no data is chosen: add experiment=NAME"),
        ("predict", "predict needs a checkpoint: add ckpt_path="),
        ("test", "test needs a checkpoint: add ckpt_path="),
        ("test ckpt_path=nowhere.ckpt", "ckpt_path: no file nowhere.ckpt"),
        ("test ckpt_path=last name=nothing", "ckpt_path=last: no run under runs/nothing has checkpoints/last.ckpt yet"),
        ("test -m seed=1,2", "a sweep fits; 'test -m' is not possible"),
        ("fit --config-dir", "--config-dir takes a folder: --config-dir FOLDER"),
        ("fit --config-dir nowhere experiment=points", "--config-dir: no folder nowhere"),
        ("fit --config-dir=nowhere experiment=points", "--config-dir: no folder nowhere"),
        ("fit --config-dir configs --config a.yaml", "--config-dir goes with options given as key=value"),
        ("fit --config nowhere.yaml", "nowhere.yaml is no file; give a configuration in YAML"),
        ("fit --experiment=points", "cannot read '--experiment=points': give all options as key=value, or all of"),
        ("fit --trainer.max_epochs 3 experiment=points", "cannot read 'experiment=points': give all options as"),
        ("fit --trainer.max_epochs 3", "the following arguments are required: fit.data, fit.model"),
    ],
)
def test_mistakes_in_a_command(toy, capsys, typed, answer):
    assert answer in failed(typed, capsys)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("experiment=pionts", "no experiment is called 'pionts'; nearest: points"),
        ("experiment=points trainer=cpuu", "no trainer is called 'cpuu'; nearest: cpu"),
        ("experiment=points trainr=cpu", "no option is called 'trainr'; nearest: trainer"),
        ("experiment=points sed=1", "no option is called 'sed'; nearest: seed"),
        ("experiment=points modle.lr=1", "no option is called 'modle.lr'; nearest: model"),
        ("experiment=points model.lrr=1", "model.lrr: PointClassifier has no option 'lrr'; nearest: lr"),
        ("experiment=points data.nose=1", "data.nose: Points has no option 'nose'; nearest: noise"),
        (
            "experiment=points trainer.max_epoch=1",
            "trainer.max_epoch: Trainer has no option 'max_epoch'; nearest: max_e",
        ),
        ("experiment=points callbacks.best.every=1", "callbacks.best.every: Checkpoint has no option 'every'"),
        ("experiment=points callbacks.bst.monitor=x", "callbacks.bst is not configured here; nearest: best"),
        ("experiment=points model/mixer=linaer", "no model/mixer is called 'linaer'; nearest: linear"),
        ("experiment=points model/mixer=linear", "model.mixer: PointClassifier has no option 'mixer'"),
        ("experiment=points model.lr=abc", "model.lr: expected a float, got abc"),
        ("experiment=points trainer.max_epochs=x", "trainer.max_epochs: expected an int, got x"),
        ("experiment=points data.batch_size=1.5", "data.batch_size: expected an int, got 1.5"),
        ("experiment=points model.lr=-1", "model.lr is -1.0; it lies between 0 and inf"),
        ("experiment=points data.batch_size=0", "data.batch_size is 0; give at least 1"),
        ("experiment=points model.lr=[1", "model.lr: expected a float, got [1"),
        ("experiment=points model.net=toy_nets.OtherNt", "model.net: toy_nets has no OtherNt; nearest: OtherNet"),
        ("experiment=points model.net=nomodule.Net", "model.net: cannot import nomodule for nomodule.Net"),
        ("experiment=points model.net=toy_nets.NoNet", "model.net"),
        ("experiment=points model.net=NoSuchNet", "model.net"),
        ("experiment=points model.net.widht=3", "model.net"),
        ("experiment=points model.freeze=[nothing]", "model.freeze: no parameter matches 'nothing'; "),
        ("experiment=points data.root=nowhere", "data.root: no file nowhere/points.csv; give a folder with points.csv"),
        ("data=points model=points", "data.root is needed: add data.root=VALUE"),
        ("experiment=points ckpt_path=last name=nothing", "ckpt_path=last: no run under runs/nothing"),
        ("experiment=points monitor=val/nothing", "val/nothing"),
        (
            "experiment=points monitor=null callbacks=early_stopping",
            "monitor is null, which EarlyStopping does not take; add monitor=",
        ),
    ],
)
def test_mistakes_in_the_options_of_a_run(toy, capsys, typed, answer):
    assert main(["fit", *typed.split(), *USER]) == 1
    assert answer in complaint(capsys)


def test_a_module_of_the_user_s_with_a_fault_is_said_in_one_line(toy, capsys):
    (toy / "broken_nets.py").write_text("class Net(:\n")
    assert main(["fit", "experiment=points", "model.net=broken_nets.Net", *USER]) == 1
    assert "invalid syntax (broken_nets.py, line 1)" in complaint(capsys)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["--trainer.max_epoks", "3"], "--trainer.max_epoks"),
        (["--trainer.max_epochs", "many"], "trainer.max_epochs: expected an int"),
        (["--model.init_args.lrr", "1"], "lrr"),
        (["--model.init_args.lr", "fast"], "lr: expected a float"),
        (["--ckpt_path", "nowhere.ckpt"], "ckpt_path: no file nowhere.ckpt"),
    ],
)
def test_mistakes_in_lightning_s_own_grammar(toy, toy_run, capsys, typed, answer):
    assert main(["fit", "--config", str(toy_run / "config.yaml"), *typed]) == 1
    assert answer in complaint(capsys)


def test_a_traceback_is_shown_on_request(toy, monkeypatch):
    monkeypatch.setenv("QUINTET_DEBUG", "1")
    with pytest.raises(Exception, match="no experiment is called"):
        main(["fit", "experiment=pionts", *USER])


def test_ways_to_end_that_are_no_mistakes(monkeypatch, capsys):
    for error, status in ((KeyboardInterrupt, 130), (BrokenPipeError, 1)):

        def end(arguments, error=error):
            raise error

        monkeypatch.setattr(cli, "pull", end)
        assert main(["pull"]) == status
    assert capsys.readouterr().err == ""


# Checkpoints that are not what they should be


def broken(kind, path, toy_run):
    """Writes a checkpoint with one fault."""
    whole = toy_run / "checkpoints" / "last.ckpt"
    content = torch.load(whole, weights_only=True)
    del content[RECORD]["digest"]  # as in files from before there was one
    if kind == "truncated":
        path.write_bytes(whole.read_bytes()[:2000])
    elif kind == "text":
        path.write_text("<html>")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(path.parent / "ran"), protocol=2))
    elif kind == "foreign":
        torch.save({"state_dict": content["state_dict"]}, path)
    elif kind == "another model":
        content["state_dict"]["net.hidden.weight"] = torch.zeros(3, 3)
        torch.save(content, path)
    elif kind == "another task":
        content[RECORD]["task"]["class_path"] = "toy_points.AnotherTask"
        torch.save(content, path)
    return path


class Bomb:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("verb", ["fit", "test"])
@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("truncated", "broken.ckpt is damaged or not a checkpoint"),
        ("text", "broken.ckpt is damaged or not a checkpoint"),
        ("pickle", "broken.ckpt was refused: it would run code (posix.mkdir) when loaded"),
        ("foreign", "broken.ckpt was not written by quintet; load its weights with model.pretrained=FILE instead"),
        ("another model", "the checkpoint is of another model: 1 tensors missing or of another shape, 0 unexpected"),
        ("another task", "AnotherTask"),
    ],
)
def test_checkpoints_that_are_not_what_they_should_be(toy, toy_run, capsys, verb, kind, answer):
    path = broken(kind, toy / "broken.ckpt", toy_run)
    given = ["experiment=points", *USER] if verb == "fit" else ["trust=toy_points"]
    assert main([verb, f"ckpt_path={path}", *given]) == 1
    assert answer in complaint(capsys)
    assert not (toy / "ran").exists()


def test_classes_of_the_user_s_are_not_imported_from_a_checkpoint_without_trust(toy, toy_run, capsys):
    assert main(["test", f"ckpt_path={toy_run / 'checkpoints' / 'best.ckpt'}"]) == 1
    answer = complaint(capsys)
    assert "the file asks for toy_points.PointClassifier, which is not part of quintet" in answer
    assert answer.endswith("allow it with trust=toy_points")


def test_another_model_than_the_checkpoint_s_is_refused_on_resuming(toy, toy_run, capsys):
    given = ["experiment=points", "model.net=toy_nets.OtherNet", *USER]
    assert main(["fit", f"ckpt_path={toy_run / 'checkpoints' / 'last.ckpt'}", *given]) == 1
    assert "the checkpoint is of another model" in complaint(capsys)


# Asking


def test_help_and_version(capsys):
    for typed in ([], ["-h"], ["--help"], ["help"]):
        assert main(typed) == 0
        assert capsys.readouterr().out.startswith("The command `quintet`")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("quintet 0.")


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "list", "pull", "inspect", "show", "export", "bench"])
def test_every_verb_has_help_of_its_own(verb, capsys):
    for option in ("-h", "--help"):
        assert main([verb, "x=1", option]) == 0
        assert capsys.readouterr().out.startswith(f"quintet {verb} ")


def test_commands_of_tasks_have_help_from_their_methods(toy, capsys):
    assert main(["weigh", "--help", *USER]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("quintet weigh ckpt_path=FILE ")
    assert "PointClassifier: Writes the norm of the first layer's weights." in shown
    assert "  digits=2  (int)" in shown
    assert main(["weig", "--help", *USER]) == 1
    assert "no command is called 'weig'; nearest: weigh" in capsys.readouterr().err


def test_every_option_is_shown_with_its_default_and_without_asking_for_files(toy, capsys):
    assert main(["fit", "data=points", "model=points", "--cfg", *USER]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["data"]["init_args"] == {"root": "???", "noise": 0.1, "batch_size": 8, "num_workers": 0, "seed": 0}
    assert shown["model"]["init_args"]["net"] == "toy_points.SmallNet"
    assert shown["trainer"]["accumulate_grad_batches"] == 1
    assert {"lr", "warmup", "weight_decay", "freeze"} <= set(shown["model"]["init_args"])


def test_the_configuration_of_a_run_is_shown_on_request(toy, capsys):
    assert main(["fit", "experiment=points", "model.lr=0.5", "--cfg", *USER]) == 0
    shown = capsys.readouterr().out
    assert "class_path: toy_points.PointClassifier" in shown
    assert "lr: 0.5" in shown
    assert not (toy / "runs").exists()


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("list mixers neigh*", ["neighborhood", "each token sees a window around it", "sequences, images, volumes"]),
        ("list experiments point* --config-dir configs", ["points", "Two classes of points"]),
        ("list experiments vision/digits", ["vision/digits", "scanned digits"]),
        ("list data points --config-dir=configs", ["points", "A folder with points.csv"]),
        ("list data nothing", ["no data match 'nothing'"]),
        ("list models", []),
    ],
)
def test_lists(toy, capsys, monkeypatch, typed, shown):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(typed.split()) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in shown)


@pytest.fixture
def small_model(monkeypatch):
    monkeypatch.setattr(registry, "_models", {})
    monkeypatch.setattr(registry, "_load_domains", lambda: None)
    sources = {
        "first": Source("hub:nobody/nothing", "CC-BY-4.0", note="not for [commercial] use"),
        "second": Source("http://127.0.0.1:9/small.pth", "MIT"),
    }
    registry.register_model("audio/small", sources)(lambda: nn.Linear(2, 2))


def test_weights_of_a_file_are_pulled(small_model, tmp_path, capsys):
    path = tmp_path / "small [1]; date.safetensors"
    save_file(nn.Linear(2, 2).state_dict(), path)
    assert main(["pull", "small", str(path)]) == 0
    report, following = capsys.readouterr().out.splitlines()
    assert report == f"{path}: 2 tensors loaded (quintet layout, 0 renamed)"
    assert following.startswith("next: quintet fit experiment=NAME ")  # nothing says how a linear layer is tuned
    assert following.endswith(f"model.backbone=audio/small 'model.pretrained={path}'")  # as a shell takes it


def test_the_licence_of_published_weights_is_said(small_model, tmp_path, capsys, monkeypatch):
    path = tmp_path / "small.safetensors"
    save_file(nn.Linear(2, 2).state_dict(), path)
    monkeypatch.setattr("quintet.core.weights.pretrained.download", lambda source: path)
    assert main(["pull", "small"]) == 0
    assert "licence: CC-BY-4.0; not for [commercial] use" in capsys.readouterr().out


@pytest.mark.parametrize("tag", ["first", "second"])
def test_without_a_network_a_file_is_asked_for(small_model, tag, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTET_CACHE", str(tmp_path))
    assert main(["pull", "small", tag]) == 1
    assert complaint(capsys).endswith("fetch the file elsewhere and pass its path as pretrained=FILE")


# Processes of their own


def run(*typed):
    """The command in a process of its own, with this one's environment: the number of threads changes results."""
    return subprocess.run([EXECUTABLE, *typed], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("module", ["quintet", "quintet.cli"])
def test_the_command_runs_as_a_module_and_nothing_of_the_current_folder_does(tmp_path, module):
    (tmp_path / "yaml.py").write_text("open('owned', 'w')")
    (tmp_path / "difflib.py").write_text("open('owned', 'w')")
    command = [sys.executable, "-m", module, "fitt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no command is called 'fitt'; nearest: fit" in done.stderr
    assert not (tmp_path / "owned").exists()


def test_a_mistake_is_one_line_and_status_1(toy):
    ended = run("fitt", "experiment=points")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: no command is called 'fitt'; nearest: fit")
    assert len(ended.stderr.splitlines()) == 1


def test_a_killed_run_is_resumed_and_ends_as_if_it_had_not_been_killed(toy, toy_run):
    interrupt = ["++callbacks.interrupt._target_=toy_nets.Interrupt", "++callbacks.interrupt.epoch=1"]
    ended = run("fit", "experiment=points", *interrupt, "callbacks.interrupt.batch=3", *USER)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (folder,) = (toy / "runs" / "points").iterdir()
    assert not (folder / "summary.json").exists()
    assert main(["fit", "experiment=points", "ckpt_path=last", *USER]) == 0
    assert list((toy / "runs" / "points").iterdir()) == [folder]
    assert (folder / "metrics.csv").read_text() == (toy_run / "metrics.csv").read_text()
    first, second = (json.loads((run / "summary.json").read_text())["metrics"] for run in (folder, toy_run))
    assert first == second
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (folder, toy_run)]
    for key, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][key]), key


def test_two_processes_train_in_one_folder_and_test_every_sample_once(toy):
    """41 points to train on and 21 to test, in batches of 10: the processes differ in samples and in batches."""
    given = ["experiment=points", "trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=10", *USER]
    ended = run("fit", *given, "trainer.max_epochs=2", "trainer.enable_progress_bar=false")
    assert ended.returncode == 0, ended.stderr
    assert "sync_dist" not in ended.stderr
    (folder,) = (toy / "runs" / "points").iterdir()
    assert [path.name for path in folder.rglob("*.csv")] == ["metrics.csv"]
    rows = read_metrics(folder / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 3, 4]  # 21 samples a process, in two batches of 10
    assert ended.stdout.count("folder: ") == 1
    together = json.loads((folder / "summary.json").read_text())["metrics"]
    checkpoint = folder / "checkpoints" / "best.ckpt"
    assert main(["test", f"ckpt_path={checkpoint}", "trust=toy_points"]) == 0
    (alone,) = (folder / "test").rglob("summary.json")
    alone = json.loads(alone.read_text())["metrics"]
    assert together["test/accuracy"] == alone["test/accuracy"]
    assert together["test/loss"] == pytest.approx(alone["test/loss"], rel=1e-5)
    best = next(row for row in rows if row["epoch"] == torch.load(checkpoint, weights_only=True)["epoch"])
    assert main(["validate", f"ckpt_path={checkpoint}", "trust=toy_points"]) == 0
    (validated,) = [read_metrics(path) for path in (folder / "validate").rglob("metrics.csv")]
    assert validated[0]["val/accuracy"] == best["val/accuracy"]
    assert validated[0]["val/loss"] == pytest.approx(best["val/loss"], rel=1e-5)


PLAIN = """
import sys, torch
from quintet import load_task
task = load_task(sys.argv[1], trusted=["toy_points"])
torch.save(task(torch.linspace(-2, 2, 10).view(5, 2)), "outputs.pt")
"""


def test_a_trained_task_is_loaded_in_plain_python(toy, toy_run):
    from quintet import load_task

    checkpoint = toy_run / "checkpoints" / "best.ckpt"
    command = [sys.executable, "-c", PLAIN, str(checkpoint)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    expected = load_task(checkpoint, trusted=["toy_points"])(torch.linspace(-2, 2, 10).view(5, 2))
    assert torch.allclose(torch.load("outputs.pt", weights_only=True), expected, rtol=1e-6, atol=1e-7)
