"""The classifier: losses, metrics against scikit-learn, freezing, and the whole way from fit to predictions."""

import csv
import functools
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, top_k_accuracy_score
from torch import nn
from torch.nn import functional as F

from quintet.core.attention import HedgehogFeatures, LinearAttention
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.core.weights.described import description_of
from quintet.core.weights.records import build_node
from quintet.vision import Digits, ImageClassifier, ImageFolder
from quintet.vision.data.images import ImageDescription, ImageSample
from quintet.vision.models import VisionTransformer

TINY = functools.partial(VisionTransformer, image_size=8, patch_size=2, dim=32, depth=1)


class Linear(nn.Module):
    """A linear classifier of pixels."""

    head_keys = ("head.weight", "head.bias")

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(in_channels, 1, 1))
        self.head = nn.Linear(in_channels * 64, num_classes)

    def forward(self, images):
        return self.head((images * self.scale).flatten(1))


TRUSTED = [Linear.__module__.split(".")[0]]


def described(classes: int = 4, counts: list[int] | None = None, channels: int = 3) -> ImageDescription:
    names = [f"class {index}" for index in range(classes)]
    return ImageDescription(names, channels, [8, 8], [0.5] * channels, [0.25] * channels, counts or [10] * classes)


def made(classes: int = 4, counts: list[int] | None = None, **arguments) -> ImageClassifier:
    torch.manual_seed(0)
    task = ImageClassifier(**{"backbone": Linear, **arguments})
    task.adopt(described(classes, counts))
    return task


def batch(size: int = 6, classes: int = 4) -> ImageSample:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 8, 8, generator=generator)
    return ImageSample(images, torch.randint(classes, (size,), generator=generator), [f"{i}.jpg" for i in range(size)])


def trainer(folder, epochs: int = 1, **arguments) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(accelerator="cpu", max_epochs=epochs, default_root_dir=folder, **(quiet | arguments))


@pytest.fixture(autouse=True)
def calm():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield


# Losses


def test_training_loss_is_smoothed_and_weighted_but_the_measured_one_is_not():
    task = made(counts=[1, 2, 3, 4], label_smoothing=0.2, class_weights="balanced")
    images, labels, _ = batch()
    weights = torch.tensor([10 / 4, 10 / 8, 10 / 12, 10 / 16])
    torch.testing.assert_close(task.loss_weights, weights)
    logits = task(images)
    each, own = F.cross_entropy(logits, labels, label_smoothing=0.2, reduction="none"), weights[labels]
    expected = (own * each).sum() / own.sum()
    torch.testing.assert_close(task.train().step(batch()).loss, expected)
    torch.testing.assert_close(task.eval().step(batch()).loss, F.cross_entropy(logits, labels))


@pytest.mark.parametrize("arguments", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_changes_training_alone(arguments):
    mixed, plain = made(**arguments), made()
    torch.manual_seed(3)
    first = mixed.train().step(batch())
    assert not torch.isclose(first.loss, plain.train().step(batch()).loss)
    assert torch.equal(first.targets, batch().label)
    assert torch.equal(mixed.eval().step(batch()).loss, plain.eval().step(batch()).loss)


def test_mixup_is_the_loss_of_both_labels():
    task = made(mixup=0.4)
    images, labels, _ = batch()
    torch.manual_seed(3)
    loss = task.train().step(batch()).loss
    torch.manual_seed(3)
    share = torch._sample_dirichlet(torch.tensor([0.4, 0.4]))[0]
    logits = task(share * images + (1 - share) * images.roll(1, 0))
    expected = share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels.roll(1, 0))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("arguments", [{"label_smoothing": 1.0}, {"mixup": -1.0}, {"cutmix": -0.1}])
def test_arguments(arguments):
    with pytest.raises(QuintetError, match=f"model.{next(iter(arguments))}"):
        ImageClassifier(**arguments)


# Freezing and layers


def test_freezing_the_backbone_leaves_the_head():
    for pattern in ("backbone", "backbone.*"):
        task = made(freeze=[pattern])
        learning = [name for name, parameter in task.named_parameters() if parameter.requires_grad]
        assert learning == ["network.head.weight", "network.head.bias"]


def test_a_backbone_without_a_known_head_says_so():
    class Silent(Linear):
        head_keys = ()

    with pytest.raises(QuintetError, match="Silent does not say which parameters are its head"):
        made(backbone=Silent, freeze=["backbone"])


