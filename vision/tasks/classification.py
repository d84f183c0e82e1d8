"""Image classification: any network over images, cross entropy, and predictions a person can open."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)
from torchvision.transforms import v2

from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ...core.learning.baselines import Baselines
from ...core.learning.deployable import Deployable
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.objectives import balanced_weights, binary_cross_entropy, cross_entropy
from ...core.weights.networks import Kind
from ...core.writing.cells import path_cell, text_cell, write_table
from ...core.writing.files import refuse_existing, written_whole
from ..backbones import IMAGES, Backbone, expected_statistics
from ..data.images import ImageDescription, ImageSample, denormalize
from ..pictures import SHOWN, Gallery, Shown, class_bars, confusion_matrix, image_grid
from ..pictures.attention import attention_pictures
from ..pictures.extremes import Extremes, batch_sheet, extremes_sheet
from ..pictures.labels import LabelGallery, ShownLabels, label_grid
from .deployment import DeployedClassifier, deployable_images
from .features import FeatureExtractor
from .multilabel import THRESHOLD, class_metrics, class_odds, multilabel_metrics, named
from .scores import class_dice

SHARES = "class_shares"  # what the baseline is called beside the model


@dataclass
class ImagePredictions:
    """What one batch of images was taken for: class probabilities (B, K), and the run's first images for a picture."""

    paths: list[str]
    probabilities: Float[Tensor, "batch classes"]
    images: Float[Tensor, "shown channels height width"]


