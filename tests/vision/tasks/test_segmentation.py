"""The segmenter: losses, weights, measures at the masks' size, windows, and the whole way from fit to masks."""

import csv
import functools
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from quintet.core.adaptation.lora import named_weights
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.vision import MaskFolder, SemanticSegmenter
from quintet.vision.data.masks import IGNORED, MaskDescription, MaskSample, collate_masks
from quintet.vision.models import LinearProbe, MixTransformer, SegmentationNetwork, UNetDecoder
from quintet.vision.tasks.losses import CrossEntropyDice
from quintet.vision.tasks.scores import class_iou, confusion_of

TINY = functools.partial(MixTransformer, dims=(16,), depths=(1,), num_heads=(2,), reductions=(2,), drop_path=0.0)


class Pixels(nn.Module):
    """A backbone whose only map is the image."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.feature_info = [(in_channels, 1), (in_channels, 2)]
        self.scale = nn.Parameter(torch.ones(in_channels, 1, 1))

    def feature_maps(self, images):
        return [images * self.scale, images[..., ::2, ::2]]


TRUSTED = [Pixels.__module__.split(".")[0]]
PROBE = functools.partial(LinearProbe, level=0)


def described(classes=3, counts=None, **arguments) -> MaskDescription:
    names = [f"class {index}" for index in range(classes)]
    palette = [[80 * index, 0, 0] for index in range(classes)]
    known = {"channels": 3, "image_size": [16, 16], "mean": [0.5] * 3, "std": [0.25] * 3, "fit": "stretch"}
    counts = counts or [10] * classes
    return MaskDescription(
        names, **known | arguments, class_counts=counts, ids=list(range(classes)), ignored_ids=[255], palette=palette
    )


def made(description=None, **arguments) -> SemanticSegmenter:
    torch.manual_seed(0)
    task = SemanticSegmenter(**{"backbone": Pixels, "decoder": PROBE, **arguments})
    task.adopt(description or described())
    return task


def batch(size=(16, 16), classes=3, number=4, native=None) -> MaskSample:
    generator = torch.Generator().manual_seed(1)
    native = native or size
    masks = torch.randint(classes, (number, *native), generator=generator).to(torch.uint8)
    masks[:, :2] = IGNORED
    images = torch.randn(number, 3, *size, generator=generator)
    return collate_masks(
        [MaskSample(image, mask, f"{i}.jpg", native) for i, (image, mask) in enumerate(zip(images, masks))]
    )


def trainer(folder, epochs=1, **arguments) -> L.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(accelerator="cpu", max_epochs=epochs, default_root_dir=folder, **(quiet | arguments))


@pytest.fixture(autouse=True)
def calm():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield


@pytest.fixture
def shapes(tmp_path):
    """images/ and masks/ of 16 pictures: a bright disc or square on a dark ground, with a rim that is ignored."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :40]
    for number in range(16):
        y, x = generator.integers(10, 22), generator.integers(12, 28)
        far = np.hypot(rows - y, columns - x) if number % 2 else np.maximum(abs(rows - y), abs(columns - x))
        label = 1 + number % 2
        mask = np.where(far < 8, label, np.where(far < 9, 255, 0)).astype(np.uint8)
        colours = np.array([[40, 40, 60], [220, 60, 40], [60, 220, 80]])[np.where(far < 8.5, label, 0)]
        pixels = (colours + generator.integers(-20, 20, colours.shape)).clip(0, 255).astype(np.uint8)
        for kind, values in (("images", pixels), ("masks", mask)):
            (tmp_path / "shapes" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "shapes" / kind / f"{number:02}.png")
    return tmp_path / "shapes"


def data(root, **arguments) -> MaskFolder:
    return MaskFolder(
        root,
        **{
            "image_size": [32, 40],
            "batch_size": 4,
            "num_workers": 0,
            "augmentation": "light",
            "ignore_index": 255,
            **arguments,
        },
    )


# Losses and weights


