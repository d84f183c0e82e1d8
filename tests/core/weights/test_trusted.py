"""What a checkpoint may name: derived from the package, at home where it is named."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from quintet.core import attention, ssm
from quintet.core.errors import QuintetError
from quintet.core.weights import former
from quintet.core.weights.described import description_of
from quintet.core.weights.trusted import own_modules, resolve

RECORDED = Path(__file__).parents[2] / "checkpoints" / "paths.txt"
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", RECORDED.read_text().split())
def test_what_earlier_code_recorded_is_found(path):
    assert resolve(path).__name__ == path.rpartition(".")[2]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (attention.Attention, "quintet.core.attention.Attention"),
        (ssm.Mamba, "quintet.core.ssm.Mamba"),
        (nn.Linear, "torch.nn.Linear"),
    ],
)
def test_public_names_are_recorded(target, name):
    assert description_of(target) == {"class_path": name, "init_args": {}, "partial": True}
    assert resolve(name) is target


def test_domains_offer_their_tasks_by_short_names():
    from quintet.vision.tasks.classification import ImageClassifier

    assert description_of(ImageClassifier)["class_path"] == "quintet.vision.ImageClassifier"


@pytest.mark.parametrize(
    "path",
    [
        "quintet.core.ssm.Attention",  # at home elsewhere
        "quintet.core.blocks.block.Attention",  # imported there
        "quintet.vision.models.Encoder",
        "quintet.core.blocks.encoder.nn",
        "quintet.core.load_task",  # reads files
        "quintet.core.create_model",
        "quintet.core.attention.dense.softmax._heads",
        "quintet.kernels.list_specs",
        "quintet.setup.setup",
        "quintet.cli.main",
        "quintet.benchmarks.write_docs.main",
        "torch.nn.modules.container.OrderedDict",
        "torch.load",
        "quintet.core.callbacks.Checkpoint",  # moved, and no more to be named than before
        "quintet.core.metrics_file.MetricsFile",
        "quintet.vision.models.register_once_timm_is_there",  # gives nothing: it acts
        "quintet.core.adaptation.lora.merge_adapters",
    ],
)
def test_what_is_not_at_home_or_does_not_compute_is_refused(path):
    with pytest.raises(QuintetError, match="the file asks for"):
        resolve(path)


def test_a_module_that_moved_is_found_where_it_is(monkeypatch):
    monkeypatch.setattr(former, "FORMER", {"quintet.core.old": "quintet.core.older", "quintet.core.older": "os"})
    with pytest.raises(QuintetError, match=r"os\.system"):
        resolve("quintet.core.old.system")
    moved = {"quintet.core.old": "quintet.core.older", "quintet.core.older": "quintet.core.attention"}
    monkeypatch.setattr(former, "FORMER", moved)
    assert resolve("quintet.core.old.Attention") is attention.Attention


def test_configurations_of_before_a_move_name_what_is_there_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = {
        "class_path": "quintet.core.callbacks.Checkpoint",
        "init_args": {"maps": ["quintet.core.attention.linear.elu_plus_one", "quintet.core.block.csv", 3]},
    }
    (tmp_path / "quintet.core.block.csv").touch()
    assert former.with_present_paths(old) == {
        "class_path": "quintet.core.run.callbacks.Checkpoint",
        "init_args": {
            "maps": ["quintet.core.attention.feature_maps.elu_plus_one", "quintet.core.block.csv", 3],
        },
    }
    for text in ("", "a", ".a", "a.b", "../a.b", "torch.nn.GELU"):
        assert former.with_present_paths(text) == text


def test_every_module_of_the_package_is_known_and_none_beside_it():
    names = set(own_modules())
    assert {"quintet.core.mixer", "quintet.kernels.glu", "quintet.vision.models.nat"} <= names
    assert not any(name.split(".")[1] in ("cli", "setup", "tests", "docs", "benchmarks") for name in names)
    assert all(place.is_file() for place in own_modules().values())


READS = {
    "os",
    "pathlib",
    "subprocess",
    "shutil",
    "socket",
    "urllib",
    "http",
    "pickle",
    "tempfile",
    "ctypes",
    "webbrowser",
}


def admitted_functions():
    for name in own_modules():
        for item in vars(importlib.import_module(name)).values():
            if inspect.isfunction(item) and item.__module__ == name:
                try:
                    yield name, resolve(f"{name}.{item.__name__}")
                except QuintetError:
                    continue


def imports_of(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names}


def test_functions_that_a_checkpoint_may_name_live_where_nothing_is_read_or_started():
    homes = {name for name, _ in admitted_functions()}
    assert {"quintet.core.attention.linear.linear", "quintet.kernels.glu"} <= homes
    found = {name: imports_of(own_modules()[name].read_text("utf-8")) & READS for name in homes}
    # A class there says which arguments a file of weights was trained with; its functions take no path.
    assert {name: modules for name, modules in found.items() if modules} == {
        "quintet.timeseries.models.tirex": {"pathlib"}
    }


def test_mixers_are_found_without_importing_what_trains():
    code = (
        "import sys; from quintet.core.weights.registry import list_mixers; assert 'mamba' in list_mixers();"
        "print(*{name.split('.')[0] for name in sys.modules} & {'lightning', 'hydra', 'timm', 'torchmetrics'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout.strip() == ""
