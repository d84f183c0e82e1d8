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
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ...core.learning.baselines import Baselines
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.pictures.embeddings import projection
from ...core.weights.networks import Kind
from ...core.weights.pretrained import LoadReport
from ..data.description import GraphDescription
from ..metrics.ranking import HitsAt, MeanReciprocalRank
from ..models.neighbourhood_scores import NeighbourhoodScores
from ..models.pair_decoders import DotProduct
from ..pictures.link_scores import score_histogram
from ..pretrained.words import rows_by_word, take_words
from .features import GRAPHS
from .link_files import read_pairs, top_candidates, write_links

COMMON, RARE = "common_neighbours", "adamic_adar"  # what the baselines are called beside the model
WITHIN = 10, 50  # places among which Hits@k looks


class LinkPredictor(NetworkTask):
    """Scores pairs of nodes of one graph: how likely they are joined by an edge that is not listed.

    Each training step hides some of the known edges, embeds nodes along the others, and minimises the binary cross
    entropy of scores of the hidden ones beside as many pairs drawn at random that are no edges. Validation and test
    compare held-out edges with pairs that were drawn once. Measured are ROC-AUC, average precision, the mean reciprocal
    rank and Hits@10 and @50 among those pairs. Scores of common neighbours and of Adamic and Adar along the known edges
    stand beside every test.

    A batch has, beside the graph of known edges, `candidates` (2, P), pairs of nodes, and `linked` (P,), 1 where they
    are joined and 0 where not; training needs neither.

    Args:
        backbone: a registered name, or a class or function called with what `GraphDescription.sizes` says,
            `num_outputs`, which is `dim`, and `level`.
        dim: width of the embeddings that pairs are scored by.
        decoder: factory `SomeDecoder(dim)` of what scores pairs of embeddings (P, dim) and (P, dim) as (P,).
        hidden: share of the known edges that a training step hides and asks for.
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit.
    """

    description_type: ClassVar[type] = GraphDescription
    kind: ClassVar[Kind] = GRAPHS
    fixed: ClassVar[frozenset[str]] = NetworkTask.fixed | {"dim", "decoder"}

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "gps_tiny",
        backbone_arguments: dict[str, Any] | None = None,
        dim: int = 64,
        decoder: Callable[[int], nn.Module] = DotProduct,
        hidden: float = 0.3,
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        if dim < 1:
            raise QuintetError(f"model.dim is {dim}; give at least 1, such as 64")
        if not 0 < hidden < 1:
            raise QuintetError(f"model.hidden is {hidden}; it lies between 0 and 1")
        self.dim, self.hidden, self.decoder_factory = dim, hidden, decoder
        self.scored: tuple[Tensor, Tensor] | None = None

    # Building

    def make(self, description: GraphDescription) -> None:
        self.network = self.build_network({**description.sizes, "num_outputs": self.dim, "level": "node"})
        self.decoder = self.decoder_factory(self.dim)
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
        return self.score(self.network(batch), pairs)

    def score(self, nodes: Float[Tensor, "nodes dim"], pairs: Int[Tensor, "2 pairs"]) -> Float[Tensor, " pairs"]:
        """Logits of pairs of embedded nodes."""
        return self.decoder(nodes[pairs[0]], nodes[pairs[1]])

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
        self.scored = None

    def test_step(self, batch: Batch, batch_index: int) -> None:
        result = self.evaluate(batch, "test")
        near = NeighbourhoodScores(batch.edge_index, batch.num_nodes)
        estimates = {COMMON: near.common_neighbours(batch.candidates), RARE: near.adamic_adar(batch.candidates)}
        estimates = {name: between(scores) for name, scores in estimates.items()}
        self.baseline_metrics.measure(self, estimates, result.targets)
        if self.scored is None:
            self.scored = result.predictions.float().cpu(), result.targets.cpu()
            self._tested = batch

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if self.scored is None:
            return
        yield "scores", score_histogram(*self.scored)
        with torch.no_grad():
            vectors = self.network(self._tested).float().cpu().numpy()
        yield "embeddings", projection(vectors, [None] * len(vectors), "nodes as links are scored by", what="node")

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
        self.decoder.cpu()  # where the embeddings are
        score = torch.no_grad()(
            lambda chosen: self.score(nodes.to(self.device), chosen.to(self.device)).sigmoid().cpu()
        )
        if asked is None:
            asked = top_candidates(score, edges, names, top)
        return [write_links(asked, score, folder)]


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
