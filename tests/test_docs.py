"""Every command and every line of Python of docs/ runs, shortened to a few steps, in a folder of small files."""

import os
import re
import shlex
from pathlib import Path

import jaxtyping
import numpy as np
import pandas as pd
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

# What makes a command of a document a matter of seconds.
FEW = ["trainer.max_epochs=1", "callbacks.progress=null", "callbacks.pictures=null", "data.num_workers=0"]
FEW += [f"trainer.limit_{stage}_batches=2" for stage in ("train", "val", "test")]
IMAGES = ["data.image_size=32", "data.batch_size=4"]
TREX = "{patch_size: 8, dim: 16, depth: 1, hidden_dim: 32, num_heads: 2}"
SHORT = {
    "vision/folder": IMAGES,
    "vision/multilabel": [*IMAGES, "model.backbone=vit_tiny"],
    "vision/segment": [*IMAGES, "model.backbone=mit_b0"],
    "vision/features": [*IMAGES, "model.backbone=vit_tiny"],
    "timeseries/tirex": ["data.context=32", f"model.backbone_arguments={TREX}"],
    "timeseries/finetune": ["data.context=32", "data.horizon=32"],
    "timeseries/anomaly": ["data.split={val: 0.2, test: 0.2}"],
    "timeseries/disaggregate": ["data.length=64"],
    "graphs/molecules": ["model.backbone_arguments={dim: 16, depth: 1}"],
    "graphs/molecule_classes": ["model.baselines=false"],
    "graphs/finetune": ["model.backbone_arguments={dim: 16, depth: 1}", "model.baselines=false"],
}
SHARED = "../shared/data/"  # where the documents have published data
DATA = Path(os.environ.get("QUINTET_DATA", DOCS.parents[1] / "shared" / "data")).resolve()


def commands(document: str) -> list[list[str]]:
    """Arguments of each command `quintet`, in order."""
    lines = re.findall(r"^    quintet (\S.*)$", (DOCS / document).read_text(), flags=re.MULTILINE)
    found = [shlex.split(line.split(" #")[0]) for line in lines]
    return [
        [argument.replace(SHARED, f"{DATA}/") for argument in arguments] for arguments in found if _can_run(arguments)
    ]


def _can_run(arguments: list[str]) -> bool:
    """False for a command on published data that are not there."""
    places = [argument.split(SHARED)[1] for argument in arguments if SHARED in argument]
    return all((DATA / place).exists() for place in places)


def run(document: str, capsys: pytest.CaptureFixture) -> None:
    from quintet.cli import main
    from quintet.core.run import run_folder

    for arguments in commands(document):
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(run_folder.RUN_FOLDER, raising=False)
            # A place in the documents, runs/<experiment>/.../best.ckpt, is that of the newest run.
            arguments = [re.sub(r"runs/\S+best\.ckpt", newest, argument) for argument in arguments]
            experiment = next((part.split("=")[1] for part in arguments if part.startswith("experiment=")), None)
            if arguments[0] == "fit":
                arguments += FEW
            arguments += SHORT.get(experiment, [])
            patch.setattr("sys.argv", ["quintet", *arguments])
            # What is traced has sizes that are no numbers.
            patch.setattr(jaxtyping.config, "jaxtyping_disable", arguments[0] == "export")
            assert main(arguments) == 0, (arguments, capsys.readouterr().err)


