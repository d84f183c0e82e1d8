"""Links that a graph lacks: which pairs of its nodes are likely to be joined."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch_geometric.data import Batch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ...core.learning.baselines import Baselines
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.weights.networks import Kind
from ...core.weights.pretrained import LoadReport
from ..data.description import GraphDescription
from ..metrics.ranking import HitsAt, MeanReciprocalRank
from ..models.neighbourhood_scores import NeighbourhoodScores
from ..models.pair_decoders import DotProduct, SharedNeighbours
from ..pictures.embeddings import embedding_map
from ..pictures.link_scores import score_histogram
from ..pretrained.words import rows_by_word, take_words
from .features import GRAPHS
from .link_files import read_pairs, top_candidates, write_links
from .tested import Comparison, Score, Tested, against_best, tell

COMMON, RARE = "common_neighbours", "adamic_adar"  # what the baselines are called beside the model
WITHIN = 10, 50  # places among which Hits@k looks
MOST_PAIRS = 100_000  # drawn anew to tell chance from difference; reciprocal ranks depend on how many there are


class LinkPredictor(NetworkTask):
    """Scores pairs of nodes of one graph: how likely they are joined by an edge that is not listed.

    Each training step hides some of the known edges, embeds nodes along the others, and minimises the binary cross
    entropy of scores of the hidden ones beside as many pairs drawn at random that are no edges. Validation and test
    compare held-out edges with pairs that were drawn once. Measured are ROC-AUC, average precision, the mean reciprocal
    rank and Hits@10 and @50 among those pairs. Scores of common neighbours and of Adamic and Adar along the known edges
    stand beside every test, and in words whether the network beats the better of them.

    A batch has, beside the graph of known edges, `candidates` (2, P), pairs of nodes, and `linked` (P,), 1 where they
    are joined and 0 where not; training needs neither.

    Args:
        backbone: a registered name, or a class or function called with what `GraphDescription.sizes` says,
            `num_outputs`, which is `dim`, and `level`.
        dim: width of the embeddings that pairs are scored by.
        decoder: factory `SomeDecoder(dim)` of what scores pairs of embeddings (P, dim) and (P, dim) as (P,).
        hidden: share of the known edges that a training step hides and asks for.
        neighbours: add to the score of a pair what its nodes' common neighbours along the known edges, those a training
            step hides left out, say of it: see quintet.graphs.models.pair_decoders.SharedNeighbours.
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit.
    """

    description_type: ClassVar[type] = GraphDescription
    kind: ClassVar[Kind] = GRAPHS
    fixed: ClassVar[frozenset[str]] = NetworkTask.fixed | {"dim", "decoder", "neighbours"}

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "gps_tiny",
        backbone_arguments: dict[str, Any] | None = None,
        dim: int = 64,
        decoder: Callable[[int], nn.Module] = DotProduct,
        hidden: float = 0.3,
        neighbours: bool = False,
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        if dim < 1:
            raise QuintetError(f"model.dim is {dim}; give at least 1, such as 64")
        if not 0 < hidden < 1:
            raise QuintetError(f"model.hidden is {hidden}; it lies between 0 and 1")
        self.dim, self.hidden, self.decoder_factory, self.neighbours = dim, hidden, decoder, neighbours
        self.tested: Tested | None = None
        self.comparisons: list[Comparison] = []

    # Building

    def make(self, description: GraphDescription) -> None:
        self.network = self.build_network({**description.sizes, "num_outputs": self.dim, "level": "node"})
        self.decoder = self.decoder_factory(self.dim)
        self.shared = SharedNeighbours() if self.neighbours else None
        baselines = self.metrics()
        self.baseline_metrics = Baselines([COMMON, RARE], baselines)

    def load_network(self) -> LoadReport:
        take_words(self.network, rows_by_word(self.pretrained, self.description))
        return super().load_network()

    def metrics(self) -> MetricCollection:
        ranks = {"mrr": MeanReciprocalRank()} | {f"hits_at_{k}": HitsAt(k) for k in WITHIN}
        return collection({"roc_auc": BinaryAUROC(), "average_precision": BinaryAveragePrecision()} | ranks)

    # Steps

    def forward(self, batch: Batch, pairs: Int[Tensor, "2 pairs"]) -> Float[Tensor, " pairs"]:
        """Logits of pairs of nodes."""
        return self.score(self.network(batch), pairs, self.near(batch.edge_index, batch.num_nodes))

    def near(self, edge_index: Int[Tensor, "2 edges"], nodes: int) -> NeighbourhoodScores | None:
        """What scores read of the edges that are known; None where they read embeddings alone."""
        return NeighbourhoodScores(edge_index, nodes) if self.neighbours else None

    def score(
        self, nodes: Float[Tensor, "nodes dim"], pairs: Int[Tensor, "2 pairs"], near: NeighbourhoodScores | None
    ) -> Float[Tensor, " pairs"]:
        """Logits of pairs of embedded nodes."""
        logits = self.decoder(nodes[pairs[0]], nodes[pairs[1]])
        return logits if self.shared is None else logits + self.shared(near, pairs)

    def step(self, batch: Batch) -> StepResult:
        batch, pairs, linked = self._hidden(batch) if self.training else (batch, batch.candidates, batch.linked)
        logits = self(batch, pairs).float()
        loss = F.binary_cross_entropy_with_logits(logits, linked.float())
        return StepResult(loss, between(logits.detach()), linked.long())

    def _hidden(self, batch: Batch) -> tuple[Batch, Tensor, Tensor]:
        """The graph without some of its edges, in either direction; these and as many pairs that are none."""
        names = pair_names(batch.edge_index, batch.num_nodes)
        distinct = names[batch.edge_index[0] != batch.edge_index[1]].unique()  # none asks for an edge to itself
        count = max(1, round(self.hidden * len(distinct)))
        hidden = distinct[torch.randperm(len(distinct), device=names.device)[:count]]
        others = pairs_apart(batch.num_nodes, distinct, count)
        asked = torch.cat([hidden, others])
        linked = torch.cat([torch.ones_like(hidden), torch.zeros_like(others)])
        pairs = torch.stack([asked // batch.num_nodes, asked % batch.num_nodes])
        return without_edges(batch, torch.isin(names, hidden)), pairs, linked

    # The test, with its baselines

    def on_test_epoch_start(self) -> None:
        self.tested = Tested()

    def test_step(self, batch: Batch, batch_index: int) -> None:
        result = self.evaluate(batch, "test")
        near = NeighbourhoodScores(batch.edge_index, batch.num_nodes)
        estimates = {COMMON: near.common_neighbours(batch.candidates), RARE: near.adamic_adar(batch.candidates)}
        estimates = {name: between(scores) for name, scores in estimates.items()}
        self.baseline_metrics.measure(self, estimates, result.targets)
        if not self.tested:
            self.tested.add(torch.arange(len(result.targets)), result.predictions, result.targets, estimates)
            self._tested = batch

    def on_test_epoch_end(self) -> None:
        if self.trainer.world_size == 1:
            measures = {"roc_auc": _scored_by(BinaryAUROC), "mrr": _scored_by(MeanReciprocalRank)}
            self.comparisons = against_best(self.tested, measures, "pairs", MOST_PAIRS)
            tell(self.comparisons)

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if not self.tested:
            return
        for comparison in self.comparisons:
            yield f"comparison_{comparison.measure}", comparison.bars()
        yield "scores", score_histogram(self.tested.predictions.float(), self.tested.targets)
        with torch.no_grad():
            vectors = self.network(self._tested).float().cpu().numpy()
        degrees = (1.0 + self._tested.edge_index[1].bincount(minlength=len(vectors))).log2().tolist()
        yield "embeddings", embedding_map(vectors, degrees, "nodes as links are scored by", "log2 (1 + known edges)")

    # Prediction

    def predict_step(self, batch: Batch, batch_index: int) -> tuple[Tensor, Tensor]:
        """Embeddings of the nodes, and the edges that are known."""
        return self.network(batch).float().cpu(), batch.edge_index.cpu()

    @command
    def predict(
        self, data: DataModule, trainer: L.Trainer, folder: Path, pairs: str | None = None, top: int = 10
    ) -> list[Path]:
        """Writes predictions.csv: a score for each pair of a file, or the likeliest new links of each node.

        Args:
            data: the graph.
            trainer: that runs the network.
            folder: to write into.
            pairs: a table whose columns `source` and `target` name nodes; one that cannot be read keeps its row, with
                the reason.
            top: links of each node, where no pairs are given.

        Raises QuintetError where predictions.csv exists already, and for a table without these columns.
        """
        if top < 1:
            raise QuintetError(f"top is {top}; give at least 1")
        names = [next(iter(row.named.values()), str(row.number)) for row in data.rows]
        asked = None if pairs is None else read_pairs(Path(pairs), names)
        ((nodes, edges),) = trainer.predict(self, datamodule=data)
        self.cpu()  # where the embeddings are
        near = self.near(edges, len(nodes))
        score = torch.no_grad()(lambda chosen: self.score(nodes, chosen, near).sigmoid())
        if asked is None:
            asked = top_candidates(score, edges, names, top)
        return [write_links(asked, score, folder)]


def _scored_by(metric: type[Metric]) -> Score:
    """What a metric says of predictions and targets; NaN where only one kind of pairs was drawn."""

    def score(predictions: Tensor, targets: Tensor) -> float:
        if targets.min() == targets.max():
            return float("nan")
        measured = metric()
        measured.update(predictions, targets)
        return float(measured.compute())

    return score


def between(scores: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """(1 + s / (1 + |s|)) / 2 in float64, between 0 and 1 in the same order, as metrics want scores to be."""
    scores = scores.double()
    return (1 + scores / (1 + scores.abs())) / 2


def pair_names(edge_index: Int[Tensor, "2 edges"], nodes: int) -> Int[Tensor, " edges"]:
    """One number for each pair of nodes, whichever comes first: smaller * nodes + larger."""
    ends = edge_index.sort(0).values
    return ends[0] * nodes + ends[1]


def pairs_apart(nodes: int, known: Int[Tensor, " known"], count: int) -> Int[Tensor, " pairs"]:
    """Numbers of up to `count` random pairs of different nodes that are not known; fewer where the graph is dense."""
    drawn = torch.randint(nodes, (2, 2 * count + 8), device=known.device)
    names = pair_names(drawn[:, drawn[0] != drawn[1]], nodes)
    return names[~torch.isin(names, known)][:count]


def without_edges(batch: Batch, gone: Tensor) -> Batch:
    """The batch without some of its edges, and their categories and numbers."""
    edges = {name: values for name, values in batch.to_dict().items() if name in ("edge_categories", "edge_values")}
    left = {name: values[~gone] for name, values in edges.items()}
    return Batch(**batch.to_dict() | left | {"edge_index": batch.edge_index[:, ~gone]})
