"""What is installed: the wheel holds the package and its configurations, imports without Triton, and starts fast."""

import ast
import email
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("audio", "configs", "core", "graphs", "kernels", "medical", "timeseries", "vision")
LEFT_BEHIND = (".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "multirun")


def python(script, *arguments, **environment):
    """Runs a script away from the repository and returns what it printed."""
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd="/",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by way of the source distribution from a copy, so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(REPOSITORY, folder / "source", ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (path,) = (folder / "dist").glob("*.whl")
    return path


def test_the_wheel_holds_every_module_and_every_configuration_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = [REPOSITORY / name for name in ("__init__.py", "__main__.py", "cli.py")]
    for folder in FOLDERS:
        sources += [
            path for path in (REPOSITORY / folder).rglob("*") if path.suffix in (".py", ".yaml", ".tsv", ".typed")
        ]
    assert names == {f"quintet/{path.relative_to(REPOSITORY)}" for path in sources}


def test_the_wheel_says_what_it_is(wheel):
    content = zipfile.ZipFile(wheel)
    (metadata,) = [email.message_from_bytes(content.read(n)) for n in content.namelist() if n.endswith("/METADATA")]
    assert (metadata["Name"], metadata["License-Expression"]) == ("quintet", "Apache-2.0")
    (entries,) = [content.read(n).decode() for n in content.namelist() if n.endswith("/entry_points.txt")]
    assert "quintet = quintet.cli:main" in entries
    assert "vision = quintet.vision" in entries
    assert any(name.endswith("/licenses/LICENSE") for name in content.namelist())


IMPORT_ALL = """
import importlib, importlib.abc, json, pkgutil, sys

class NoTriton(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path = [NoTriton(), *(finder for finder in sys.meta_path if "__editable__" not in str(finder))]
sys.path.insert(0, sys.argv[1])
import quintet
names = [module.name for module in pkgutil.walk_packages(quintet.__path__, "quintet.")]
files = [importlib.import_module(name).__file__ for name in names]
import torch
y = quintet.core.create_mixer("neighborhood", 32)(torch.zeros(1, 8, 8, 32))
print(json.dumps([quintet.__file__, names, [file for file in files if file], list(y.shape), "triton" in sys.modules]))
"""


def test_every_module_of_the_wheel_imports_and_a_layer_runs_without_triton(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    printed = python(IMPORT_ALL, str(tmp_path), QUINTET_SHAPE_CHECKS="0")
    home, names, files, shape, triton = json.loads(printed.splitlines()[-1])
    assert all(Path(file).is_relative_to(tmp_path) for file in [home, *files])
    assert {f"quintet.{folder}" for folder in FOLDERS} <= set(names)
    assert len(names) == len(set(names)) >= 50
    assert shape == [1, 8, 8, 32]
    assert not triton


START = """
import sys, time
began = time.perf_counter()
import quintet
took = time.perf_counter() - began
from quintet.cli import main
main(["--version"])
main(["fitt"])
print(took, *[name for name in ("torch", "lightning", "hydra", "numpy", "triton") if name in sys.modules])
"""


def test_importing_quintet_and_a_misspelt_command_cost_nothing():
    took = []
    for _ in range(3):
        seconds, *loaded = python(START).splitlines()[-1].split()
        took.append(float(seconds))
        assert not loaded
    assert min(took) < 0.3


LISTING = """
import sys
from quintet.cli import main
assert main(["list", sys.argv[1]]) == 0
print(*[name for name in ("torch", "lightning") if name in sys.modules])
"""


@pytest.mark.parametrize(("kind", "needed"), [("experiments", []), ("mixers", []), ("models", [])])
def test_names_are_listed_without_what_only_training_needs(kind, needed):
    assert python(LISTING, kind).splitlines()[-1].split() == needed


FIRST_BATCH = """
import os, sys
from quintet.core.learning.task import Task

def first_batch(task, batch, index):
    print(*sys.modules, flush=True)
    os._exit(0)

Task.training_step = first_batch
from quintet.cli import main
main(["fit", "experiment=vision/digits", "trainer.accelerator=cpu"])
"""
# What a user who trains a classifier would wait for without any use of it, half a second and more each.
LATER = {"timm", "sklearn.linear_model", "sklearn.manifold", "statsmodels", "xarray", "pycocotools", "h5py", "zarr"}
LATER |= {"onnx", "onnxscript", "tensorboard"}


def test_training_begins_without_what_only_other_commands_need(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = set(python(FIRST_BATCH, QUINTET_SHAPE_CHECKS="0").splitlines()[-1].split())
    assert {"torch", "lightning", "quintet"} <= loaded
    assert not LATER & loaded


def test_names_are_found_on_first_use_and_unknown_ones_refused():
    import quintet
    import quintet.core

    assert quintet.load_task is quintet.core.load_task
    assert set(quintet.__all__) == set(dir(quintet))
    for module in (quintet, quintet.core):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="has no attribute nothing"):
            module.nothing  # noqa: B018


NAMED_OTHERWISE = {"PIL": "Pillow", "hydra": "hydra-core", "sklearn": "scikit-learn", "yaml": "PyYAML"}
# What xarray reads and writes by, which needs no import of ours.
ENGINES = {"h5netcdf", "numcodecs", "zarr"}
OF_EXTRAS = {"onnxruntime", "triton"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    imported = set()
    for folder in (*FOLDERS, "cli.py"):
        path = REPOSITORY / folder
        for file in [path] if path.is_file() else path.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, "quintet", *OF_EXTRAS}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert declared - ENGINES == {NAMED_OTHERWISE.get(name, name) for name in imported}
