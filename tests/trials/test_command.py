"""What people type by mistake or by chance: the answer is the right value, or one or two lines that say what to do."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from quintet.cli import _written, main
from quintet.core.errors import QuintetError
from quintet.core.run.composition import config_names, config_summary
from quintet.core.run.configuration import composed
from quintet.core.run.inspection import build_data

USER = ["--config-dir", "configs"]
NAMES = ("photos (1)", "a,b[2]", "q uo'te", "ünï", "a=b", "#hash", "{run}", "[2020]", "2020", "1_000", "${x", "x\ty")
NAMES += ("null", "Мои данные", "choice(a,b)", "a: b", "'q'", "a\\", "trail ")


def refusal(typed, capsys):
    """The complaint about a command: at most two lines, none of them another library's exception."""
    assert main(typed) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert 1 <= len(lines) <= 2, lines
    assert lines[0].startswith("error: ")
    assert "QUINTET_DEBUG" not in lines[0], lines[0]
    return "\n".join(lines).removeprefix("error: ")


@pytest.fixture
def mine(toy):
    """The user's folder with files and experiments that are not what they should be."""
    files = {
        "plain.txt": b"x",
        "binary.yaml": bytes(range(256)),
        "utf16.yaml": "seed: 1".encode("utf-16"),
        "list.yaml": b"[1, 2]",
        "empty.yaml": b"",
        "tag.yaml": b"seed: !!python/object/apply:os.mkdir [ran]",
        "tab.yaml": b"model:\n\tlr: 1",
        "deep.yaml": b"[" * 5000,
        "bomb.yaml": bomb(10),
        "cycle.yaml": b"a: &a [*a]",
    }
    experiments = {
        "cyclic": "name: ${run_dir}\nrun_dir: ${name}",
        "unknown": "name: ${nothing}",
        "open": "name: ${nothing",
        "twice": "name: a\nname: b",
        "number": "model: 3",
    }
    for name, content in files.items():
        (toy / name).write_bytes(content)
        (toy / "configs" / "experiment" / name.replace("plain.txt", "text.yaml")).write_bytes(content)
    for name, content in experiments.items():
        text = f"# @package _global_\ndefaults:\n  - points\n{content}\n"
        (toy / "configs" / "experiment" / f"{name}.yaml").write_text(text)
    (toy / "configs" / "experiment" / "itself.yaml").write_text("defaults:\n  - itself\n")
    return toy


def bomb(levels):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


# Names of files as they are


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_given_as_it_is_called(toy, name):
    shutil.move("points", name)
    built = build_data(name, ["data=points", "data.noise=0.5"], "configs")
    assert (str(built.root), built.noise) == (name, 0.5)
    if name == "null":  # the option's own word for nothing
        return
    config = composed("fit", ["experiment=points", f"data.root={name}", f"run_dir={name}"], "configs")
    assert config["data"]["init_args"]["root"] == name
    assert config["run_dir"] == name


def test_an_option_that_is_several_values_is_a_sweep_s(toy, capsys):
    complaint = refusal(["fit", "experiment=points", "model.lr=1,2", *USER], capsys)
    assert complaint == "model.lr=1,2 gives several values: try each with -m, or write model.lr='1,2' for one"


# Configurations of the user's


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("binary", "binary.yaml, line 2: not text in UTF-8"),
        ("utf16", "utf16.yaml, line 1: not text in UTF-8"),
        ("tag", "tag.yaml, line 1: the tag tag:yaml.org,2002:python/object/apply:os.mkdir is not read here"),
        ("tab", "tab.yaml, line 2: found character that cannot start any token; indent with spaces, not tabs"),
        ("deep", "deep.yaml, line 1: "),
        ("bomb", "bomb.yaml, line 5: stands for more than 10,000 values"),
        ("cycle", "cycle.yaml, line 1: *a stands within what it names"),
    ],
)
def test_files_that_are_no_configuration_are_refused_at_once(mine, capsys, name, answer):
    start = time.process_time()
    assert answer in refusal(["fit", "--config", f"{name}.yaml"], capsys)
    assert answer in refusal(["fit", f"experiment={name}", *USER], capsys)
    assert time.process_time() - start < 5
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["list.yaml", "empty.yaml", "plain.txt"])
def test_a_configuration_without_options_is_refused(mine, capsys, name):
    assert refusal(["fit", f"--config={name}"], capsys).startswith(f"{name} holds no options; give one such as")
    assert refusal(["fit", "--config", "configs"], capsys).startswith("configs is a folder")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("cyclic", "run_dir: Recursive interpolation detected"),
        ("unknown", "name: Interpolation key 'nothing' not found"),
        ("open", "no viable alternative at input '${nothing'"),
        ("twice", "found duplicate key name"),
        ("itself", "a configuration includes itself"),
        ("number", "no model is chosen"),
        ("list", "no model is chosen"),
        ("text", "no model is chosen"),
        ("null", "no experiment is called 'null'"),
    ],
)
def test_experiments_that_cannot_be_composed_are_refused(mine, capsys, name, answer):
    assert answer in refusal(["fit", f"experiment={name}", "--cfg", *USER], capsys)


