"""Classification of series of any length, beside the nearest neighbour among the training series."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from ...core.errors import QuintetError
from ...core.learning.baselines import Baselines
from ...core.learning.deployable import Deployable
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult
from ...core.objectives import balanced_weights, cross_entropy
from ...core.pictures.charts import confusion_matrix
from ...core.weights.networks import Kind
from ..data.classes import LabelledBatch, LabelledSeriesDescription
from ..models.nearest_neighbor import NearestNeighbor
from ..pictures.classes import CASES, SeriesGallery, ShownSeries, class_panels, series_panels
from . import tables
from .deployment import deployable_classifier

NEIGHBOR = "nearest_neighbor"  # what the baseline is called beside the model


@dataclass
class SeriesClasses:
    """What one batch of series was taken for: their numbers and their class probabilities (B, K)."""

    indices: list[int]
    probabilities: Float[Tensor, "batch classes"]


class SeriesClassifier(NetworkTask):
    """Classifies series of any length with any network, from random weights or from a file.

    Training minimises cross entropy, smoothed and weighted as asked for; the loss on validation and test data is the
    plain cross entropy. Measured are accuracy, the mean F1 score of the classes and the expected calibration error (On
    Calibration of Modern Neural Networks, arXiv 1706.04599). Accuracy and F1 of the nearest neighbour among the
    training series stand beside every test.

    Args:
        backbone: a registered name, or a class or function called with `channels` and `num_classes`, whose `forward`
            takes values (B, T, C), observed (B, T, C) and mask (B, T) and gives logits (B, K).
        label_smoothing: share of each target spread over all classes (arXiv 1512.00567).
        class_weights: "balanced" weighs each class by the inverse of its number of training series.
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit.
    """

    description_type: ClassVar[type] = LabelledSeriesDescription
    kind: ClassVar[Kind] = Kind("timeseries", "a classifier", "patch_classifier")

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "inception_time",
        backbone_arguments: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | None = None,
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        if not 0 <= label_smoothing < 1:
            raise QuintetError(f"model.label_smoothing is {label_smoothing}; it lies between 0 and 1")
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.gallery: SeriesGallery | None = None

    # Building

    def make(self, description: LabelledSeriesDescription) -> None:
        classes = len(description.classes)
        self.network = self.build_network({"channels": len(description.channels), "num_classes": classes})
        weights = None
        if self.class_weights == "balanced":
            weights = balanced_weights(description.class_counts)
        self.register_buffer("loss_weights", weights, persistent=False)
        # In the checkpoint, so that a later test has the baseline of the same training series.
        count = sum(description.class_counts)
        self.neighbor = NearestNeighbor(len(description.channels), description.longest, count)
        self.baseline_metrics = Baselines([NEIGHBOR], self._class_metrics())
        self.confusion = MulticlassConfusionMatrix(classes)

    def _class_metrics(self) -> MetricCollection:
        """What is measured of classes alone, the model's or the baseline's."""
        classes = len(self.description.classes)
        return collection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "f1": MulticlassF1Score(classes, average="macro"),
            }
        )

    def metrics(self) -> MetricCollection:
        calibration = MulticlassCalibrationError(len(self.description.classes), n_bins=15, norm="l1")
        return collection(dict(self._class_metrics().items()) | {"calibration_error": calibration})

    # Steps

    def forward(
        self, values: Float[Tensor, "batch time channels"], mask: Tensor | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Logits of scaled series, NaN where nothing was observed; `mask` (B, T) is True where a step is real."""
        return self.network(values.nan_to_num(0.0), values.isfinite(), mask)

    def step(self, batch: LabelledBatch) -> StepResult:
        logits = self(batch.values, batch.mask)
        if self.training:
            loss = cross_entropy(logits, batch.label, self.loss_weights, self.label_smoothing)
        else:
            loss = cross_entropy(logits, batch.label)
        # Metrics take logits for probabilities where all of them happen to lie between 0 and 1.
        return StepResult(loss, logits.detach().float().softmax(1), batch.label)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        train = self.trainer.datamodule.datasets["train"]
        self.neighbor.fit(train.values, torch.tensor(train.labels))

    # The test, with its baseline

    def on_test_epoch_start(self) -> None:
        self.confusion.reset()
        self.gallery = SeriesGallery(self.description.mean, self.description.std)

    def test_step(self, batch: LabelledBatch, batch_index: int) -> None:
        result = self.evaluate(batch, "test")
        self.confusion.update(result.predictions, result.targets)
        nearest = self.neighbor(batch.values, batch.mask)
        self.baseline_metrics.measure(self, {NEIGHBOR: nearest}, result.targets)
        self.gallery.add(batch, result.predictions)

    def on_test_epoch_end(self) -> None:
        # Every process takes part in the sum, though only one draws the picture.
        self.confused = self.confusion.compute()

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        wrong, right = (self.gallery.mistakes, self.gallery.right) if self.gallery else ([], [])
        if not (wrong or right) or self._trainer is None:
            return
        known, data = self.description, self.trainer.datamodule
        if "train" not in data.parts:
            data.prepare(("train",))
        groups = {name: [case.values for case in data.parts["train"] if case.label == name] for name in known.classes}
        yield "classes", class_panels(groups, known.channels, known.units)
        yield "confusion_matrix", confusion_matrix(self.confused, known.classes, what="test series")
        names = [case.name for case in data.parts["test"]]
        if wrong:
            yield "mistakes", series_panels(wrong, names, known.classes, known.channels, "the most confident mistakes")
        if right:
            yield "predictions", series_panels(right, names, known.classes, known.channels, "series classified right")

    # Prediction

    def deployable(self) -> Deployable:
        """From series in the user's own units to the probabilities of their classes."""
        return deployable_classifier(self)

    def predict_step(self, batch: LabelledBatch, batch_index: int) -> SeriesClasses:
        return SeriesClasses(batch.index.tolist(), self(batch.values, batch.mask).float().softmax(1).cpu())

    def write_predictions(self, results: list[SeriesClasses], folder: Path) -> list[Path]:
        """Writes predictions.csv (series, label, probability of each class) and predictions.png.

        Raises QuintetError where one of them exists already.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        table, picture = folder / "predictions.csv", folder / "predictions.png"
        tables.check_targets([table, picture])
        known, data = self.description, self.trainer.datamodule
        cases = data.parts["predict"]
        probabilities = torch.cat([result.probabilities for result in results])
        numbers = [index for result in results for index in result.indices]
        confidences, labels = probabilities.max(1)
        columns = {
            "series": [cases[number].name for number in numbers],
            "label": [known.classes[label] for label in labels.tolist()],
        }
        columns |= {
            f"probability_{name}": column for name, column in zip(known.classes, probabilities.T.tolist(), strict=True)
        }
        tables.write_frame(table, pd.DataFrame(columns), "%.6f")
        shown = [
            ShownSeries(number, cases[number].values, int(label), float(confidence))
            for number, label, confidence in list(zip(numbers, labels, confidences, strict=True))[:CASES]
        ]
        title = (
            f"{len(numbers)} series" if len(shown) == len(numbers) else f"the first {CASES} of {len(numbers)} series"
        )
        figure = series_panels(shown, [case.name for case in cases], known.classes, known.channels, title)
        tables.write_picture(picture, figure)
        return [table, picture]
