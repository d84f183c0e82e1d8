"""Embeddings: in a file, from random weights and from a trained classifier, and what probes say of them."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.core.run.run_folder import RUN_FOLDER
from quintet.vision import FeatureExtractor, ImageFolder
from quintet.vision.data.images import ImageSample
from quintet.vision.tasks.features import probe

SMALL = ["trainer=cpu", "trainer.enable_progress_bar=false", "data.num_workers=0", "data.image_size=16"]
TINY = "model.backbone_arguments={dim: 32, depth: 1, image_size: 16, patch_size: 8}"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Function that runs a command of `quintet` in a folder of its own and returns what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["quintet"])

    def typed(*arguments):
        monkeypatch.delenv(RUN_FOLDER, raising=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            code = main(list(arguments))
        said = capsys.readouterr()
        return said.out if code == 0 else f"failed: {said.err}"

    return typed


def test_by_command_without_a_checkpoint(run, photographs, tmp_path):
    said = run("embed", "experiment=vision/features", f"data.root={photographs}", *SMALL, TINY, "neighbours=3")
    (folder,) = (tmp_path / "runs" / "vision" / "features").glob("*/embed/*")
    assert {path.name for path in folder.iterdir()} >= {"embeddings.parquet", "embeddings.png", "probes.csv"}, said
    table = pd.read_parquet(folder / "embeddings.parquet")
    assert list(table) == ["path", "label", "part", "embedding"]
    assert len(table) == 30
    assert table["label"].value_counts().to_dict() == {"red": 12, "green": 10, "blue": 8}
    assert all(path.split("/")[-2] == label for path, label in zip(table["path"], table["label"]))
    assert {len(vector) for vector in table["embedding"]} == {32}
    scores = pd.read_csv(folder / "probes.csv").set_index(["method", "part"])["accuracy"]
    # Three colours are told apart by any features of them.
    assert scores["linear probe", "test"] == 1
    assert scores["most frequent class", "test"] < 0.7
    assert "nearest neighbours" in said
    with Image.open(folder / "embeddings.png") as picture:
        assert picture.size[0] > 800


def test_from_a_classifiers_checkpoint_and_of_images_without_labels(run, photographs, tmp_path):
    fit = ["experiment=vision/folder", "model.backbone=vit_tiny", f"data.root={photographs}", "trainer.max_epochs=1"]
    assert not run("fit", *fit, *SMALL, TINY, "data.batch_size=8").startswith("failed")
    (checkpoint,) = tmp_path.glob("runs/vision/folder/*/checkpoints/best.ckpt")
    (tmp_path / "loose").mkdir()
    for number in range(4):
        (photographs / "red" / f"{number:02}.jpg").rename(tmp_path / "loose" / f"{number}.jpg")
    said = run("embed", f"ckpt_path={checkpoint}", "data.root=loose", "map=tsne", *SMALL[1:3])
    (folder,) = checkpoint.parents[1].glob("embed/*")
    table = pd.read_parquet(folder / "embeddings.parquet")
    assert list(table) == ["path", "embedding"], said
    assert not (folder / "probes.csv").exists()
    # What the head reads: with it, the classifier's own probabilities.
    from quintet.core.learning.task import load_task

    task, extractor = load_task(checkpoint), FeatureExtractor.of(load_task(checkpoint))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(task.network.head(extractor(images)), task(images))


@pytest.mark.parametrize("backbone", ["nat_mini", "timm:resnet10t", "timm:quintet_vit_tiny"])
def test_any_backbone_in_python(backbone, photographs):
    data = ImageFolder(photographs, image_size=32, num_workers=0)
    small = {"nat_mini": {"dim": 32, "depths": (1, 1)}, "timm:quintet_vit_tiny": {"depth": 1}}.get(backbone, {})
    task = FeatureExtractor(backbone, small)
    task.adopt(task.describe(data))
    assert task.description.classes == []
    with torch.no_grad():
        assert task.eval()(torch.randn(2, 3, 32, 32)).ndim == 2
    with pytest.raises(QuintetError, match="a FeatureExtractor is not trained"):
        task.step(ImageSample(torch.zeros(1, 3, 32, 32), torch.zeros(1), ["a.jpg"]))


def test_probes_see_the_training_part_alone():
    draw = np.random.default_rng(0)
    labels = ["a", "b"] * 60
    vectors = draw.normal(size=(120, 6)) + 1.0 * np.array([label == "a" for label in labels])[:, None]
    parts = ["train"] * 60 + ["val"] * 30 + ["test"] * 30
    found = probe(vectors, labels, parts, 5).set_index(["method", "part"])
    fitted = KNeighborsClassifier(5, metric="cosine", weights="distance").fit(vectors[:60], labels[:60])
    assert found["accuracy"]["nearest neighbours", "test"] == fitted.score(vectors[90:], labels[90:])
    assert found["accuracy"]["linear probe", "test"] > 0.8
    assert found["images"]["linear probe", "val"] == 30
    # Other labels of the test images change what is measured, not what was learned.
    swapped = labels[:90] + ["b", "a"] * 15
    other = probe(vectors, swapped, parts, 5).set_index(["method", "part"])
    assert other["accuracy"]["linear probe", "test"] == pytest.approx(1 - found["accuracy"]["linear probe", "test"])
    assert (other["setting"] == found["setting"]).all()
    assert probe(vectors, [None] * 120, [None] * 120, 5).empty


def test_mistakes(run, photographs):
    said = run("embed", "experiment=vision/folder", f"data.root={photographs}")
    assert "embed needs a checkpoint" in said
    said = run("embed", "experiment=vision/features", f"data.root={photographs}", *SMALL, TINY, "neighbors=3")
    assert "neighbours" in said
    with pytest.raises(QuintetError, match="is a built Identity"):
        FeatureExtractor(nn.Identity())
