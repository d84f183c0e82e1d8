"""One verb in a run folder: what it writes, how it resumes, what it says in the end."""

import csv
import json
import shlex
import shutil
import signal

import pytest
import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.core.learning.task import RECORD, load_task
from quintet.core.run.composition import RUN
from quintet.core.run.configuration import composed
from quintet.core.run.inspection import build_data
from quintet.core.run.metrics_file import read_metrics
from quintet.core.run.run_folder import RUN_FOLDER
from quintet.core.run.runner import run_composed

EXPERIMENT = ["fit", "experiment=points", "--config-dir", "configs"]
FIT = [*EXPERIMENT, "callbacks.pictures=null"]  # drawing takes longer than learning
TRUST = "trust=toy_points"


def runs(folder, name="points"):
    return sorted((folder / "runs" / name).iterdir())


def summary(run):
    return json.loads((run / "summary.json").read_text())["metrics"]


def measured_in(run):
    """What the newest test of a run measured."""
    return summary(sorted((run / "test").iterdir())[-1])


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# A finished run


def test_a_run_folder_holds_everything_of_the_run(toy_run):
    assert files(toy_run) >= {
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "pictures/classes.png",
        "pictures/learning_curves.png",
    }
    assert not [name for name in files(toy_run) if "partial" in name or "lightning_logs" in name]


def test_the_metrics_are_one_row_an_epoch_and_one_for_the_test(toy_run):
    rows = read_metrics(toy_run / "metrics.csv")
    assert [row.get("epoch") for row in rows[:3]] == [0, 1, 2]
    assert [row["step"] for row in rows] == [4, 9, 14, 15]  # 41 points in batches of 8, the last one dropped
    assert all(row.keys() >= {"train/loss", "train/lr", "val/loss", "val/accuracy"} for row in rows[:3])
    assert {key: rows[3][key] for key in ("test/loss", "test/accuracy")} == summary(toy_run)


