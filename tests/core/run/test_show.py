"""What a checkpoint says of itself."""

import pytest
import torch

from quintet.cli import main
from quintet.core.learning.task import RECORD, load_task
from quintet.core.run.metrics_file import read_metrics
from quintet.core.run.show import facts_of, show_checkpoint


@pytest.fixture
def checkpoint(toy, toy_run):
    return toy_run / "checkpoints" / "best.ckpt"


def changed(checkpoint, toy, **record):
    content = torch.load(checkpoint, weights_only=True)
    del content[RECORD]["digest"]
    content[RECORD] |= record
    torch.save(content, toy / "changed.ckpt")
    return toy / "changed.ckpt"


def test_everything_a_person_asks_of_a_file(checkpoint, toy_run):
    facts = dict(facts_of(checkpoint))
    assert facts["task"] == "PointClassifier"
    assert facts["model.lr"] == "0.01"
    assert facts["data"].startswith("Points(root=points, noise=0.1, batch_size=8")
    state = load_task(checkpoint, ["toy_points"]).state_dict()
    count = sum(value.numel() for value in state.values())
    assert facts["parameters"].startswith(f"0.00 M in {len(state)} tensors of float32: ")
    assert f"net {count - 2:,}" in facts["parameters"]
    assert facts["classes"] == "above, below"
    epoch = torch.load(checkpoint, weights_only=True)["epoch"]
    row = next(row for row in read_metrics(toy_run / "metrics.csv") if row["epoch"] == epoch)
    assert facts["trained"] == f"{epoch + 1} epochs, {5 * (epoch + 1)} steps"
    assert float(facts["val/accuracy"]) == pytest.approx(row["val/accuracy"], abs=1e-4)
    assert float(facts["train/loss"]) == pytest.approx(row["train/loss"], abs=1e-4)
    assert facts["where"].startswith("runs/points/")
    assert ", cpu, " in facts["where"]
    assert f"torch {torch.__version__}" in facts["with"]
    assert facts["licence"].startswith("its weights come from this training alone")


def test_nothing_of_the_checkpoint_is_imported_or_run(checkpoint, toy, capsys):
    """A record may name any package: it is only read."""
    task = {"class_path": "nowhere.Evil", "init_args": {"x": {"class_path": "[bold]os.system", "init_args": {}}}}
    assert main(["show", f"ckpt_path={changed(checkpoint, toy, task=task)}"]) == 0
    said = capsys.readouterr().out
    assert "Evil" in said
    assert "system()" in said


def test_a_task_without_arguments_is_shown(checkpoint, toy, capsys):
    assert main(["show", f"ckpt_path={changed(checkpoint, toy, task={'class_path': 'nowhere.Evil'})}"]) == 0
    assert "Evil" in capsys.readouterr().out


def test_brackets_are_no_markup(checkpoint, toy, capsys):
    record = torch.load(checkpoint, weights_only=True)[RECORD]
    description = record["description"] | {"classes": ["[red]a[/red]", "b"]}
    assert main(["show", f"ckpt_path={changed(checkpoint, toy, description=description)}"]) == 0
    assert "[red]a[/red], b" in capsys.readouterr().out


def test_long_lists_are_cut_and_nested_ones_bracketed(checkpoint, toy):
    description = {"classes": [str(number) for number in range(100)], "palette": [[1, 2, 3], [4, 5, 6]], "span": None}
    facts = dict(facts_of(changed(checkpoint, toy, description=description)))
    assert facts["classes"].endswith("22, 23, ... 100 in all")
    assert facts["palette"] == "(1, 2, 3), (4, 5, 6)"
    assert "span" not in facts


def test_where_the_first_weights_came_from_is_said_with_their_licence(checkpoint, toy):
    origin = {"weights": "hub:a/b", "licence": "non-commercial"}
    path = changed(checkpoint, toy, origin=origin)
    facts = dict(facts_of(path))
    assert (facts["first weights"], facts["licence"]) == ("hub:a/b", "non-commercial")
    task = load_task(path, ["toy_points"])
    assert task.record()["origin"] == origin


def test_a_checkpoint_of_an_earlier_quintet_is_shown_too(checkpoint, toy):
    content = torch.load(checkpoint, weights_only=True)
    del content[RECORD]["training"], content[RECORD]["digest"]
    torch.save(content, toy / "old.ckpt")
    facts = dict(facts_of(toy / "old.ckpt"))
    assert facts["trained"].startswith(f"{content['epoch'] + 1} epochs, ")
    assert "where" not in facts


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "show needs a checkpoint: add ckpt_path="),
        (["ckpt_path=none.ckpt"], "no file none.ckpt"),
        (["ckpt_path={checkpoint}", "classes=1"], "show takes ckpt_path=FILE alone, not classes"),
        (["ckpt_path=weights.pt"], "was not written by quintet"),
    ],
)
def test_what_cannot_be_shown_is_said(checkpoint, toy, capsys, given, complaint):
    torch.save({"a": torch.ones(1)}, "weights.pt")
    assert main(["show", *(item.format(checkpoint=checkpoint) for item in given)]) == 1
    assert complaint in capsys.readouterr().err


def test_the_table_has_one_row_a_fact(checkpoint):
    assert show_checkpoint(checkpoint).row_count == len(facts_of(checkpoint))
