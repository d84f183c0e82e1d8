"""One file of a task: traced, verified, whole, never over another; and every refusal."""

import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.core.learning.deployable import Deployable
from quintet.core.learning.task import RECORD, load_task
from quintet.core.run import export
from quintet.core.run.export import difference, export_checkpoint, traced, verified, written_whole
from quintet.core.weights.pretrained import load_weights, read_checkpoint, read_state_dict

TRUST = "trust=toy_points"
POINTS = torch.linspace(-3, 3, 14).view(7, 2)


@pytest.fixture
def checkpoint(toy, toy_run):
    return toy_run / "checkpoints" / "best.ckpt"


def exported(checkpoint, *options):
    return main(["export", f"ckpt_path={checkpoint}", TRUST, *options])


def expected(checkpoint, temperature=1.0):
    with torch.no_grad():
        return (load_task(checkpoint, ["toy_points"])(POINTS) / temperature).softmax(-1)


def test_a_graph_gives_what_the_task_gives_and_says_what_was_verified(checkpoint, capsys):
    assert exported(checkpoint, "format=torch_export", "output=points.pt2", "temperature=2") == 0
    said = capsys.readouterr().out
    errors = re.findall(r"verified: points (\d) x 2: largest relative error (\S+) ", said)
    assert [batch for batch, _ in errors] == ["3", "1", "2"]
    assert all(float(error) <= 1e-4 for _, error in errors)
    assert "wrote points.pt2" in said
    extra = {"quintet.json": ""}
    program = torch.export.load("points.pt2", extra_files=extra)
    (found,) = program.module()(POINTS)
    assert torch.allclose(found, expected(checkpoint, 2.0), atol=1e-6)
    about = json.loads(extra["quintet.json"])
    assert about["classes"] == ["above", "below"]
    assert about["task"]["class_path"] == "toy_points.PointClassifier"


def test_without_output_the_file_lies_in_a_new_folder_of_the_run(checkpoint, capsys):
    before = set(checkpoint.parents[1].glob("export/*/model.pt2"))
    assert exported(checkpoint, "format=torch_export") == 0
    (path,) = set(checkpoint.parents[1].glob("export/*/model.pt2")) - before
    assert "wrote" in capsys.readouterr().out
    assert [found.name for found in path.parent.iterdir()] == ["model.pt2"]


def test_weights_with_their_record_are_a_checkpoint_like_any_other(checkpoint, toy, capsys):
    assert exported(checkpoint, "format=safetensors", "output=points.safetensors") == 0
    path = toy / "points.safetensors"
    task = load_task(path, ["toy_points"])
    with torch.no_grad():
        assert torch.equal(task(POINTS).softmax(-1), expected(checkpoint))
    before, after = (read_checkpoint(file)[RECORD] for file in (checkpoint, path))
    assert after == before
    assert isinstance(after["description"]["mean"], tuple)
    assert main(["predict", "ckpt_path=points.safetensors", TRUST, "data.root=points", "run_dir=here"]) == 0
    assert len(list((toy / "here").rglob("predictions.csv"))) == 1
    assert main(["show", "ckpt_path=points.safetensors"]) == 0
    assert "PointClassifier" in capsys.readouterr().out
    assert read_state_dict(path).keys() == task.state_dict().keys()
    other = load_task(checkpoint, ["toy_points"])
    nn.init.zeros_(other.net.head.weight)
    report = load_weights(other, path)
    assert report.loaded == len(task.state_dict())
    assert torch.equal(other.net.head.weight, task.net.head.weight)


PLAIN = """
import sys, torch
(found,) = torch.export.load("points.pt2").module()(torch.linspace(-3, 3, 14).view(7, 2))
assert not any(name.split(".")[0] == "quintet" for name in sys.modules)
torch.save(found, "found.pt")
"""