def test_the_loss_is_injected_and_the_measured_one_is_plain():
    task = made(described(counts=[8, 2, 0]), class_weights="balanced")
    torch.testing.assert_close(task.loss.weight, torch.tensor([10 / 24, 10 / 6, 0.0]))
    samples = batch()
    scores, targets = task.train()(samples.image), samples.mask.long()
    expected = F.cross_entropy(scores, targets, task.loss.weight, ignore_index=IGNORED)
    torch.testing.assert_close(task.step(samples).loss, expected)
    scores = task.eval()(samples.image)
    torch.testing.assert_close(task.step(samples).loss, F.cross_entropy(scores, targets, ignore_index=IGNORED))
    roots = made(described(counts=[8, 2, 0]), class_weights="square_root").loss.weight
    torch.testing.assert_close(roots, torch.tensor([10 / 24, 10 / 6, 0.0]).sqrt())


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, CrossEntropyDice, functools.partial(CrossEntropyDice, dice=0.3)])
def test_losses_of_others(loss):
    task = made(loss=loss)
    task.train().step(batch()).loss.backward()
    assert task.network.decoder.classifier.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"backbone": nn.Identity()}, "model.backbone is a built Identity"),
        ({"decoder": LinearProbe([(3, 1)], 2)}, "model.decoder is a built LinearProbe"),
        ({"loss": nn.CrossEntropyLoss()}, "model.loss is a built CrossEntropyLoss"),
        ({"overlap": 1.0}, "model.overlap is 1.0"),
    ],
)
def test_arguments(arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        SemanticSegmenter(**arguments)


def test_a_backbone_without_maps_says_so():
    def plain(num_classes: int, in_channels: int) -> nn.Module:
        return nn.Flatten()

    with pytest.raises(QuintetError, match="plain has no feature_maps and feature_info, which a segmenter needs"):
        made(backbone=plain)


# Backbones and decoders by name


@pytest.mark.parametrize(
    ("backbone", "arguments", "decoder"),
    [
        ("mit_b0", {}, None),
        ("segformer_b0", {}, None),
        ("segformer_b0", {}, UNetDecoder),
        ("timm:resnet10t", {}, UNetDecoder),
        ("vit_tiny", {"depth": 1, "image_size": 32}, None),
    ],
)
def test_by_name(backbone, arguments, decoder):
    task = made(backbone=backbone, backbone_arguments=arguments, decoder=decoder)
    assert isinstance(task.network, SegmentationNetwork)
    assert task(torch.randn(1, 3, 33, 47)).shape == (1, 3, 33, 47)
    names = {name for name, _ in task.named_parameters()}
    claimed = {name for layer in task.layer_groups() for name in names if name.startswith(tuple(layer))}
    assert not {name for name in claimed if "decoder" in name}
    frozen = made(backbone=backbone, backbone_arguments=arguments, decoder=decoder, freeze=["backbone"])
    learning = {name for name, parameter in frozen.named_parameters() if parameter.requires_grad}
    # A pyramid over a plain backbone is new, as the decoder is.
    new = ("network.decoder", "network.backbone.steps")
    assert learning == {name for name in names if name.startswith(new)}
    adapted = made(backbone=backbone, backbone_arguments=arguments, decoder=decoder, lora_rank=1)
    weights = {name for name, parameter in named_weights(adapted).items() if parameter.requires_grad}
    assert weights == learning


def test_weights_of_a_whole_network_and_of_a_backbone_alone(tmp_path, capsys):
    whole = made(backbone="segformer_b0", decoder=None).network
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    torch.save(made(backbone="mit_b0").network.backbone.state_dict(), tmp_path / "backbone.pth")
    again = made(described(5), backbone="segformer_b0", decoder=None, pretrained=str(tmp_path / "whole.pth")).network
    assert torch.equal(again.decoder.fuse.weight, whole.decoder.fuse.weight)
    assert "head of another size left as initialised: decoder.classifier.weight" in capsys.readouterr().out
    torch.manual_seed(3)
    task = SemanticSegmenter("mit_b0", pretrained=str(tmp_path / "backbone.pth"))
    task.adopt(described())
    assert torch.equal(task.network.backbone.embedding.projection.weight, whole.backbone.embedding.projection.weight)


def test_a_checkpoint_keeps_how_the_first_weights_enlarge_their_scores(tmp_path):
    whole = made(backbone="segformer_b0", decoder=None).network.state_dict()
    whole["align_corners"] = torch.ones((), dtype=torch.bool)
    torch.save(whole, tmp_path / "whole.pth")
    task = made(backbone="segformer_b0", decoder=None, pretrained=str(tmp_path / "whole.pth")).eval()
    again = SemanticSegmenter("segformer_b0")
    again.adopt(described(), restoring=True)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(again.eval()(x), task(x))
        again.load_state_dict(task.state_dict())
        assert torch.equal(again(x), task(x))
        del whole["align_corners"]
        task.load_state_dict({f"network.{key}": value for key, value in whole.items()}, strict=False)
        assert not torch.allclose(again(x), task(x))


# Measures


def test_scores_are_taken_at_the_size_of_the_masks():
    task = made().eval()
    samples = batch(size=(16, 16), native=(24, 40))
    with torch.no_grad():
        result, found = task._measured(samples)
        probabilities = F.interpolate(task(samples.image).softmax(1), (24, 40), mode="bilinear")
    assert [tuple(mask.shape) for mask in found] == [(24, 40)] * 4
    counted = samples.mask != IGNORED
    assert len(result.predictions) == counted.sum()
    expected = probabilities.argmax(1)[counted]
    assert (result.predictions == expected).float().mean() > 0.999


def test_masks_of_different_sizes_in_one_batch():
    task = made().eval()
    one, two = batch(native=(24, 40), number=1), batch(native=(10, 12), number=1)
    both = collate_masks([sample_of(one), sample_of(two)])
    result, found = task._measured(both)
    assert [tuple(mask.shape) for mask in found] == [(24, 40), (10, 12)]
    separately = [task._measured(samples)[0] for samples in (one, two)]
    assert torch.equal(result.predictions, torch.cat([part.predictions for part in separately]))


def sample_of(samples: MaskSample) -> MaskSample:
    return MaskSample(samples.image[0], samples.mask[0], samples.path[0], samples.size[0])


def test_a_batch_in_which_nothing_counts():
    task = made()
    samples = batch()
    samples = samples._replace(mask=torch.full_like(samples.mask, IGNORED))
    assert task.train().step(samples).loss == 0
    result = task.eval().step(samples)
    assert (result.loss.item(), len(result.targets)) == (0, 0)


def test_windows_of_a_pixelwise_network_change_nothing():
    whole, windows = made().eval(), made(described(fit="window")).eval()
    samples = batch(size=(40, 27))
    with torch.no_grad():
        one, two = whole._measured(samples)[0], windows._measured(samples)[0]
    assert torch.equal(one.predictions, two.predictions)
    torch.testing.assert_close(one.loss, two.loss)


def test_flipping_at_test_time_averages():
    task = made(backbone=TINY, test_time_flip=True, decoder=None).eval()
    images = batch().image
    with torch.no_grad():
        found = task.probabilities(images)
        torch.testing.assert_close(found, task.probabilities(images.flip(-1)).flip(-1))
        torch.testing.assert_close(found.sum(1), torch.ones(4, 16, 16))
        task.test_time_flip = False
        assert not torch.allclose(found, task.probabilities(images))


def test_flips_and_sizes_at_test_time_are_those_of_each_window():
    known = described(fit="window", image_size=[16, 16])
    task = made(known, backbone=TINY, test_time_scales=[0.5, 1.0], test_time_flip=True, decoder=None).eval()
    wide = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))  # three windows, as many from either side
    with torch.no_grad():
        one = task._slid(wide[..., :16], None, task.probabilities)[0]
        assert torch.equal(one.long(), task.probabilities(wide[None, ..., :16])[0].argmax(0))
        found = task._slid(wide, None, task.probabilities)[0]
        assert torch.equal(task._slid(wide.flip(-1), None, task.probabilities)[0], found.flip(-1))
        assert not torch.equal(task._slid(wide, None, task._plain)[0], found)