class ImageClassifier(NetworkTask):
    """Classifies images with any network, from random or from published weights.

    Training minimises cross entropy, smoothed, weighted and mixed as asked for; the loss on validation and test data is
    the plain cross entropy. Measured are accuracy, the mean F1 score of the classes, the expected calibration error (On
    Calibration of Modern Neural Networks, arXiv 1706.04599) and, with more than five classes, top-5 accuracy.

    Where the data say that an image may have several classes, each class is a yes or no of its own: the loss is binary
    cross entropy, and measured are the means over the classes of average precision and F1, the share of right answers
    and of images with all of them right.

    Beside every test stand the numbers of the classes' shares of the training images, given of every image alike.

    Args:
        backbone: a registered name, `timm:<name>`, or a class or function called with `num_classes` and `in_channels`.
        label_smoothing: share of each target spread over all classes (arXiv 1512.00567).
        class_weights: "balanced" weighs each class by the inverse of its number of training images.
        mixup: alpha of mixup (arXiv 1710.09412), 0 for none.
        cutmix: alpha of CutMix (arXiv 1905.04899), 0 for none; with both, each batch takes one of them.
        test_time_flip: in test and prediction look at the mirrored image too, and average both.
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit.
    """

    description_type: ClassVar[type] = ImageDescription
    kind: ClassVar[Kind] = IMAGES

    def __init__(
        self,
        backbone: str | Backbone = "nat_mini",
        backbone_arguments: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        test_time_flip: bool = False,
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        if not 0 <= label_smoothing < 1:
            raise QuintetError(f"model.label_smoothing is {label_smoothing}; it lies between 0 and 1")
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if alpha < 0:
                raise QuintetError(f"model.{name} is {alpha}; give 0 for none, or a positive alpha such as 0.2")
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.mixup, self.cutmix = mixup, cutmix
        self.test_time_flip = test_time_flip
        self.gallery: Gallery | None = None

    # Building

    def make(self, description: ImageDescription) -> None:
        classes = len(description.classes)
        self.network = self.build_network({"num_classes": classes, "in_channels": description.channels})
        weights = None
        if self.class_weights == "balanced":
            several, counts = description.multi_label, description.class_counts
            weights = class_odds(description) if several else balanced_weights(counts)
        self.register_buffer("loss_weights", weights, persistent=False)
        mixings = {v2.MixUp: self.mixup, v2.CutMix: self.cutmix}
        self.mixings = [mixing(alpha=alpha, num_classes=classes) for mixing, alpha in mixings.items() if alpha]
        # What the pictures of the test need besides the metrics.
        several = description.multi_label
        self.confusion = class_metrics(classes) if several else MulticlassConfusionMatrix(classes)
        self.baseline_metrics = Baselines([SHARES], multilabel_metrics(classes) if several else self._class_metrics())

    def initialise(self) -> None:
        super().initialise()
        known, expected = self.description, expected_statistics(self.network)
        if self.pretrained and known.channels == 3 and expected not in (None, (known.mean, known.std)):
            mean, std = expected
            rank_zero_only(print)(
                f"{self.backbone_name} was trained with mean {mean} and std {std}; see data.normalization"
            )

    # Steps

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of normalized images."""
        return self.network(images)

    def probabilities(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Class probabilities of normalized images, averaged with those of mirrored ones where that is asked for."""
        found = self._probabilities(self(images))
        return (found + self._probabilities(self(images.flip(-1)))) / 2 if self.test_time_flip else found

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid() if self.description.multi_label else logits.float().softmax(1)

    def step(self, batch: ImageSample) -> StepResult:
        images, targets = batch.image, batch.label
        if not self.training:
            logits = self(images)
            loss = self._loss(logits, targets)
        else:
            if self.mixings:
                images, targets = self._mixed(images, targets)
            logits = self(images)
            loss = self._loss(logits, targets, self.loss_weights, self.label_smoothing)
        # Metrics take logits for probabilities where all of them happen to lie between 0 and 1.
        return StepResult(loss, self._probabilities(logits.detach()), batch.label.long())

    def _loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        if self.description.multi_label:
            return binary_cross_entropy(logits, targets, weights, smoothing)
        return cross_entropy(logits, targets, weights, smoothing)

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch with mixed images and the mixed targets (B, K) that go with them."""
        chosen = int(torch.randint(len(self.mixings), ())) if len(self.mixings) > 1 else 0
        return self.mixings[chosen](images, labels)

    def _class_metrics(self) -> MetricCollection:
        """What is measured of classes alone, the model's or the baseline's."""
        classes = len(self.description.classes)
        accuracy, f1 = MulticlassAccuracy(classes, average="micro"), MulticlassF1Score(classes, average="macro")
        return collection({"accuracy": accuracy, "f1": f1})

    def metrics(self) -> MetricCollection:
        classes = len(self.description.classes)
        if self.description.multi_label:
            return multilabel_metrics(classes)
        metrics = dict(self._class_metrics().items())
        metrics["calibration_error"] = MulticlassCalibrationError(classes, n_bins=15, norm="l1")
        if classes > 5:
            metrics["top5_accuracy"] = MulticlassAccuracy(classes, top_k=5, average="micro")
        return collection(metrics)

    # Pictures of the test

    def on_test_epoch_start(self) -> None:
        display = partial(denormalize, description=self.description)
        several = self.description.multi_label
        self.gallery, self.extremes = (
            (LabelGallery(display), None) if several else (Gallery(display), Extremes(display))
        )
        self.confusion.reset()

    def test_step(self, batch: ImageSample, batch_index: int) -> None:
        result = self.step(batch)
        if self.test_time_flip:
            result.predictions = self.probabilities(batch.image)
        self.measure(result, "test")
        self.baseline_metrics.measure(self, {SHARES: self._shares(result.predictions)}, result.targets)
        self.gallery.add(batch.image, result.predictions, result.targets)
        if self.extremes is not None:
            self.extremes.add(batch.image, result.predictions, result.targets)
        self.confusion.update(result.predictions, result.targets)

    def _shares(self, like: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
        """Each class's share of the training images, for every image."""
        known = self.description
        total = known.training_images or sum(known.class_counts)
        return (like.new_tensor(known.class_counts) / max(1, total)).expand_as(like)

    def on_test_epoch_end(self) -> None:
        # Every process takes part in the sum, though only one draws the picture.
        self.confused = self.confusion.compute()

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if self.gallery is None or not self.gallery.images:
            return
        classes = self.description.classes
        if self.description.multi_label:
            yield from self._label_pictures(classes)
            return
        yield "predictions", image_grid(self.gallery.images, classes, "a sample of the test images")
        yield "confusion_matrix", confusion_matrix(self.confused, classes, what="test images")
        counts = self.confused.cpu()
        shares = counts.sum(1) / counts.sum().clamp(min=1)
        # The Dice score of a class is its F1 score.
        title = "the classes on the test images"
        yield "class_f1", class_bars(class_dice(counts), shares, classes, title, "F1 score", "test images")
        if (extremes := extremes_sheet(self.extremes, classes)) is not None:
            yield "worst_median_best", extremes
        if self.gallery.mistakes:
            yield "mistakes", image_grid(self.gallery.mistakes, classes, "the most confident mistakes")
        yield from attention_pictures(self)

    def _label_pictures(self, classes: list[str]) -> Iterator[tuple[str, Figure]]:
        yield "predictions", label_grid(self.gallery.images, classes, "a sample of the test images")
        if self.gallery.mistakes:
            yield "mistakes", label_grid(self.gallery.mistakes, classes, "the most surprising test images")
        counts = torch.tensor(self.description.class_counts, dtype=torch.float32)
        shares, title = counts / max(1, self.description.training_images), "the classes on the test images"
        for name, measure in (("average_precision", "average precision"), ("f1", "F1 score")):
            values = self.confused[name].float().cpu()
            yield f"class_{name}", class_bars(values, shares, classes, title, measure, "training images")
        yield from attention_pictures(self)

    def batch_pictures(self, batch: ImageSample) -> Iterator[tuple[str, Figure]]:
        classes = self.description.classes
        if self.description.multi_label:
            names = [named(label, classes, ", ") or "no class" for label in batch.label[:SHOWN]]
        else:
            names = [classes[label] for label in batch.label[:SHOWN].tolist()]
        images = denormalize(batch.image[:SHOWN], self.description)
        yield "training_batch", batch_sheet(list(images), names, "the first images as they are trained on")

    # Prediction

    def deployable(self, resize: bool = True) -> Deployable:
        """From images of any size to the probabilities of their classes; `resize` as in evaluation, else not at all."""
        return deployable_images(self, DeployedClassifier(self, resize), ["probabilities"], {})

    @command
    def embed(
        self,
        data: DataModule,
        trainer: L.Trainer,
        folder: Path,
        neighbours: int = 10,
        map: Literal["pca", "tsne"] = "pca",
    ) -> list[Path]:
        """Writes what the head reads of each image, as quintet.vision.FeatureExtractor does."""
        return FeatureExtractor.of(self).embed(data, trainer, folder, neighbours, map)

    def predict_step(self, batch: ImageSample, batch_index: int) -> ImagePredictions:
        probabilities = self.probabilities(batch.image).cpu()
        # Only the first batches are shown; keeping every image would fill the memory.
        shown = max(0, SHOWN - batch_index * len(batch.path))
        return ImagePredictions(list(batch.path), probabilities, denormalize(batch.image[:shown], self.description))

    def write_predictions(self, results: list[ImagePredictions], folder: Path) -> list[Path]:
        """Writes predictions.csv (path, label, probability of each class) and predictions.png.

        Where images may have several, the column `labels` holds those above one half, separated by semicolons. Paths
        and labels are written as quintet.core.writing.cells says.

        Raises QuintetError where one of them exists already, or cannot be written.
        """
        folder = Path(folder)
        table, picture = folder / "predictions.csv", folder / "predictions.png"
        for path in (table, picture):
            refuse_existing(path, "folder")
        classes, several = self.description.classes, self.description.multi_label
        cells = [text_cell(name) for name in classes]
        rows = (
            [
                path_cell(path),
                named(row > THRESHOLD, cells) if several else cells[int(row.argmax())],
                *(f"{value:.6f}" for value in row.tolist()),
            ]
            for result in results
            for path, row in zip(result.paths, result.probabilities, strict=True)
        )
        header = ["path", "labels" if several else "label", *(f"probability_{name}" for name in classes)]
        write_table(table, header, rows)
        probabilities = torch.cat([result.probabilities for result in results])
        confidences = probabilities.max(1)
        images = [image for result in results for image in result.images][:SHOWN]
        shown = [
            Shown(image, int(label), float(confidence))
            for image, confidence, label in zip(images, confidences.values, confidences.indices)
        ]
        total = len(confidences.values)
        title = f"{total} images" if len(shown) == total else f"the first {len(shown)} of {total} images"
        labelled = [ShownLabels(image, row) for image, row in zip(images, probabilities)]
        grid = label_grid(labelled, classes, title) if several else image_grid(shown, classes, title)
        with written_whole(picture, remedy="give another folder") as file:
            grid.savefig(file, dpi=120)
        return [table, picture]