def test_a_graph_runs_where_quintet_is_not_imported(checkpoint):
    assert exported(checkpoint, "format=torch_export", "output=points.pt2") == 0
    ended = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    assert torch.allclose(torch.load("found.pt", weights_only=True), expected(checkpoint), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "no format is given; add format=onnx|torch_export|safetensors"),
        (["format=onx"], "no format is called 'onx'; nearest: onnx; add format=onnx|torch_export|safetensors"),
        (["format=torch_export", "output=points.onnx"], "output=points.onnx: files of format=torch_export end in .pt2"),
        (["format=torch_export", "temprature=2"], "export has no option 'temprature'; nearest: temperature"),
        (["format=torch_export", "temperature=hot"], "temperature: expected a float, got hot"),
        (["format=safetensors", "temperature=2"], "format=safetensors holds weights alone; it takes no temperature"),
        (["format=torch_export", "points"], "quintet export does not understand 'points'"),
        (["format=torch_export", "output=there/points.pt2"], "exists and is not overwritten"),
    ],
)
def test_what_cannot_be_exported_is_said(checkpoint, toy, capsys, options, complaint):
    (toy / "there").mkdir()
    (toy / "there" / "points.pt2").write_text("precious")
    assert exported(checkpoint, *options) == 1
    assert complaint in capsys.readouterr().err
    assert (toy / "there" / "points.pt2").read_text() == "precious"
    assert not list(toy.glob("*.pt2"))


def test_a_format_whose_package_is_missing_says_how_to_get_it(checkpoint, monkeypatch, capsys):
    monkeypatch.setitem(export.PACKAGES, "onnx", ("onnx_that_is_not_there",))
    assert exported(checkpoint, "format=onnx") == 1
    assert capsys.readouterr().err == "error: format=onnx needs onnx_that_is_not_there: pip install 'quintet[export]'\n"


def test_a_checkpoint_is_needed(toy, capsys):
    assert main(["export", "format=onnx"]) == 1
    assert "export needs a checkpoint" in capsys.readouterr().err
    assert main(["export", "ckpt_path=none.ckpt", "format=onnx"]) == 1
    assert "no file none.ckpt" in capsys.readouterr().err


def test_a_task_without_a_graph_says_what_is_left(checkpoint, monkeypatch):
    from quintet.core.learning.task import Task

    module = sys.modules[type(load_task(checkpoint, ["toy_points"])).__module__]
    monkeypatch.delattr(module.PointClassifier, "deployable")
    assert module.PointClassifier.deployable is Task.deployable
    with pytest.raises(QuintetError, match="PointClassifier has no graph to export; format=safetensors"):
        list(export_checkpoint(checkpoint, {"format": "torch_export"}, ["toy_points"]))


class Branching(nn.Module):
    """Differs between tracing and running, as code that looks at its data does."""

    def forward(self, x):
        return (x + torch.compiler.is_exporting(),)


def test_a_graph_that_differs_is_not_kept(tmp_path):
    x = torch.ones(3, 2)
    deployable = Deployable(Branching(), {"x": x[:2]}, {"x": x}, {"x": {0: "batch"}}, ["y"])
    program, note = traced(deployable)
    assert note == ""
    with (
        pytest.raises(QuintetError, match=r"differs from the task by 1.0e\+00 at x 3 x 2, more than 1e-04"),
        written_whole(tmp_path / "new" / "y.pt2") as partial,
    ):
        verified(deployable, export.write_torch_export(program, partial, deployable, {}))
    assert not (tmp_path / "new").exists()