def test_several_sizes_at_test_time_average():
    task = made(backbone=TINY, test_time_scales=[0.5, 1.0, 1.5], test_time_flip=True, decoder=None).eval()
    samples = batch()
    with torch.no_grad():
        found = task.probabilities(samples.image)
        expected = 0
        for side in (8, 16, 24):
            seen = F.interpolate(samples.image, (side, side), mode="bilinear", antialias=True)
            for turned in (False, True):
                one = task(seen.flip(-1) if turned else seen).softmax(1)
                one = F.interpolate(one.flip(-1) if turned else one, (16, 16), mode="bilinear")
                expected = expected + one / 6
        torch.testing.assert_close(found, expected)
        # Validation looks once, a test as prediction does.
        plain, several = task._measured(samples)[0], task._measured(samples, task.probabilities)[0]
    assert not torch.isclose(plain.loss, several.loss)
    with pytest.raises(QuintetError, match="test_time_scales"):
        made(test_time_scales=[0.0])


def test_layer_decay_of_timm_models():
    task = made(backbone="timm:resnet10t", decoder=None, layer_decay=0.5)
    names = [name for name, _ in task.named_parameters()]
    claimed = [name for layer in task.layer_groups() for name in layer]
    assert sorted(claimed) == sorted(name for name in names if name.startswith("network.backbone.backbone.network."))
    rates = {group["name"].split(",")[0]: group["lr"] for group in groups_of(task)}
    assert rates["layer 0"] == pytest.approx(1e-3 * 0.5 ** len(task.layer_groups()))


