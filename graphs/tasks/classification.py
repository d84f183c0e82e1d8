"""Classes of whole graphs: one of several, or several labels each of which is yes, no or unknown."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch_geometric.data import Batch
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from ...core.errors import QuintetError
from ...core.learning.deployable import Deployable
from ...core.learning.metrics import collection
from ...core.objectives import balanced_weights
from ...core.pictures.charts import confusion_matrix, shortened
from ..data.description import GraphDescription
from ..metrics.labels import THRESHOLD, LabelMetric, label_area, label_metrics
from .deployment import deployable_graphs
from .losses import class_loss, label_loss
from .predictions import GraphPredictions
from .regression import as_metric
from .whole import GraphTask


class GraphClassifier(GraphTask):
    """Tells classes of whole graphs.

    Where a graph has one of several classes, training minimises cross entropy; where targets are yes, no or unknown,
    the binary cross entropy of those that are known. Measured are ROC-AUC and average precision (each class against the
    rest), F1 and accuracy, as means over the classes or labels, and of each label by its name.

    Args:
        backbone: a registered name, or a class or function called with what `GraphDescription.sizes` says,
            `num_outputs` and `level`.
        label_smoothing: share of each target spread over all classes (arXiv 1512.00567).
        class_weights: "balanced" weighs each class by the inverse of its number of training graphs.
        **task: see quintet.graphs.tasks.whole.GraphTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit, targets that are numbers.
    """

    classifies: ClassVar[bool] = True

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "gps_tiny",
        backbone_arguments: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | None = None,
        **task: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **task)
        if not 0 <= label_smoothing < 1:
            raise QuintetError(f"model.label_smoothing is {label_smoothing}; it lies between 0 and 1")
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights

    def make(self, description: GraphDescription) -> None:
        if not description.classes and not description.positives:
            raise QuintetError("the targets are numbers, not classes; give model=graphs/regressor")
        if self.class_weights and not description.classes:
            raise QuintetError("model.class_weights is of graphs with one class each; these have several labels")
        weights = balanced_weights(list(description.classes.values())) if self.class_weights else None
        self.register_buffer("loss_weights", weights, persistent=False)
        super().make(description)
        self.confusion = MulticlassConfusionMatrix(len(self.output_names), ignore_index=-1)

    @property
    def several(self) -> bool:
        """Whether a graph may have several labels."""
        return not self.description.classes

    @property
    def output_names(self) -> list[str]:
        return list(self.description.classes or self.description.positives)

    def metrics(self) -> MetricCollection:
        if self.several:
            return label_metrics()
        count = {"num_classes": len(self.output_names), "ignore_index": -1}
        ranked = ["roc_auc", "average_precision"]
        measured = {name: LabelMetric(name) for name in ranked}
        measured |= {"accuracy": MulticlassAccuracy(average="micro", **count)}
        measured |= {"f1": MulticlassF1Score(average="macro", **count)}
        return collection(measured, [ranked])

    def metrics_of_each(self) -> dict[str, nn.Module]:
        if not self.several or len(self.output_names) == 1:
            return {}
        return {
            f"label_{at}": label_metrics(at).clone(prefix="test/", postfix=f"_{as_metric(name)}")
            for at, name in enumerate(self.output_names)
        }

    def targets(self, batch: Batch) -> Shaped[Tensor, "graphs ..."]:
        """Classes, -1 where unknown; or labels, NaN where unknown."""
        return batch.y

    def loss_of(self, outputs: Float[Tensor, "graphs outputs"], targets: Tensor) -> Tensor:
        smoothing = self.label_smoothing if self.training else 0.0
        if self.several:
            return label_loss(outputs, targets, smoothing)
        return class_loss(outputs, targets, self.loss_weights if self.training else None, smoothing)

    def outcome(self, outputs: Float[Tensor, "*members graphs outputs"]) -> Tensor:
        return outputs.sigmoid() if self.several else outputs.softmax(-1)

    def truth_of(self, targets: Tensor) -> Float[Tensor, "graphs outputs"]:
        if self.several:
            return targets
        truth = F.one_hot(targets.clamp(min=0), len(self.output_names)).float()
        return truth.masked_fill(targets[:, None] < 0, torch.nan)

    # Prediction

    def deployable(self) -> Deployable:
        """From graphs as plain tensors to the probabilities of their classes or labels."""
        return deployable_graphs(self, "probabilities", {"labels" if self.several else "classes": self.output_names})

    def columns_of(self, predictions: GraphPredictions) -> dict[str, list[Any]]:
        names, values = self.output_names, predictions.values
        if self.several:
            chosen = (values > THRESHOLD).tolist()
            labels = [";".join(name for name, has in zip(names, row, strict=True) if has) for row in chosen]
            columns: dict[str, list[Any]] = {"labels": labels}
        else:
            columns = {"class": [names[at] for at in values.argmax(1).tolist()]}
        columns |= {f"probability_{name}": column for name, column in zip(names, values.T.tolist(), strict=True)}
        if predictions.deviations is not None:
            spread = predictions.deviations.T.tolist()
            columns |= {f"deviation_{name}": column for name, column in zip(names, spread, strict=True)}
        return columns

    # Pictures of the test

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.confusion.reset()

    def test_step(self, batch: Batch, batch_index: int) -> None:
        super().test_step(batch, batch_index)
        if not self.several:
            self.confusion.update(self.tested.last, batch.y)

    def on_test_epoch_end(self) -> None:
        # Every process takes part in the sum, though only one draws the picture.
        self.confused = None if self.several else self.confusion.compute()
        self.tell_verdict("roc_auc", label_area, smaller_is_better=False)

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        yield from super().pictures()
        if self.tested is not None and self.confused is not None:
            yield "confusion_matrix", confusion_matrix(self.confused, self.output_names, what="test graphs")

    def told_columns(self) -> list[str]:
        return ["labels" if self.several else "class"]

    def errors(self) -> list[float]:
        truth = self.tested.targets if self.several else self.truth_of(self.tested.targets)
        return (self.tested.predictions - truth).abs().nanmean(1).tolist()

    def caption(self, graph: int) -> str:
        found, truth = self.tested.predictions[graph], self.tested.targets[graph]
        names = self.output_names
        if not self.several:
            true = "unknown" if truth < 0 else shortened(names[int(truth)], 18)
            return f"{shortened(names[int(found.argmax())], 18)} {found.max():.0%}\ntrue: {true}"
        at = int((found - truth).abs().nan_to_num(-1.0).argmax())
        return f"{shortened(names[at], 18)} {found[at]:.0%}\ntrue: {'yes' if truth[at] > 0.5 else 'no'}"

    @property
    def explained_name(self) -> str:
        return super().explained_name if self.several else "the class that it was taken for"

    def explained(self, graph: int) -> tuple[int, str]:
        if not self.several:
            return int(self.tested.predictions[graph].argmax()), self.caption(graph)
        found, truth = self.tested.predictions[graph, 0].item(), self.tested.targets[graph, 0].item()
        true = "unknown" if truth != truth else "yes" if truth > 0.5 else "no"
        return 0, f"{found:.0%}\ntrue: {true}"

    def colours(self) -> tuple[list[Any], str]:
        if not self.several:
            names = self.output_names
            return [None if label < 0 else names[label] for label in self.tested.targets.tolist()], ""
        name, truth = self.output_names[0], self.tested.targets[:, 0].tolist()
        return [None if value != value else f"{name}: {'yes' if value > 0.5 else 'no'}" for value in truth], ""