# Values that make no sense


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("seed=-1", "seed is -1; give a whole number from 0 to 4294967295"),
        ("seed=1099511627776", "seed is 1099511627776; give a whole number from 0 to 4294967295"),
        ("seed=abc", "seed is abc; give a whole number from 0 to 4294967295"),
        ("seed=1.5", "seed is 1.5; give a whole number"),
        ("trust=7", "trust is 7; give the name of a package of yours"),
        ("trust=[a,7]", "trust is 7; give the name of a package of yours"),
        ("name=${nothing}", "name: Interpolation key 'nothing' not found"),
        ("model.lr=null", "model.lr is null, which PointClassifier does not take"),
        ("data.batch_size=null", "data.batch_size is null, which Points does not take"),
        ("logger=null", "no logger is called 'null'; choices: csv, mlflow, tensorboard, wandb"),
        ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch is 0; give at least 1"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches is 0; give at least 1"),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val is -1; give at least 0"),
        ("trainer.callbacks=[]", "trainer.callbacks is not taken: choose with callbacks=GROUP"),
        ("trainer.logger=false", "trainer.logger is not taken: choose with logger=GROUP"),
        ("trainer.default_root_dir=a", "trainer.default_root_dir is not taken: choose with run_dir=FOLDER"),
        ("data={_target_: 3}", "data: 3 is no class"),
        ("~seed", "seed cannot be removed"),
        ("callbacks.best=3", "callbacks.best is not configured here"),
    ],
)
def test_values_that_make_no_sense_are_refused_before_anything_is_built(toy, capsys, typed, answer):
    assert answer in refusal(["fit", "experiment=points", typed, *USER], capsys)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("trainer.max_epochs=-3", "trainer: `max_epochs` must be a non-negative integer or -1"),
        ("trainer.accelerator=tpu", "trainer: this needs the package torch_xla: pip install torch_xla"),
        ("trainer.strategy=nonsense", "trainer: You selected an invalid strategy name"),
        ("logger=wandb", "this needs the package wandb: pip install wandb"),
        ("run_dir=plain.txt", "plain.txt"),
    ],
)
def test_what_lightning_refuses_is_said_in_its_words_without_its_exception(mine, capsys, typed, answer):
    if typed == "logger=wandb" and __import__("importlib.util").util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    assert answer in refusal(["fit", "experiment=points", typed, *USER], capsys)


def test_a_metric_that_is_not_measured_is_answered_with_those_that_are(toy, capsys):
    typed = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "callbacks.pictures=null", *USER]
    answer = refusal(["fit", "experiment=points", "monitor=val/acuracy", *typed], capsys)
    assert answer == "monitor=val/acuracy: nothing of this name is measured; nearest: val/accuracy"


def test_in_lightning_s_own_grammar_each_kind_that_an_option_takes_is_named(toy, capsys):
    assert "seed_everything: expected a bool or an int, got abc" in refusal(["fit", "--seed_everything", "abc"], capsys)


# Places that cannot be written


@pytest.mark.parametrize("output", ["plain.txt", "plain.txt/x", "/proc/x"])
def test_pictures_of_data_go_nowhere_but_into_a_folder(mine, output):
    with pytest.raises(QuintetError, match=f"^cannot write {output}.*give another output=FOLDER$"):
        list(_written([("classes", Figure())], Path(output), Path("points")))


# In a pipe


def test_a_list_in_a_pipe_is_never_cut(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["list", "experiments"]) == 0
    shown = capsys.readouterr().out
    for name in config_names("experiment"):
        (line,) = [line for line in shown.splitlines() if f" {name} " in line]
        assert config_summary("experiment", name) in line
    assert "…" not in shown


def test_a_terminal_that_knows_ascii_alone_ends_nothing(tmp_path):
    for label in ("light", "dark"):
        for number in range(8):
            path = tmp_path / "fötos" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "quintet", "inspect", "fötos", "output=seen"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | plain, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no faults found" in done.stdout
    assert done.stdout.isascii()