def groups_of(task):
    from quintet.core.optim.parameter_groups import parameter_groups

    return parameter_groups(task, task.lr, task.weight_decay, task.layer_groups(), task.layer_decay)


# From fit to masks


@pytest.fixture
def trained(shapes, tmp_path):
    """A linear classifier of pixels after some epochs on the shapes, tested, with its checkpoint."""
    L.seed_everything(0, verbose=False)
    task = SemanticSegmenter(Pixels, decoder=PROBE, lr=0.1, weight_decay=0.0)
    run = trainer(tmp_path, epochs=6)
    run.fit(task, datamodule=data(shapes))
    measured = run.test(task, datamodule=data(shapes), verbose=False)[0]
    run.save_checkpoint(tmp_path / "model.ckpt")
    return task, measured, tmp_path / "model.ckpt"


def test_from_training_to_masks_of_new_images(trained, shapes, tmp_path):
    task, measured, checkpoint = trained
    assert measured["test/mean_iou"] > 0.8
    assert class_iou(task.confused).nanmean().item() == pytest.approx(measured["test/mean_iou"], abs=1e-6)
    known, module = task.description, data(shapes)
    module.setup("test")
    masks = torch.cat([mask.flatten() for batch in module.test_dataloader() for mask in batch.mask])
    frequent = known.class_counts.index(max(known.class_counts))
    share = (masks == frequent).sum() / (masks != 255).sum()
    assert measured["test/pixel_accuracy_most_frequent"] == pytest.approx(share.item(), abs=1e-6)
    figures = dict(task.pictures())
    assert list(figures) == ["predictions", "worst_median_best", "confusion_matrix", "class_iou"]

    restored = load_task(checkpoint, trusted=TRUSTED)
    assert restored.description == task.description
    new = tmp_path / "new"
    (new / "deep").mkdir(parents=True)
    for number, size in enumerate([(40, 32), (60, 48)]):
        with Image.open(shapes / "images" / f"{number:02}.png") as image:
            image.resize(size).save(new / "deep" / f"{number}.png")
    with Image.open(shapes / "images" / "02.png") as image:
        image.convert("RGB").save(new / "0.jpg", quality=95)
    # Nobody calls adopt here: the data module learns from the task how to read.
    module = MaskFolder(new, num_workers=0)
    run = trainer(tmp_path)
    before = list(run.callbacks)
    written = restored.predict(module, run, tmp_path / "out")
    assert run.callbacks == before
    assert [path.name for path in written] == ["predictions.csv", "masks", "overlays", "predictions.png"]
    with written[0].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mask"] for row in rows] == ["masks/0.png", "masks/deep/0.png", "masks/deep/1.png"]
    with Image.open(tmp_path / "out" / "masks" / "deep" / "1.png") as mask:
        assert (mask.mode, mask.size) == ("P", (60, 48))
        values = np.asarray(mask)
    assert mask.palette is not None
    shares = [float(rows[2][f"share_class {value}"]) for value in range(3)]
    assert shares == pytest.approx([(values == value).mean() for value in range(3)], abs=1e-6)
    with Image.open(shapes / "masks" / "00.png") as truth:
        true = torch.from_numpy(np.array(truth)).long()
    with Image.open(tmp_path / "out" / "masks" / "deep" / "0.png") as mask:
        found = torch.from_numpy(np.array(mask)).long()
    counted = true != IGNORED
    assert class_iou(confusion_of(found[counted], true[counted], 3)).nanmean() > 0.7
    for name in ("0", "deep/0", "deep/1"):
        with Image.open(tmp_path / "out" / "overlays" / f"{name}.jpg") as overlay:
            assert overlay.size in ((40, 32), (60, 48))
    with pytest.raises(QuintetError, match=r"predictions.csv exists and is not overwritten"):
        restored.predict(module, run, tmp_path / "out")

    # The same masks, from results that were kept.
    results = trainer(tmp_path).predict(restored, datamodule=MaskFolder(new, num_workers=0))
    restored.write_predictions(results, tmp_path / "again")
    names = {path.name for path in (tmp_path / "again" / "masks").iterdir()}
    assert names == {"0.png", "0_2.png", "1.png"}


