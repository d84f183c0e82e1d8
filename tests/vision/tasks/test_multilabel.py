"""Classification with several labels an image: losses and measures against scikit-learn, from fit to predictions."""

import csv
import functools
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score
from torch.nn import functional as F

from quintet.core.learning.task import load_task
from quintet.vision import ImageClassifier, ImageFolder
from quintet.vision.data.images import ImageDescription, ImageSample
from quintet.vision.models import VisionTransformer

CLASSES = ["red", "green", "blue"]
TINY = functools.partial(VisionTransformer, image_size=8, patch_size=2, dim=32, depth=1)


def described():
    return ImageDescription(
        CLASSES, 3, [8, 8], [0.5] * 3, [0.25] * 3, [5, 10, 20], multi_label=True, training_images=40
    )


def made(**arguments):
    torch.manual_seed(0)
    task = ImageClassifier(backbone=TINY, **arguments)
    task.adopt(described())
    return task


def batch(size=6):
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(size, 3, generator=generator) > 0.5).float()
    return ImageSample(torch.randn(size, 3, 8, 8, generator=generator), labels, [f"{i}.jpg" for i in range(size)])


def test_training_loss_is_smoothed_and_weighted_but_the_measured_one_is_not():
    task, samples = made(label_smoothing=0.2, class_weights="balanced"), batch()
    logits = task(samples.image)
    odds = torch.tensor([7.0, 3.0, 1.0])
    p, t = logits.sigmoid(), samples.label * 0.8 + 0.1
    each = -(t * p.log() + (1 - t) * (1 - p).log())
    expected = (each * torch.where(samples.label > 0, odds, 1.0)).mean()
    torch.testing.assert_close(task.train().step(samples).loss, expected)
    plain = F.binary_cross_entropy_with_logits(logits, samples.label)
    torch.testing.assert_close(task.eval().step(samples).loss, plain)


@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_mixed_images_have_the_labels_of_both(mixing):
    task, samples = made(**mixing), batch()
    torch.manual_seed(3)
    images, targets = task._mixed(samples.image, samples.label)
    share = ((targets - samples.label.roll(1, 0)) / (samples.label - samples.label.roll(1, 0))).nanmean()
    torch.testing.assert_close(targets, share * samples.label + (1 - share) * samples.label.roll(1, 0))
    assert 0 < share < 1
    assert not torch.equal(images, samples.image)


@pytest.mark.parametrize("several", [True, False])
def test_flipping_at_test_time_averages(several):
    task, samples = made(test_time_flip=True).eval(), batch()
    task.description.multi_label = several
    with torch.no_grad():
        found = task.probabilities(samples.image)
        torch.testing.assert_close(found, task.probabilities(samples.image.flip(-1)))
        one, two = (task._probabilities(task(images)) for images in (samples.image, samples.image.flip(-1)))
        torch.testing.assert_close(found, (one + two) / 2)
        # Validation, which is looked at each epoch, sees each image once.
        torch.testing.assert_close(task.step(samples).predictions, one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small transformer that tells which of three colours an image has, tested, with its checkpoint and data."""
    folder = tmp_path_factory.mktemp("colours")
    draw = np.random.default_rng(0)
    rows = ["path,red,green,blue"]
    for number in range(80):
        has = draw.integers(0, 2, 3)
        pixels = draw.integers(0, 90, (8, 8, 3)) + 150 * has
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
        rows.append(f"{number:02}.png,{','.join(map(str, has))}")
    (folder / "colours.csv").write_text("\n".join(rows) + "\n")
    L.seed_everything(0, verbose=False)
    data = ImageFolder(
        folder / "colours.csv", image_size=8, batch_size=16, num_workers=0, augmentation="none", test_fraction=0.3
    )
    task = ImageClassifier(backbone=TINY, lr=3e-3)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    run = L.Trainer(accelerator="cpu", max_epochs=12, default_root_dir=folder, **quiet)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        run.fit(task, datamodule=data)
        measured = run.test(task, datamodule=data, verbose=False)[0]
    run.save_checkpoint(folder / "model.ckpt")
    return task, data, measured, folder


def test_it_learns_and_measures_what_scikit_learn_measures(trained):
    task, data, measured, _ = trained
    assert measured["test/mean_average_precision"] > 0.95
    loaded = list(data.test_dataloader())
    labels = torch.cat([samples.label for samples in loaded])
    with torch.no_grad():
        probabilities = torch.cat([task.eval()(samples.image) for samples in loaded]).sigmoid()
    found = probabilities > 0.5
    expected = average_precision_score(labels, probabilities, average="macro")
    assert measured["test/mean_average_precision"] == pytest.approx(expected, abs=1e-5)
    assert measured["test/f1"] == pytest.approx(f1_score(labels, found, average="macro"), abs=1e-5)
    assert measured["test/accuracy"] == pytest.approx((found == labels).float().mean().item(), abs=1e-5)
    assert measured["test/exact_match"] == pytest.approx((found == labels).all(1).float().mean().item(), abs=1e-5)
    # Scores that are the same for all images rank none of them above another.
    assert measured["test/mean_average_precision_class_shares"] == pytest.approx(labels.float().mean().item(), abs=1e-5)
    each = average_precision_score(labels, probabilities, average=None)
    assert task.confused["average_precision"].tolist() == pytest.approx(each.tolist(), abs=1e-5)


def test_pictures(trained, tmp_path):
    figures = dict(trained[0].pictures())
    assert set(figures) >= {"predictions", "class_average_precision", "class_f1"}
    figures |= dict(trained[0].batch_pictures(next(iter(trained[1].train_dataloader()))))
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=70)
        assert Image.open(tmp_path / f"{name}.png").size[0] > 200


def test_predictions_name_every_label_above_one_half(trained, tmp_path):
    restored = load_task(trained[3] / "model.ckpt")
    assert restored.description == trained[0].description
    new = ImageFolder(trained[3], num_workers=0)
    run = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        table, picture = restored.write_predictions(run.predict(restored, datamodule=new), tmp_path / "out")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    for row in rows:
        expected = [name for name in CLASSES if float(row[f"probability_{name}"]) > 0.5]
        assert row["labels"].split(";") == (expected or [""])
    assert Image.open(picture).size[0] > 500
