"""Run-time shape checks for the whole suite, few threads, and where the shared data lies."""

import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

# Programs that are started in the background inherit that these are ignored, and what ignores them cannot test them.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

if os.environ.get("QUINTET_SHAPE_CHECKS", "1") != "0":
    assert not any(name.split(".")[0] == "quintet" for name in sys.modules), "the hook must come before quintet"
    from jaxtyping import install_import_hook

    install_import_hook("quintet", "beartype.beartype")

import hypothesis
import numpy as np
import pytest
from PIL import Image

# Deadlines measure the machine, not the code; a fixed seed makes a failure repeatable on any machine.
hypothesis.settings.register_profile("quintet", deadline=None, derandomize=True, max_examples=20)
hypothesis.settings.load_profile("quintet")

DATA = Path(os.environ.get("QUINTET_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")).resolve()


@pytest.fixture
def shared_data():
    """Function from a folder's name to its path; the test is skipped, saying so, where the folder is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.is_dir():
            pytest.skip(f"{path} is absent; set QUINTET_DATA to the folder of shared data")
        return path

    return find


TOY = Path(__file__).parent / "toy"


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """While it lasts, commands run in `folder`; what they leave in this process is undone afterwards."""
    before = Path.cwd(), dict(os.environ), list(sys.path), list(sys.argv)
    os.chdir(folder)
    sys.argv = ["quintet"]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before[0])
        os.environ.clear()
        os.environ.update(before[1])
        sys.path[:], sys.argv = before[2], before[3]


def copy_toy(folder: Path) -> Path:
    """A user's folder: own classes, own configurations, own data (83 points, so that no batch size divides them)."""
    shutil.copytree(TOY, folder, dirs_exist_ok=True)
    draw = random.Random(0)
    points = [(draw.gauss(0, 1), draw.gauss(0, 1)) for _ in range(83)]
    rows = [f"{x:.4f},{y:.4f},{'above' if x + y > 0 else 'below'}" for x, y in points]
    (folder / "points").mkdir()
    (folder / "points" / "points.csv").write_text("\n".join(["x,y,label", *rows, ""]))
    return folder


@pytest.fixture
def toy(tmp_path):
    """A copy of tests/toy with data in it; the test runs in that folder."""
    with inside(copy_toy(tmp_path)):
        yield tmp_path


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """The run folder of a finished `quintet fit` of tests/toy; tests read it and add to it, but change nothing."""
    from quintet.cli import main

    folder = copy_toy(tmp_path_factory.mktemp("trained"))
    with inside(folder):
        assert main(["fit", "experiment=points", "--config-dir", "configs"]) == 0
    return next((folder / "runs" / "points").iterdir())


# What a user might have, for the commands of the documents.


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of small photographs."""
    random = np.random.default_rng(0)
    for label in ("dark", "light"):
        for number in range(12):
            pixels = random.integers(0, 100, (40, 48, 3)) + (150 if label == "light" else 0)
            path = tmp_path / "photos" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype("uint8")).save(path)
    return tmp_path / "photos"


SMILES = "CCO CCCO CC(C)O CCCCO c1ccccc1 Cc1ccccc1 Oc1ccccc1 Nc1ccccc1 CC(=O)O CCC(=O)O CCN CCCN CNC CC#N CCCl CCBr"
SMILES = (
    f"{SMILES} C1CCCCC1 C1CCCC1 OC1CCCCC1 c1ccncc1 Cc1ccncc1 c1ccoc1 c1ccsc1 CC(C)=O CCC(C)=O CCOC COC CCOCC".split()
)


@pytest.fixture
def molecules(tmp_path: Path) -> Path:
    """Tables and an SDF of thirty small molecules, salts and a molecule that stands twice among them."""
    import pandas as pd
    from rdkit import Chem

    smiles = [*SMILES, "CC(=O)[O-].[Na+]", "OCC"]
    numbers = pd.DataFrame({"smiles": smiles, "id": [f"M{at:02}" for at in range(30)], "logp": np.arange(30) / 10})
    numbers.to_csv(tmp_path / "molecules.csv", index=False)
    numbers[4:24].to_csv(tmp_path / "few.csv", index=False)
    numbers[["smiles", "id"]].tail(4).to_csv(tmp_path / "new_molecules.csv", index=False)
    labels = pd.DataFrame({"smiles": smiles, "toxic": np.arange(30) % 2, "bitter": [0, 1, None] * 10}).convert_dtypes()
    labels.to_csv(tmp_path / "toxicity.csv", index=False)
    with Chem.SDWriter(str(tmp_path / "ligands.sdf")) as writer:
        for at, one in enumerate(smiles):
            molecule = Chem.MolFromSmiles(one)
            molecule.SetProp("activity", str(at / 7))
            writer.write(molecule)
    return tmp_path


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Small images with masks of two classes."""
    random = np.random.default_rng(0)
    for number in range(12):
        mask = (random.integers(0, 2, (5, 6)) > 0).repeat(8, 0).repeat(8, 1).astype("uint8")
        pixels = random.integers(0, 100, (40, 48, 3)) + 150 * mask[..., None]
        for part, array in (("images", pixels.astype("uint8")), ("masks", mask)):
            path = tmp_path / "scenes" / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return tmp_path / "scenes"


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """A year and a half of two daily series."""
    days = np.arange(np.datetime64("2023-01-01"), np.datetime64("2024-07-01"))
    week = np.sin(2 * np.pi * np.arange(len(days)) / 7)
    rows = [f"{day},{20 + 5 * wave:.3f},{9 - wave:.3f}" for day, wave in zip(days, week)]
    path = tmp_path / "sales.csv"
    path.write_text("\n".join(["date,umbrellas,hats", *rows]) + "\n")
    return path