def newest(place: re.Match) -> str:
    experiment = place[0].removeprefix("runs/").split("/...")[0]
    return str(max(Path("runs", experiment).glob("*/checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime))


@pytest.fixture
def labels(photos: Path) -> Path:
    """photos with two labels an image."""
    paths = sorted(photos.rglob("*.png"))
    rows = [
        f"{path.relative_to(photos.parent)},{int(path.parent.name == 'dark')},{int(path.stem) % 2}" for path in paths
    ]
    path = photos.parent / "labels.csv"
    path.write_text("\n".join(["path,dark,odd", *rows]) + "\n")
    return path


def test_vision(tmp_path: Path, photos: Path, scenes: Path, labels: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new_photos").symlink_to(photos / "dark")
    (tmp_path / "new_scenes").symlink_to(scenes / "images")
    run("vision.md", capsys)
    assert list(tmp_path.glob("runs/vision/folder/*/predictions/*/predictions.csv"))
    assert list(tmp_path.glob("**/embeddings.parquet"))
    assert (tmp_path / "model.safetensors").is_file()


def test_timeseries(tmp_path: Path, sales: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    frame = pd.read_csv(sales)
    frame.loc[100:104, "hats"] = np.nan
    frame.to_csv("gaps.csv", index=False)
    days = pd.date_range("2023-01-01", periods=400)
    shops = [
        pd.DataFrame({"store": name, "date": days, "price": random.normal(5, 1, 400), "open": 1.0, "region": region})
        for name, region in (("Graz", "south"), ("Linz", "north"))
    ]
    shops = pd.concat(shops).assign(sold=lambda rows: 20 - rows["price"])
    shops.to_csv("shops.csv", index=False)
    for label in ("circle", "line"):
        for number in range(8):
            path = Path("gestures", label, f"{number}.csv")
            path.parent.mkdir(parents=True, exist_ok=True)
            turns = np.arange(20 + number) / (3 if label == "circle" else 300)
            pd.DataFrame({"x": np.cos(turns), "y": np.sin(turns)}).to_csv(path, index=False)
    minutes = pd.date_range("2024-01-01", periods=600, freq="min")
    kettle = 2000.0 * (np.arange(600) % 40 < 4)
    pd.DataFrame({"date": minutes, "aggregate": kettle + 100, "kettle": kettle}).to_csv("house.csv", index=False)
    run("timeseries.md", capsys)
    for written in ("forecast.nc", "filled.csv"):
        assert Path(written).exists()


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """One graph whose nodes have classes, and forty rings and paths."""
    random = np.random.default_rng(0)
    for folder in ("papers", "shapes"):
        (tmp_path / folder).mkdir()
    kind = np.arange(60) % 2
    nodes = pd.DataFrame({"id": [f"p{at}" for at in range(60)], "label": np.array(["art", "law"])[kind]})
    nodes.assign(pages=random.normal(kind, 1)).to_csv(tmp_path / "papers" / "nodes.csv", index=False)
    ends = random.integers(30, size=(2, 150)) * 2 + random.integers(2, size=150)
    pd.DataFrame(
        {"source": nodes["id"][ends[0]].values, "target": nodes["id"][ends[1]].values}
    ).drop_duplicates().query("source != target").to_csv(tmp_path / "papers" / "edges.csv", index=False)
    places = [(graph, node) for graph in range(40) for node in range(6)]
    shapes = pd.DataFrame(places, columns=["graph", "node"]).assign(id=range(240), weight=random.normal(size=240))
    shapes[["id", "graph", "weight"]].to_csv(tmp_path / "shapes" / "nodes.csv", index=False)
    edges = [(6 * graph + node, 6 * graph + (node + 1) % 6) for graph, node in places if node < 5 or graph % 2]
    pd.DataFrame(edges, columns=["source", "target"]).to_csv(tmp_path / "shapes" / "edges.csv", index=False)
    labels = pd.DataFrame({"graph": range(40), "label": ["path", "ring"] * 20})
    labels.to_csv(tmp_path / "shapes" / "graphs.csv", index=False)
    return tmp_path


def test_graphs(molecules: Path, tables: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(molecules)
    run("graphs.md", capsys)
    assert list(molecules.glob("runs/graphs/molecules/*/predictions/*/predictions.csv"))
    assert list(molecules.glob("runs/graphs/tables/*/predictions/*/predictions.csv"))
    assert list(molecules.glob("**/embeddings.parquet"))
    assert (molecules / "molecules.pt2").is_file()
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", (DOCS / "graphs.md").read_text(), flags=re.DOTALL):
        exec(re.sub(r"runs/\S+best\.ckpt", newest, code), names)
    assert list(names["table"]["problem"] != "") == [False, False, True]
    assert names["scores"].shape == (8, 6)
    assert names["selected"].shape == (8, 10)
    assert names["embedded"].shape == (100, 32)


def test_python_of_the_documents_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "vision.md").read_text(), flags=re.DOTALL)
    exec(code, names := {})
    assert names["backbone"].feature_info.reduction() == [4, 8, 16, 32]


@pytest.mark.parametrize("document", ["vision.md", "timeseries.md", "graphs.md"])
def test_benchmarks_are_where_the_documents_say(document: str) -> None:
    named = re.findall(r"python benchmarks/(\S+\.py)", (DOCS / document).read_text())
    assert named
    assert all((BENCHMARKS / name).is_file() for name in named)
