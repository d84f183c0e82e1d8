"""What a backbone knows of graphs: what a head reads of each, in a file and on a map."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import lightning as L
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Batch
from torchmetrics import MetricCollection

from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.mixer import Mixer
from ...core.weights.networks import Kind
from ...core.weights.pretrained import LoadReport
from ...core.writing.files import refuse_existing, written_whole
from ..data.description import GraphDescription
from ..data.store import GraphStore
from ..pictures.embeddings import embedding_map
from ..pretrained.words import rows_by_word, take_words
from .ensemble import Ensemble

GRAPHS = Kind("graphs", "a backbone", "gps_tiny")
AT_A_TIME = 64


class GraphEmbeddings(NamedTuple):
    """Embeddings of a batch of graphs, and the rows of the input they came from."""

    rows: Int[Tensor, " graphs"]
    vectors: Float[Tensor, "graphs dim"]


def embedded(network: nn.Module, batch: Batch) -> Float[Tensor, "graphs dim"]:
    """What the head reads of each graph; of an ensemble what each head reads, side by side.

    Raises QuintetError for a network without `embed` and `pool`.
    """
    members = network.members if isinstance(network, Ensemble) else [network]
    for member in members:
        if not hasattr(member, "embed") or not hasattr(member, "pool"):
            raise QuintetError(f"{type(member).__name__} does not say what its head reads (embed and pool)")
    return torch.cat([member.pool(batch, member.embed(batch)) for member in members], dim=1)


def embeddings_of(task: NetworkTask, store: GraphStore) -> Float[Tensor, "graphs dim"]:
    """Embeddings of all graphs of a store, in their order."""
    training, found = task.training, []
    task.eval()
    try:
        with torch.no_grad():
            for chosen in torch.arange(len(store)).split(AT_A_TIME):
                found.append(embedded(task.network, store.take(chosen).to(task.device)).float().cpu())
    finally:
        task.train(training)
    return torch.cat(found)


class GraphFeatures(NetworkTask):
    """The pooled features of graphs before any head, from random or published weights; nothing is trained.

    `quintet embed` writes them. The checkpoint of a task on whole graphs has the same command.

    Args:
        backbone: a registered name, or a class or function called with what `GraphDescription.sizes` says,
            `num_outputs` and `level`, with `embed` and `pool`.
        backbone_arguments: further arguments for a backbone given by name.
        mixer: the mixer to put into the backbone instead of its own.
        pretrained: true for the default published weights, a tag, a file (also a checkpoint of quintet) or a hub id.
        accept_license: the terms of the pretrained weights are accepted, where they restrict their use.

    Raises:
        QuintetError: an unknown backbone, one that gives no features, weights that do not fit.
    """

    description_type: ClassVar[type] = GraphDescription
    kind: ClassVar[Kind] = GRAPHS
    needs_training: ClassVar[bool] = False

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "gps_tiny",
        backbone_arguments: dict[str, Any] | None = None,
        mixer: Callable[[int], Mixer] | str | None = None,
        pretrained: bool | str = False,
        accept_license: bool = False,
    ) -> None:
        super().__init__(backbone, backbone_arguments, mixer, pretrained, accept_license)

    @classmethod
    def of(cls, task: NetworkTask) -> "GraphFeatures":
        """The features that the heads of a trained task read."""
        extractor = cls(task.backbone, task.backbone_arguments, task.mixer)
        extractor.description, extractor.network = task.description, task.network
        return extractor.eval()

    def make(self, description: GraphDescription) -> None:
        self.network = self.build_network({**description.sizes, "num_outputs": 1, "level": "graph"})

    def load_network(self) -> LoadReport:
        take_words(self.network, rows_by_word(self.pretrained, self.description))
        return super().load_network()

    def metrics(self) -> MetricCollection:
        return collection({})

    def step(self, batch: Batch) -> StepResult:
        raise QuintetError(
            "a GraphFeatures is not trained; quintet embed writes its features, model=graphs/regressor or "
            "model=graphs/classifier with model.freeze=[backbone] trains a head on them"
        )

    def forward(self, batch: Batch) -> Float[Tensor, "graphs dim"]:
        """What the head reads of each graph."""
        return embedded(self.network, batch)

    def predict_step(self, batch: Batch, batch_index: int) -> GraphEmbeddings:
        return GraphEmbeddings(batch.row.cpu(), self(batch).float().cpu())

    def write_predictions(self, results: list[GraphEmbeddings], folder: Path) -> list[Path]:
        raise QuintetError("a GraphFeatures predicts nothing; quintet embed writes its features")

    @command
    def embed(self, data: DataModule, trainer: L.Trainer, folder: Path) -> list[Path]:
        """Writes embeddings.parquet (the columns that name a row, its embedding) and embeddings.png, their map.

        Rows that could not be read have no embedding and are left out; their numbers are in the column `row`.

        Raises QuintetError where files of these names exist already.
        """
        paths = [Path(folder) / name for name in ("embeddings.parquet", "embeddings.png")]
        for path in paths:
            refuse_existing(path, "folder")
        results: list[GraphEmbeddings] = trainer.predict(self, datamodule=data)
        rows = torch.cat([result.rows for result in results])
        vectors = torch.cat([result.vectors for result in results])
        write_embeddings(rows.tolist(), vectors, data.rows, paths[0])
        y = data.datasets["predict"].graphs.get("y")
        known, name = _known(y, self.description, len(rows))
        title = f"embeddings of {len(rows):,} graphs by {self.backbone_name}"
        with written_whole(paths[1], remedy="give another folder") as partial:
            embedding_map(vectors.numpy(), known, title, name).savefig(partial, dpi=120)
        return paths


def _known(y: Tensor | None, description: GraphDescription, count: int) -> tuple[list[Any], str]:
    """What colours a map: the first target of each graph, where the files say it."""
    if y is None or len(y) != count:
        return [None] * count, ""
    if description.classes:
        names = list(description.classes)
        return [None if label < 0 else names[label] for label in y.tolist()], ""
    return y[:, 0].tolist(), description.targets[0] if description.targets else ""


def write_embeddings(rows: Sequence[int], vectors: Tensor, about: Sequence[Any], target: Path) -> None:
    """One row a graph: its number (from 1), the user's columns that name it, its embedding as a list of float32."""
    named = [about[row].named for row in rows]
    names = list(named[0]) if named else []
    columns: dict[str, Any] = {"row": pa.array([row + 1 for row in rows], pa.int64())}
    columns |= {name: pa.array([str(own.get(name, "")) for own in named], pa.string()) for name in names}
    flat = pa.array(vectors.numpy().ravel(), pa.float32())
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    with written_whole(target, remedy="give another folder") as partial:
        pq.write_table(pa.table(columns), partial)