def test_layer_decay_of_packaged_and_timm_models(tmp_path):
    for backbone, arguments in ((TINY, {}), ("timm:resnet10t", {})):
        task = made(backbone=backbone, backbone_arguments=arguments, layer_decay=0.5)
        groups = task.layer_groups()
        names = [name for name, _ in task.named_parameters()]
        claimed = {name for name in names for layer in groups for prefix in layer if name.startswith(prefix)}
        # A last norm learns at the head's rate.
        heads = {f"network.{key}" for key in task.network.head_keys}
        assert claimed.isdisjoint(heads)
        assert not {name for name in set(names) - claimed - heads if "norm" not in name}
    with pytest.raises(
        QuintetError, match=r"model\.layer_decay needs the order of layers, and Linear has no layer_groups"
    ):
        made(layer_decay=0.5).layer_groups()


# Pretrained weights


def test_pretrained_weights_are_loaded_once_and_reported(tmp_path, capsys):
    source = Linear(7, 3)
    torch.save(source.state_dict() | {"scale": torch.full((3, 1, 1), 2.0)}, tmp_path / "weights.pth")
    task = made(pretrained=str(tmp_path / "weights.pth"))
    assert task.network.scale.unique().item() == 2
    printed = capsys.readouterr().out
    assert "1 tensors loaded" in printed
    assert "head of another size left as initialised: head.weight, head.bias" in printed
    restored = ImageClassifier(backbone=Linear, pretrained=str(tmp_path / "weights.pth"))
    restored.adopt(described(), restoring=True)
    assert restored.network.scale.unique().item() == 1
    assert capsys.readouterr().out == ""


def test_statistics_that_do_not_fit_the_weights_are_mentioned(tmp_path, capsys):
    import timm

    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "weights.pth")
    made(backbone="timm:resnet10t", pretrained=str(tmp_path / "weights.pth"))
    assert "timm:resnet10t was trained with mean [0.485, 0.456, 0.406]" in capsys.readouterr().out


# From fit to predictions


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A linear classifier after two epochs on the digits, tested, with its checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    L.seed_everything(0, verbose=False)
    data = Digits(batch_size=32, augmentation="none")
    task = ImageClassifier(backbone=Linear, lr=1e-2, label_smoothing=0.05)
    run = trainer(folder, epochs=2)
    run.fit(task, datamodule=data)
    measured = run.test(task, datamodule=data, verbose=False)[0]
    run.save_checkpoint(folder / "model.ckpt")
    return task, data, measured, folder / "model.ckpt"


def training_labels(data):
    return torch.cat([samples.label for samples in data.train_dataloader()]).tolist()


def test_it_learns_and_measures_what_scikit_learn_measures(trained):
    task, data, measured, _ = trained
    assert measured["test/accuracy"] > 0.85
    loaded = list(data.test_dataloader())
    labels = torch.cat([samples.label for samples in loaded]).numpy()
    with torch.no_grad():
        logits = torch.cat([task.eval()(samples.image) for samples in loaded])
    probabilities = logits.softmax(1).numpy()
    predicted = probabilities.argmax(1)
    assert measured["test/accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-6)
    assert measured["test/f1"] == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-6)
    assert measured["test/top5_accuracy"] == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5), abs=1e-6)
    assert measured["test/loss"] == pytest.approx(F.cross_entropy(logits, torch.tensor(labels)).item(), abs=1e-5)
    confidence, right = probabilities.max(1), predicted == labels
    bins = (confidence * 15).astype(int).clip(0, 14)
    error = sum(abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(15)) / len(labels)
    assert measured["test/calibration_error"] == pytest.approx(error, abs=1e-5)
    assert (task.confused.numpy() == confusion_matrix(labels, predicted)).all()
    frequent = np.full_like(labels, np.bincount(training_labels(data)).argmax())
    assert measured["test/accuracy_class_shares"] == pytest.approx(accuracy_score(labels, frequent), abs=1e-6)
    expected = f1_score(labels, frequent, average="macro", zero_division=0)
    assert measured["test/f1_class_shares"] == pytest.approx(expected, abs=1e-6)


def test_a_second_test_starts_anew(trained, tmp_path):
    task, data, measured, _ = trained
    before = task.confused.clone()
    assert trainer(tmp_path).test(task, datamodule=data, verbose=False)[0] == measured
    assert torch.equal(task.confused, before)


def test_pictures_of_the_test(trained, tmp_path):
    figures = dict(trained[0].pictures())
    assert list(figures) == ["predictions", "confusion_matrix", "class_f1", "worst_median_best", "mistakes"]
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=50)
        assert Image.open(tmp_path / f"{name}.png").size[0] > 200


def test_a_checkpoint_predicts_what_the_task_predicted(trained, tmp_path):
    task, data, _, checkpoint = trained
    expected = trainer(tmp_path).predict(task, datamodule=data)
    restored = load_task(checkpoint, trusted=TRUSTED)
    assert restored.description == task.description
    found = trainer(tmp_path).predict(restored, datamodule=Digits(batch_size=32))
    assert [result.paths for result in found] == [result.paths for result in expected]
    assert all(torch.equal(a.probabilities, b.probabilities) for a, b in zip(found, expected, strict=True))
    assert not restored.training


