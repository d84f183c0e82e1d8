"""Classes of the nodes of one large graph, some of which are known: one of several, or several labels each."""

from collections.abc import Callable, Iterator
from pathlib import Path
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
from ...core.learning.baselines import Baselines
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult
from ...core.objectives import balanced_weights
from ...core.pictures.charts import confusion_matrix
from ...core.weights.networks import Kind
from ...core.weights.pretrained import LoadReport
from ..data.description import GraphDescription
from ..metrics.labels import THRESHOLD, label_area, label_metrics
from ..models.propagation import spread
from ..pretrained.words import rows_by_word, take_words
from .features import GRAPHS
from .losses import class_loss, label_loss
from .node_files import NodePredictions, write_node_files
from .node_pictures import TestedNodes, node_pictures
from .node_references import FEATURES, PROPAGATION, NodeReferences, known_nodes
from .predictions import GraphPredictions
from .tested import Comparison, Tested, against_best, tell

Part = Literal["train", "val", "test"]


class NodeClassifier(NetworkTask):
    """Tells classes of nodes from their features and from the graph around them.

    All nodes and edges may be looked at in training, labels of training nodes alone are learned from (transductive). A
    batch is the whole graph, or seed nodes among sampled neighbours. Where a node has one of several classes, training
    minimises cross entropy, and accuracy and the mean F1 score of the classes are measured; where targets are yes, no
    or unknown, the binary cross entropy of those that are known, with ROC-AUC, average precision, F1 and accuracy.

    Beside every test stand label propagation, which looks at labels of training nodes and at edges, and a small network
    over the features of single nodes, which does not look at edges; and in words whether the network beats the better.

    Args:
        backbone: a registered name, or a class or function called with what `GraphDescription.sizes` says,
            `num_outputs` and `level`.
        propagation: rounds in which what is said of nodes spreads along edges before it is a prediction (Predict then
            Propagate, arXiv 1810.05997); 0 for none.
        restart: share of its own that a node keeps in each of these rounds.
        feature_dropout: share of the numbers of nodes that training leaves out, drawn anew in every step.
        label_smoothing: share of each target spread over all classes (arXiv 1512.00567).
        class_weights: "balanced" weighs each class by the inverse of its number of training nodes.
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit, targets that are numbers.
    """

    description_type: ClassVar[type] = GraphDescription
    kind: ClassVar[Kind] = GRAPHS
    fixed: ClassVar[frozenset[str]] = NetworkTask.fixed | {"propagation", "restart"}

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "gps_tiny",
        backbone_arguments: dict[str, Any] | None = None,
        propagation: int = 0,
        restart: float = 0.1,
        feature_dropout: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | None = None,
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        shares = {"restart": restart, "feature_dropout": feature_dropout, "label_smoothing": label_smoothing}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise QuintetError(f"model.{name} is {share}; it lies between 0 and 1")
        if propagation < 0:
            raise QuintetError(f"model.propagation is {propagation}; give 0 for none, or rounds such as 10")
        self.propagation, self.restart, self.feature_dropout = propagation, restart, feature_dropout
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.part: Part = "val"
        self.tested: TestedNodes | None = None
        self.measured = Tested()
        self.comparisons: list[Comparison] = []
        self._estimates: dict[str, Tensor] = {}

    # Building

    def make(self, description: GraphDescription) -> None:
        if not description.classes and not description.positives:
            raise QuintetError(
                "the targets are numbers, which are not predicted of nodes: name a column of classes in data.label, "
                "or columns of zeros and ones in data.targets"
            )
        if self.class_weights and not description.classes:
            raise QuintetError("model.class_weights is of nodes with one class each; these have several labels")
        sizes = {**description.sizes, "num_outputs": len(self.labels), "level": "node"}
        self.network = self.build_network(sizes)
        weights = balanced_weights(list(description.classes.values())) if self.class_weights else None
        self.register_buffer("loss_weights", weights, persistent=False)
        self.baseline_metrics = Baselines([PROPAGATION, FEATURES], self.metrics())
        self.confusion = MulticlassConfusionMatrix(len(self.labels))

    @property
    def several(self) -> bool:
        """Whether a node may have several labels."""
        return not self.description.classes

    @property
    def labels(self) -> list[str]:
        """Names of the classes, or of the labels that a node may have."""
        return list(self.description.classes or self.description.positives)

    def load_network(self) -> LoadReport:
        take_words(self.network, rows_by_word(self.pretrained, self.description))
        return super().load_network()

    def metrics(self) -> MetricCollection:
        if self.several:
            return label_metrics()
        classes = len(self.labels)
        accuracy, f1 = MulticlassAccuracy(classes, average="micro"), MulticlassF1Score(classes, average="macro")
        return collection({"accuracy": accuracy, "f1": f1})

    # Steps

    def forward(self, batch: Batch) -> Float[Tensor, "nodes labels"]:
        """Logits of all nodes of a batch."""
        if self.training and self.feature_dropout and "node_values" in batch:
            batch = batch.clone() if batch.node_values.requires_grad else _with(batch)
            batch.node_values = F.dropout(batch.node_values, self.feature_dropout)
        return spread(self.network(batch), batch.edge_index, self.propagation, self.restart)

    def asked(self, batch: Batch) -> Tensor:
        """Which nodes of a batch count: those of the part, with something known of them, that were asked for."""
        chosen = batch[f"{'train' if self.training else self.part}_mask"] & known_nodes(batch.y)
        return chosen & batch.seeds if "seeds" in batch else chosen

    def step(self, batch: Batch) -> StepResult:
        logits, chosen = self(batch), self.asked(batch)
        targets = batch.y[chosen]
        loss = self.loss_of(logits[chosen], targets)
        return StepResult(loss, self.outcome(logits.detach().float())[chosen], targets)

    def loss_of(self, logits: Float[Tensor, "nodes labels"], targets: Shaped[Tensor, "nodes ..."]) -> Tensor:
        """The loss over nodes of which something is known; plain where nothing is learned from it."""
        smoothing = self.label_smoothing if self.training else 0.0
        if self.several:
            return label_loss(logits, targets, smoothing)
        return class_loss(logits, targets, self.loss_weights if self.training else None, smoothing)

    def outcome(self, logits: Float[Tensor, "nodes labels"]) -> Float[Tensor, "nodes labels"]:
        """Probabilities."""
        return logits.sigmoid() if self.several else logits.softmax(-1)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.part = "val"
        self.evaluate(batch, "val")

    # The test, with its baselines

    def on_test_epoch_start(self) -> None:
        self.part = "test"
        self.confusion.reset()
        self.tested, self.measured = None, Tested()
        references = NodeReferences(self.description, self.loss_of, self.outcome)
        with torch.inference_mode(False):
            whole = self.trainer.datamodule.store.take([0]).to(self.device)
            self._estimates = references.estimates(whole, len(self.labels))

    def test_step(self, batch: Batch, batch_index: int) -> None:
        result, chosen = self.evaluate(batch, "test"), self.asked(batch)
        nodes = batch.node_row[chosen]
        estimates = {name: values[nodes] for name, values in self._estimates.items()}
        self.baseline_metrics.measure(self, estimates, result.targets)
        self.measured.add(nodes, result.predictions, result.targets, estimates)
        if not self.several:
            self.confusion.update(result.predictions, result.targets)
        if self.tested is None:  # the first batch alone is drawn: of one graph as a whole it is all there is
            self.tested = TestedNodes(batch, chosen, result.predictions)

    def on_test_epoch_end(self) -> None:
        # Every process takes part in the sum, though only one draws the picture.
        self.confused = None if self.several else self.confusion.compute()
        if self.trainer.world_size == 1:
            measure = {"roc_auc": label_area} if self.several else {"accuracy": _accuracy}
            self.comparisons = against_best(self.measured, measure, "nodes")
            tell(self.comparisons)

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if self.tested is None:
            return
        for comparison in self.comparisons:
            yield "comparison", comparison.bars()
        if self.confused is not None:
            yield "confusion_matrix", confusion_matrix(self.confused, self.labels, what="test nodes")
        yield from node_pictures(self, self.tested, self.trainer.datamodule.rows)

    # Prediction

    def predict_step(self, batch: Batch, batch_index: int) -> NodePredictions:
        probabilities = self.outcome(self(batch).float())
        vectors = self.network.embed(batch) if hasattr(self.network, "embed") else probabilities
        chosen = batch.seeds if "seeds" in batch else slice(None)
        return NodePredictions(batch.node_row[chosen].cpu(), probabilities[chosen].cpu(), vectors[chosen].float().cpu())

    def columns_of(self, predictions: GraphPredictions) -> dict[str, list[Any]]:
        """Columns of the table of predictions, but for those that name the rows."""
        names, values = self.labels, predictions.values
        if self.several:
            chosen = (values > THRESHOLD).tolist()
            told = {"labels": [";".join(name for name, has in zip(names, row, strict=True) if has) for row in chosen]}
        else:
            told = {"class": [names[at] for at in values.argmax(1).tolist()]}
        return told | {f"probability_{name}": column for name, column in zip(names, values.T.tolist(), strict=True)}

    def write_predictions(self, results: list[NodePredictions], folder: Path) -> list[Path]:
        """Writes predictions.csv, one row for each node in the order of the files, and predictions.png, their map.

        Raises QuintetError where one of them exists already.
        """
        return write_node_files(self, NodePredictions.together(results), self.trainer.datamodule.rows, Path(folder))


def _accuracy(predictions: Tensor, targets: Tensor) -> float:
    return float((predictions.argmax(1) == targets).double().mean())


def _with(batch: Batch) -> Batch:
    """The same fields in a batch of its own, so that one may be replaced."""
    return Batch(**batch.to_dict())