class Wide(nn.Module):
    """Takes one width alone, where the batch and the height are free."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(4, 1)

    def forward(self, x):
        return (self.map(x).mean(1),)


def test_what_must_stay_fixed_is_fixed_and_said():
    torch.manual_seed(0)
    axes = {"x": {0: "batch", 1: "height", 2: "width"}}
    deployable = Deployable(Wide(), {"x": torch.randn(2, 6, 4)}, {"x": torch.randn(3, 5, 5)}, axes, ["y"])
    program, note = traced(deployable)
    assert note == "this network cannot be traced for any height and width: the file takes x (6, 4) alone"
    checks = verified(deployable, lambda inputs: list(program.module()(*inputs)))
    assert [shapes for shapes, _ in checks] == ["x 3 x 6 x 4", "x 1 x 6 x 4", "x 2 x 6 x 4"]
    with pytest.raises(QuintetError, match="this network cannot be traced: "):
        traced(Deployable(Looking(), {"x": torch.ones(2, 2)}, {"x": torch.ones(3, 2)}, {"x": {0: "batch"}}, ["y"]))


def test_a_graph_for_some_sizes_only_is_not_taken_for_one_of_any():
    """Tracing sees one of two ways and asserts that it is the one."""
    axes = {"x": {0: "batch", 1: "height"}}
    deployable = Deployable(Halving(), {"x": torch.ones(2, 6)}, {"x": torch.ones(3, 5)}, axes, ["y"])
    program, note = traced(deployable)
    assert note == "this network cannot be traced for any height: the file takes x (6,) alone"
    assert len(verified(deployable, lambda inputs: list(program.module()(*inputs)))) == 3


class Halving(nn.Module):
    """Treats odd sizes in another way."""

    def forward(self, x):
        return (x[:, 1:] if x.shape[1] % 2 else x * 2,)


class Looking(nn.Module):
    """Branches on its data, which no graph can."""

    def forward(self, x):
        return (x if x.sum() > 0 else -x,)


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]), 0.5),
        (torch.tensor([1, 2]), torch.tensor([1, 4]), 0.5),
        (torch.zeros(0), torch.zeros(0), 0),
        (torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0]), 0),
        (torch.tensor([torch.nan, 1.0]), torch.tensor([1.0, 1.0]), float("inf")),
        (torch.zeros(2), torch.zeros(3), float("inf")),
    ],
)
def test_differences(found, expected, error):
    assert difference(found, expected) == error


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a" / "file.pt2"

    def write(meanwhile):
        with written_whole(path) as partial:
            partial.write_text("half")
            meanwhile()

    with pytest.raises(ZeroDivisionError):
        write(lambda: 1 / 0)
    assert not path.parent.exists()
    with pytest.raises(QuintetError, match="exists and is not overwritten"):
        write(lambda: path.write_text("another's"))
    assert [found.name for found in path.parent.iterdir()] == ["file.pt2"]
    assert path.read_text() == "another's"
    write_below = written_whole(path / "below.pt2")
    with pytest.raises(QuintetError, match="cannot write"):
        write_below.__enter__()


@pytest.mark.peers
def test_onnx_of_a_task(checkpoint):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert exported(checkpoint, "format=onnx", "output=points.onnx") == 0
    session = onnxruntime.InferenceSession("points.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"points": POINTS.numpy()})
    assert torch.allclose(torch.from_numpy(found), expected(checkpoint), atol=1e-6)
    about = json.loads(session.get_modelmeta().custom_metadata_map["quintet"])
    assert about["classes"] == ["above", "below"]


class Roots(nn.Module):
    """Eigenvalues, for which ONNX has no operation."""

    def forward(self, x):
        return (torch.linalg.eigvalsh(x),)


@pytest.mark.peers
def test_what_onnx_cannot_express_is_said_in_one_line(tmp_path):
    pytest.importorskip("onnxruntime")
    x = torch.eye(3).expand(3, 3, 3).contiguous()
    deployable = Deployable(Roots(), {"x": x[:2]}, {"x": x}, {"x": {0: "batch"}}, ["roots"])
    program, _ = traced(deployable)
    with pytest.raises(QuintetError, match=r"^ONNX cannot express this network: .*; format=torch_export can$"):
        export.write_onnx(program, tmp_path / "x.onnx", deployable, {})