def test_predictions_are_written_once(trained, tmp_path):
    task, data, _, _ = trained
    results = trainer(tmp_path).predict(task, datamodule=data)
    written = task.write_predictions(results, tmp_path / "out")
    assert [path.name for path in written] == ["predictions.csv", "predictions.png"]
    with written[0].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 269
    assert list(rows[0]) == ["path", "label", *(f"probability_{digit}" for digit in range(10))]
    first = results[0].probabilities[0]
    assert rows[0]["label"] == str(int(first.argmax()))
    assert float(rows[0]["probability_3"]) == pytest.approx(first[3].item(), abs=1e-6)
    assert sum(float(rows[0][f"probability_{digit}"]) for digit in range(10)) == pytest.approx(1, abs=1e-5)
    assert Image.open(written[1]).size[0] > 500
    with pytest.raises(QuintetError, match=r"predictions.csv exists and is not overwritten"):
        task.write_predictions(results, tmp_path / "out")


def test_only_the_first_images_are_kept_for_the_picture(trained, tmp_path):
    task, data, _, _ = trained
    results = trainer(tmp_path).predict(task, datamodule=data)
    assert sum(len(result.images) for result in results) == 24
    assert 0 <= results[0].images.min() <= results[0].images.max() <= 1


def test_photographs_from_training_to_a_folder_of_new_ones(photographs, tmp_path, photograph):
    L.seed_everything(0, verbose=False)
    data = ImageFolder(photographs, image_size=8, batch_size=4, num_workers=0, augmentation="light")
    task = ImageClassifier(backbone=Linear, lr=1e-2, weight_decay=0.0)
    run = trainer(tmp_path, epochs=12)
    run.fit(task, datamodule=data)
    assert run.test(task, datamodule=data, verbose=False)[0]["test/accuracy"] == 1
    run.save_checkpoint(tmp_path / "model.ckpt")
    photograph(tmp_path / "new" / "rose.png", 1, (200, 50, 60))
    photograph(tmp_path / "new" / "sky.jpg", 2, (50, 60, 200))
    restored = load_task(tmp_path / "model.ckpt", trusted=TRUSTED)
    # Nobody calls adopt here: the data module learns from the task how to read.
    results = trainer(tmp_path).predict(restored, datamodule=ImageFolder(tmp_path / "new", num_workers=0))
    table, _ = restored.write_predictions(results, tmp_path / "predictions")
    with table.open() as file:
        found = {row["path"].rsplit("/", 1)[-1]: row["label"] for row in csv.DictReader(file)}
    assert found == {"rose.png": "red", "sky.jpg": "blue"}


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(photographs, tmp_path):
    def fresh():
        L.seed_everything(0, verbose=False)
        task = ImageClassifier(backbone=Linear, lr=1e-2, mixup=0.2, cutmix=0.5)
        return task, ImageFolder(photographs, image_size=8, batch_size=4, num_workers=0, augmentation="strong")

    task, data = fresh()
    trainer(tmp_path, epochs=2).fit(task, datamodule=data)
    first, data = fresh()
    # The same schedule, stopped after one epoch.
    stopped = trainer(tmp_path, epochs=2, callbacks=[Stop(1)])
    stopped.fit(first, datamodule=data)
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    second, data = fresh()
    trainer(tmp_path, epochs=2).fit(second, datamodule=data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name, value in task.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_a_packaged_transformer_trains_and_round_trips(tmp_path, photographs):
    data = ImageFolder(photographs, image_size=8, batch_size=8, num_workers=0)
    task = ImageClassifier(backbone=TINY, mixer=functools.partial(LinearAttention, num_heads=2))
    run = trainer(tmp_path)
    run.fit(task, datamodule=data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    restored = load_task(tmp_path / "model.ckpt")
    assert any(isinstance(module, LinearAttention) for module in restored.network.modules())
    images = batch().image
    with torch.no_grad():
        assert torch.equal(restored(images), task.eval()(images))


class Stop(L.Callback):
    """Ends a run after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def test_a_mixer_given_by_its_name_is_remembered_by_it():
    task = made(backbone=TINY, mixer="hedgehog")
    assert type(task.network.encoder.blocks[0].mixer.feature_map) is HedgehogFeatures
    restored = build_node(description_of(task), ImageClassifier, {}, "here")
    assert restored.mixer == "hedgehog"
    with pytest.raises(QuintetError, match="no mixer is called 'hedgheog'; nearest: hedgehog"):
        made(backbone=TINY, mixer="hedgheog")