def test_a_small_transformer_learns_shapes_with_windows(shapes, tmp_path):
    L.seed_everything(0, verbose=False)
    task = SemanticSegmenter(TINY, decoder=functools.partial(UNetDecoder, dim=8), lr=2e-2)
    module = data(shapes, fit="window", image_size=[24, 24], augmentation="none")
    run = trainer(tmp_path, epochs=20, limit_val_batches=0)
    run.fit(task, datamodule=module)
    assert run.test(task, datamodule=module, verbose=False)[0]["test/mean_iou"] > 0.5
    run.save_checkpoint(tmp_path / "model.ckpt")
    restored = load_task(tmp_path / "model.ckpt")
    images = batch().image
    with torch.no_grad():
        assert torch.equal(restored(images), task.eval()(images))


def test_two_classes_have_a_foreground(shapes, tmp_path):
    for path in (shapes / "masks").iterdir():
        with Image.open(path) as image:
            values = np.asarray(image)
        Image.fromarray(np.where((values == 1) | (values == 2), 255, 0).astype(np.uint8)).save(path)
    L.seed_everything(0, verbose=False)
    task = SemanticSegmenter(Pixels, decoder=PROBE, lr=0.1)
    run = trainer(tmp_path, epochs=3)
    module = data(shapes, ignore_index=None)
    run.fit(task, datamodule=module)
    measured = run.test(task, datamodule=module, verbose=False)[0]
    assert measured["test/foreground_iou"] > 0.5
    assert measured["test/mean_iou"] >= measured["test/foreground_iou"] / 2
    new = trainer(tmp_path)
    task.predict(MaskFolder(shapes, num_workers=0), new, tmp_path / "out")
    with Image.open(tmp_path / "out" / "masks" / "images" / "00.png") as mask:
        assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_the_first_batch_is_drawn_before_it_is_learned_from(shapes, tmp_path):
    from quintet.core.run.callbacks import Pictures

    task = SemanticSegmenter(Pixels, decoder=PROBE)
    trainer(tmp_path, max_steps=1, callbacks=[Pictures()]).fit(task, datamodule=data(shapes))
    with Image.open(tmp_path / "pictures" / "training_batch.png") as sheet:
        assert sheet.size[0] > 500


def test_by_command_from_a_folder_to_masks(shapes, tmp_path, monkeypatch, capsys):
    """No code: inspect, fit, predict; the checkpoint brings classes, palette and sizes along."""
    from quintet.cli import main
    from quintet.core.run.run_folder import RUN_FOLDER

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["quintet"])

    def run(*typed):
        monkeypatch.delenv(RUN_FOLDER, raising=False)
        assert main(list(typed)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    assert "class 1" in run("inspect", "shapes", "data.ignore_index=255")
    small = ["data.image_size=[32,40]", "data.num_workers=0", "trainer=cpu", "trainer.enable_progress_bar=false"]
    small += [f"trainer.limit_{stage}_batches=1" for stage in ("train", "val", "test")]
    tiny = [
        "model.backbone_arguments={dims: [8], depths: [1], num_heads: [1], reductions: [1]}",
        "trainer.max_epochs=1",
    ]
    parts = [
        "model.decoder=quintet.vision.models.UNetDecoder",
        "model.loss=quintet.vision.tasks.losses.CrossEntropyDice",
    ]
    said = run("fit", "experiment=vision/segment", "data.root=shapes", "data.ignore_index=255", *small, *tiny, *parts)
    assert "test/mean_iou" in said
    (folder,) = (tmp_path / "runs" / "vision" / "segment").iterdir()
    drawn = {path.stem for path in (folder / "pictures").iterdir()}
    assert drawn >= {"training_batch", "predictions", "worst_median_best", "confusion_matrix", "class_iou"}
    checkpoint = folder / "checkpoints" / "best.ckpt"
    run("predict", f"ckpt_path={checkpoint}", "data.root=shapes/images", "model.test_time_flip=true", *small[1:3])
    assert len(list(folder.glob("predictions/*/masks/*.png"))) == 16