def test_the_best_checkpoint_is_the_one_measured_in(toy_run):
    rows = read_metrics(toy_run / "metrics.csv")
    best = max(rows[:3], key=lambda row: (row["val/accuracy"], -row["epoch"]))
    assert torch.load(toy_run / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == best["epoch"]
    task = load_task(toy_run / "checkpoints" / "best.ckpt", trusted=["toy_points"])
    points, labels = data_of(toy_run, task).datasets["test"].tensors
    with torch.no_grad():
        accuracy = (task(points).argmax(1) == labels).float().mean().item()
    assert summary(toy_run)["test/accuracy"] == pytest.approx(accuracy)


def data_of(run, task):
    from toy_points import Points

    data = Points(str(run.parents[2] / "points"))
    data.adopt(task.description)
    data.setup("test")
    return data


def test_the_configuration_is_written_with_all_defaults_and_without_the_place(toy_run):
    text = (toy_run / "config.yaml").read_text()
    config = yaml.safe_load(text)
    assert text.startswith("# quintet fit --config ")
    assert config["model"]["init_args"]["warmup"] == 0.05
    assert config["data"]["init_args"]["batch_size"] == 8
    assert config["trainer"]["gradient_clip_val"] == 0.5  # the user's trainer/cpu, not the packaged one
    assert config["trainer"]["logger"][0]["init_args"]["save_dir"] == RUN
    assert config["run_dir"] is None
    assert config["ckpt_path"] is None


def test_the_last_lines_name_the_folder_and_a_command_that_works(toy, capsys):
    assert main([*FIT, "trainer.max_epochs=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    folder = runs(toy)[0].relative_to(toy)
    assert f"folder: {folder}" in lines
    command = lines[-1].removeprefix("next:").strip()
    assert command == f"quintet predict ckpt_path={folder}/checkpoints/best.ckpt data.root=FOLDER {TRUST}"
    assert any("test/accuracy" in line for line in lines)
    assert any("PointClassifier: 0.00 M parameters" in line for line in lines)
    assert main(shlex.split(command.replace("FOLDER", "points"))[1:]) == 0


def test_the_same_seed_gives_the_same_run_and_another_seed_another(toy, toy_run):
    assert main(FIT) == 0
    assert main([*FIT, "seed=1", "trainer.max_epochs=1", "name=other"]) == 0
    assert (runs(toy)[0] / "metrics.csv").read_text() == (toy_run / "metrics.csv").read_text()
    rows = read_metrics(runs(toy, "other")[0] / "metrics.csv")
    assert rows[0]["train/loss"] != read_metrics(toy_run / "metrics.csv")[0]["train/loss"]


def test_two_runs_of_one_process_have_two_folders(toy):
    assert main([*FIT, "trainer.max_epochs=1", "trainer.limit_train_batches=1"]) == 0
    assert main([*FIT, "trainer.max_epochs=1", "trainer.limit_train_batches=1"]) == 0
    assert len(runs(toy)) == 2


# From a checkpoint alone


def test_test_and_validate_need_only_the_checkpoint(toy, toy_run, capsys):
    checkpoint = f"ckpt_path={toy_run / 'checkpoints' / 'best.ckpt'}"
    assert main(["test", checkpoint, TRUST, "data.root=points"]) == 0
    assert measured_in(toy_run) == pytest.approx(summary(toy_run), rel=1e-6)
    assert main(["validate", checkpoint, TRUST, "data.root=points"]) == 0
    assert "val/accuracy" in capsys.readouterr().out


def test_new_data_are_read_the_way_the_model_was_trained(toy, toy_run):
    """The new points have other classes and another mean; the description of the checkpoint counts."""
    path = toy / "points" / "points.csv"
    rows = [row for row in path.read_text().splitlines() if not row.endswith("below")]
    path.write_text("\n".join(rows))
    assert main(["test", f"ckpt_path={toy_run / 'checkpoints' / 'best.ckpt'}", TRUST, "data.root=points"]) == 0
    task = load_task(toy_run / "checkpoints" / "best.ckpt", trusted=["toy_points"])
    kept = [row.split(",") for row in rows[1:]][3 * (len(rows) - 1) // 4 :]
    points = torch.tensor([[float(x), float(y)] for x, y, _ in kept])
    with torch.no_grad():
        accuracy = (task(points).argmax(1) == 0).float().mean().item()
    assert measured_in(toy_run)["test/accuracy"] == pytest.approx(accuracy)


def test_predictions_are_those_of_the_model_in_plain_python(toy, toy_run, capsys):
    checkpoint = toy_run / "checkpoints" / "best.ckpt"
    assert main(["predict", f"ckpt_path={checkpoint}", TRUST, "data.root=points", "run_dir=here"]) == 0
    (path,) = (toy / "here" / "predictions").rglob("predictions.csv")
    assert f"wrote {path.relative_to(toy)}" in capsys.readouterr().out
    with path.open() as file:
        header, *rows = csv.reader(file)
    assert header == ["above", "below"]
    task = load_task(checkpoint, trusted=["toy_points"])
    lines = (toy / "points" / "points.csv").read_text().splitlines()[1:]
    points = torch.tensor([[float(x), float(y)] for x, y, _ in (line.split(",") for line in lines)])
    with torch.no_grad():
        expected = task(points).softmax(-1)
    assert torch.allclose(torch.tensor([[float(value) for value in row] for row in rows]), expected, atol=1e-6)


def test_a_checkpoint_that_lies_elsewhere_is_enough(toy, toy_run):
    shutil.copy(toy_run / "checkpoints" / "best.ckpt", toy / "model.ckpt")
    assert main(["predict", "ckpt_path=model.ckpt", TRUST, "data.root=points", "name=elsewhere"]) == 0
    assert len(list(runs(toy, "elsewhere")[0].rglob("predictions.csv"))) == 1


def test_the_newest_run_of_a_name_can_be_measured_in(toy, toy_run):
    shutil.copytree(toy_run, toy / "runs" / "points" / "1")
    assert main(["test", "ckpt_path=last", "name=points", TRUST, "data.root=points"]) == 0
    assert measured_in(toy / "runs" / "points" / "1").keys() == summary(toy_run).keys()


def test_an_experiment_may_be_given_in_place_of_the_record(toy, toy_run):
    checkpoint = f"ckpt_path={toy_run / 'checkpoints' / 'best.ckpt'}"
    assert main(["test", "experiment=points", checkpoint, "--config-dir", "configs"]) == 0
    assert measured_in(toy_run) == pytest.approx(summary(toy_run), rel=1e-6)


def test_a_task_s_own_command_is_a_verb_with_typed_options(toy, toy_run, capsys):
    given = [f"ckpt_path={toy_run / 'checkpoints' / 'best.ckpt'}", TRUST, "data.root=points", "run_dir=here"]
    assert main(["weigh", *given, "digits=4"]) == 0
    task = load_task(toy_run / "checkpoints" / "best.ckpt", trusted=["toy_points"])
    (path,) = (toy / "here" / "weigh").rglob("weight.txt")
    assert path.read_text() == f"{task.net.hidden.weight.norm():.4f}"
    capsys.readouterr()
    for options, complaint in (
        (["weigh", "digit=4"], "error: weigh has no option 'digit'; nearest: digits\n"),
        (["weigh", "digits=many"], "error: digits: expected an int, got many\n"),
        (["wiegh"], "error: PointClassifier has no command 'wiegh'; nearest: weigh\n"),
    ):
        assert main([options[0], *given, *options[1:]]) == 1
        assert capsys.readouterr().err == complaint


# Resuming


@pytest.fixture
def ctrl_c():
    """Lightning ignores further signals after Ctrl-C; the test process must not."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


INTERRUPT = [
    "++callbacks.interrupt._target_=toy_nets.Interrupt",
    "++callbacks.interrupt.epoch=1",
    "++callbacks.interrupt.batch=2",
    "++callbacks.interrupt.by=Ctrl-C",
]


def test_an_interrupted_run_says_how_to_go_on_and_then_ends_as_if_it_had_not_been(toy, toy_run, ctrl_c, capsys):
    assert main([*FIT, *INTERRUPT]) == 130
    (run,) = runs(toy)
    place = run.relative_to(toy)
    command = f"quintet fit --config {place}/config.yaml --ckpt_path {place}/checkpoints/last.ckpt"
    assert f"stopped by Ctrl-C; continue with: {command}" in capsys.readouterr().out
    # Another number of workers reads the same samples.
    assert main([*FIT, "ckpt_path=last", "data.num_workers=2"]) == 0
    assert runs(toy) == [run]
    assert (run / "metrics.csv").read_text() == (toy_run / "metrics.csv").read_text()
    assert summary(run) == summary(toy_run)


def test_averaged_weights_are_resumed_too(toy, ctrl_c):
    for arguments, status in ((INTERRUPT, 130), (["ckpt_path=last"], 0), (["name=whole"], 0)):
        assert main([*FIT, "callbacks=ema", "callbacks.average.decay=0.5", *arguments]) == status
    (cut,), (whole,) = runs(toy), runs(toy, "whole")
    assert (cut / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert summary(cut) == summary(whole)


def test_an_interruption_before_the_first_checkpoint_says_how_to_start_again(toy, ctrl_c, capsys):
    interrupt = [item.replace("epoch=1", "epoch=0") for item in INTERRUPT]
    assert main([*FIT, *interrupt]) == 130
    (run,) = runs(toy)
    again = f"no epoch was finished; start again with: quintet fit --config {run.relative_to(toy)}/config.yaml\n"
    assert again in capsys.readouterr().out


def test_a_full_disk_ends_the_run_and_loses_no_epoch(toy, toy_run, monkeypatch, capsys):
    """The disk is full when the second epoch is saved; with room again, the run ends as an uninterrupted one."""
    save, written = torch.save, []

    def full(content, file):
        written.append(content["epoch"])
        if written.count(1):
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(content, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        assert main(FIT) == 1
    (run,) = runs(toy)
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert "(No space left on device); the previous " in errors[0]
    assert errors[0].endswith("free space and resume with ckpt_path=last")
    assert files(run / "checkpoints") == {"best.ckpt", "last.ckpt"}
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0
    assert main([*FIT, "ckpt_path=last"]) == 0
    assert (run / "metrics.csv").read_text() == (toy_run / "metrics.csv").read_text()


def test_a_finished_run_may_be_prolonged(toy):
    assert main([*FIT, "trainer.max_epochs=1"]) == 0
    assert main([*FIT, "trainer.max_epochs=2", "ckpt_path=last"]) == 0
    (run,) = runs(toy)
    rows = read_metrics(run / "metrics.csv")
    assert [row["step"] for row in rows] == [4, 5, 9, 10]
    assert [index for index, row in enumerate(rows) if "test/loss" in row] == [1, 3]


def test_a_stored_configuration_runs_again_in_a_new_folder(toy, toy_run):
    assert main(["fit", "--config", str(toy_run / "config.yaml"), "--trainer.max_epochs", "1"]) == 0
    (run,) = runs(toy)
    old, new = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (toy_run, run))
    assert (old["trainer"].pop("max_epochs"), new["trainer"].pop("max_epochs")) == (3, 1)
    assert old == new
    assert [row["step"] for row in read_metrics(run / "metrics.csv")] == [4, 5]
    assert files(run) == {name for name in files(toy_run) if name.split("/")[0] not in ("test", "validate", "export")}


def test_a_configuration_of_before_callbacks_moved_runs_too(toy, toy_run):
    text = (toy_run / "config.yaml").read_text()
    assert text.count("quintet.core.run.callbacks.") >= 3
    (toy / "old.yaml").write_text(text.replace("quintet.core.run.", "quintet.core."))
    command = ["fit", "--config", "old.yaml", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    assert main(command) == 0
    (run,) = runs(toy)
    assert "quintet.core.run.callbacks." in (run / "config.yaml").read_text()


# Folders


def test_a_folder_may_be_chosen_but_not_one_that_holds_a_run(toy, toy_run, capsys):
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    assert main([*FIT, *short, "run_dir=here"]) == 0
    assert "checkpoints/best.ckpt" in files(toy / "here")
    capsys.readouterr()
    assert main([*FIT, *short, "run_dir=here"]) == 1
    assert "here already holds a run; resume it with ckpt_path=here/checkpoints/last.ckpt" in capsys.readouterr().err


def test_a_mistyped_value_leaves_no_folder_behind(toy, capsys):
    assert main([*FIT, "model.lr=-1"]) == 1
    assert capsys.readouterr().err == "error: model.lr is -1.0; it lies between 0 and inf\n"
    assert runs(toy) == []


def test_processes_started_one_by_one_need_a_common_folder(toy, monkeypatch, capsys):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert main(FIT) == 1
    assert "cannot agree on a new folder; add run_dir=FOLDER" in capsys.readouterr().err


def test_processes_of_one_run_share_its_folder(toy, monkeypatch):
    (toy / "shared").mkdir()
    monkeypatch.setenv(RUN_FOLDER, str(toy / "shared"))
    runner = run_composed("fit", [FIT[1], "trainer.max_epochs=1", "trainer.limit_train_batches=1"], "configs")
    assert runner.folder == toy / "shared"
    assert "checkpoints/last.ckpt" in files(toy / "shared")


# Injection


@pytest.mark.parametrize(
    ("given", "gain"),
    [
        (["model.net=toy_nets.OtherNet"], 1.0),
        (["model.net._target_=toy_nets.OtherNet", "model.net.gain=2"], 2.0),
        (["model.net={class_path: toy_nets.OtherNet, init_args: {gain: 3}}"], 3.0),
    ],
)
def test_a_network_of_the_user_s_is_put_in_by_its_name(toy, given, gain):
    assert main([*FIT, "trainer.max_epochs=1", *given]) == 0
    (run,) = runs(toy)
    task = load_task(run / "checkpoints" / "last.ckpt", trusted=["toy_points", "toy_nets"])
    assert type(task.net).__name__ == "OtherNet"
    assert task.net.gain == gain
    checkpoint = f"ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    assert main(["test", checkpoint, "trust=[toy_points,toy_nets]"]) == 0


def test_the_class_name_alone_is_enough_where_it_is_known(toy):
    import toy_nets  # noqa: F401

    assert main([*FIT, "trainer.max_epochs=1", "model.net=OtherNet", "callbacks.progress=null"]) == 0
    checkpoint = torch.load(runs(toy)[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint[RECORD]["task"]["init_args"]["net"]["class_path"] == "toy_nets.OtherNet"


def test_another_optimizer_is_put_in_by_its_name(toy):
    given = ["model.optimizer._target_=torch.optim.SGD", "model.optimizer.momentum=0.5"]
    assert main([*FIT, "trainer.max_epochs=1", *given]) == 0
    state = torch.load(runs(toy)[0] / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
    assert {group["momentum"] for group in state["param_groups"]} == {0.5}


# Inspecting data


def test_data_are_recognised_and_their_faults_listed(toy, capsys):
    given = ["inspect", "points", "--config-dir", "configs"]
    assert main(given) == 0
    assert "no faults found" in capsys.readouterr().out
    with open("points/points.csv", "a") as file:
        file.write("1,2,\n")
    assert main(given) == 1
    shown = capsys.readouterr().out
    assert "1 faults" in shown
    assert "points.csv, row 85" in shown
    assert "write it or drop the row" in shown


def test_the_data_module_may_be_named_and_its_options_given(toy):
    (toy / "my (old) points, 2").mkdir()
    data = build_data("my (old) points, 2", ["data=points", "data.noise=0.5"], "configs")
    assert (str(data.root), data.noise, data.batch_size) == ("my (old) points, 2", 0.5, 8)


@pytest.mark.parametrize(
    ("path", "given", "complaint"),
    [
        ("nowhere", [], "no file or folder nowhere"),
        ("configs", [], "no data module recognises configs; name one with data=GROUP: .*points, "),
        ("points", ["model=points"], "quintet inspect does not understand 'model=points'"),
        ("points", ["data=pionts"], "no data is called 'pionts'; nearest: points"),
        ("points", ["data=points", "data.nose=1"], "data.nose: Points has no option 'nose'; nearest: noise"),
    ],
)
def test_what_inspect_does_not_understand_is_said(toy, path, given, complaint):
    with pytest.raises(QuintetError, match=complaint):
        build_data(path, given, "configs")


# What a checkpoint must not do


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["task"].update(class_path="os.system"),
        lambda record: record["task"]["init_args"].update(net={"class_path": "os.system", "init_args": {}}),
        lambda record: record["task"]["init_args"].update(net={"function": "builtins.eval"}),
        lambda record: record["data"].update(class_path="subprocess.Popen"),
        lambda record: record["data"]["init_args"].update(root={"class_path": "os.system"}),
        lambda record: record["task"]["init_args"].update(net="os.system"),
        lambda record: record["task"]["init_args"].update(net="subprocess.Popen"),
        lambda record: record["task"]["init_args"].update(net="quintet.cli.main"),
    ],
)
def test_a_record_that_names_what_runs_commands_is_refused(toy, toy_run, monkeypatch, capsys, change):
    import os
    import subprocess

    ran = []
    for module, name in ((os, "system"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, lambda *arguments, **keywords: ran.append(arguments))
    content = torch.load(toy_run / "checkpoints" / "best.ckpt", weights_only=True)
    change(content[RECORD])
    del content[RECORD]["digest"]
    torch.save(content, toy / "evil.ckpt")
    assert main(["test", "ckpt_path=evil.ckpt", TRUST]) == 1
    errors = [line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("note: ")]
    assert len(errors) <= 2
    assert errors[0].startswith("error: ")
    assert not ran


def test_a_checkpoint_without_data_asks_for_some(toy, toy_run, capsys):
    content = torch.load(toy_run / "checkpoints" / "best.ckpt", weights_only=True)
    del content[RECORD]["data"], content[RECORD]["digest"]
    torch.save(content, toy / "bare.ckpt")
    assert main(["test", "ckpt_path=bare.ckpt", TRUST]) == 1
    assert "was trained without a quintet data module: choose one with data=GROUP" in capsys.readouterr().err


def test_trust_may_be_one_name_or_several(toy, toy_run):
    checkpoint = f"ckpt_path={toy_run / 'checkpoints' / 'best.ckpt'}"
    for given, expected in (("toy_points", ["toy_points"]), ("[toy_points,other]", ["toy_points", "other"])):
        assert composed("test", [checkpoint, f"trust={given}"])["trust"] == expected
