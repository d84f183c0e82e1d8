"""What a backbone knows of images: embeddings in a file, and how well neighbours and a linear probe tell classes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torchmetrics import MetricCollection

from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.mixer import Mixer
from ...core.pictures.embeddings import projection
from ...core.weights.network import said
from ...core.weights.networks import Kind
from ...core.writing.cells import text_cell, write_table
from ...core.writing.console import printable
from ...core.writing.files import refuse_existing, written_whole
from ..backbones import IMAGES, Backbone
from ..data.images import ImageDescription, ImageSample

REGULARIZATIONS = (0.01, 0.1, 1.0, 10.0)  # inverse strengths among which the validation images choose


@dataclass
class ImageEmbeddings:
    """Embeddings of a batch of images (B, D), and where the images are."""

    paths: list[str]
    vectors: Float[Tensor, "batch dim"]


class FeatureExtractor(NetworkTask):
    """The pooled features of images before any head, from random or published weights; nothing is trained.

    `quintet embed` writes them and says what they are worth. A classifier's checkpoint has the same command.

    Args:
        backbone: a registered name, `timm:<name>`, or a class or function called with `num_classes`, which is 0, and
            `in_channels`, that then returns features (batch, dim).
        backbone_arguments: further arguments for a backbone given by name.
        mixer: the mixer to put into the backbone instead of its own.
        pretrained: true for the default published weights, a tag, a file (also a checkpoint of quintet) or a hub id.
        accept_license: the terms of the pretrained weights are accepted, where they restrict their use.

    Raises:
        QuintetError: an unknown backbone, one that gives no features, weights that do not fit.
    """

    description_type: ClassVar[type] = ImageDescription
    kind: ClassVar[Kind] = IMAGES
    needs_training: ClassVar[bool] = False

    def __init__(
        self,
        backbone: str | Backbone = "vit_tiny",
        backbone_arguments: dict[str, Any] | None = None,
        mixer: Callable[[int], Mixer] | str | None = None,
        pretrained: bool | str = False,
        accept_license: bool = False,
    ) -> None:
        super().__init__(backbone, backbone_arguments, mixer, pretrained, accept_license)

    @classmethod
    def of(cls, task: NetworkTask) -> "FeatureExtractor":
        """The features that the head of a trained classifier reads."""
        extractor = cls(task.backbone, task.backbone_arguments, task.mixer)
        extractor.adopt(task.description, restoring=True)
        head = said(task.network, "head_keys")
        if not head:
            raise QuintetError(f"{task.backbone_name} does not say which parameters are its head (head_keys)")
        state = {key: value for key, value in task.network.state_dict().items() if key not in head}
        extractor.network.load_state_dict(state)
        return extractor.eval()

    # Building

    def describe(self, data: DataModule) -> ImageDescription:
        """How to read the images of `data`, whether they have labels or not."""
        return data.unlabelled_description() if hasattr(data, "unlabelled_description") else data.description()

    def make(self, description: ImageDescription) -> None:
        self.network = self.build_network({"num_classes": 0, "in_channels": description.channels})

    def metrics(self) -> MetricCollection:
        return collection({})

    def step(self, batch: ImageSample) -> StepResult:
        raise QuintetError(
            "a FeatureExtractor is not trained; quintet embed writes its features, model=vision/classifier with "
            "model.freeze=[backbone] trains a linear head on them"
        )

    # Embedding

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """Features of normalized images."""
        features = self.network(images)
        if features.ndim != 2:
            raise QuintetError(
                f"{self.backbone_name} with num_classes=0 gives {tuple(features.shape)}; features are (batch, dim)"
            )
        return features

    def predict_step(self, batch: ImageSample, batch_index: int) -> ImageEmbeddings:
        return ImageEmbeddings(list(batch.path), self(batch.image).float().cpu())

    def write_predictions(self, results: list[ImageEmbeddings], folder: Path) -> list[Path]:
        """Writes embeddings.parquet (path, embedding).

        Raises QuintetError where it exists already.
        """
        return [write_embeddings(results, {}, Path(folder))]

    @command
    def embed(
        self,
        data: DataModule,
        trainer: L.Trainer,
        folder: Path,
        neighbours: int = 10,
        map: Literal["pca", "tsne"] = "pca",
    ) -> list[Path]:
        """Writes embeddings.parquet (path, label, part, embedding) and embeddings.png, their map in two dimensions.

        Where the images have labels, also probes.csv: the accuracy of the nearest neighbours by cosine similarity and
        of logistic regression, trained on the training part; the validation part chose how strongly it is regularized.

        Args:
            data: the images.
            trainer: that runs the backbone.
            folder: to write into.
            neighbours: that vote on the class of an image.
            map: "pca", or "tsne" (Visualizing Data using t-SNE), which keeps neighbourhoods and takes longer.

        Raises QuintetError where files of these names exist already.
        """
        if neighbours < 1:
            raise QuintetError(f"neighbours is {neighbours}; give at least 1")
        folder = Path(folder)
        for name in ("embeddings.parquet", "probes.csv", "embeddings.png"):
            refuse_existing(folder / name, "folder")
        results = trainer.predict(self, datamodule=data)
        known = data.labelled_parts() if hasattr(data, "labelled_parts") else {}
        written = [write_embeddings(results, known, folder)]
        paths = [path for result in results for path in result.paths]
        vectors = torch.cat([result.vectors for result in results]).numpy()
        labels = [known.get(path, (None, None))[0] for path in paths]
        parts = [known.get(path, (None, None))[1] for path in paths]
        scores = probe(vectors, labels, parts, neighbours)
        if not scores.empty:
            written.append(folder / "probes.csv")
            cells = scores.assign(setting=[text_cell(setting) for setting in scores["setting"]])
            write_table(written[-1], list(cells), cells.itertuples(index=False))
            rank_zero_only(print)(printable(scores.to_string(index=False, float_format="{:.4f}".format)))
        written.append(folder / "embeddings.png")
        title = f"embeddings of {len(paths):,} images by {self.backbone_name}"
        with written_whole(written[-1], remedy="give another folder") as file:
            projection(vectors, labels, title, map).savefig(file, dpi=120)
        return written


def write_embeddings(
    results: list[ImageEmbeddings], known: dict[str, tuple[str, str]], folder: Path, name: str = "embeddings.parquet"
) -> Path:
    """One row an image: its path, where they are known its label and part, and its embedding as a list of float32."""
    target = folder / name
    refuse_existing(target, "folder")
    dim = results[0].vectors.shape[1]
    fields = [("path", pa.string())] + ([("label", pa.string()), ("part", pa.string())] if known else [])
    schema = pa.schema([*fields, ("embedding", pa.list_(pa.float32(), dim))])
    with written_whole(target, remedy="give another folder") as file, pq.ParquetWriter(file, schema) as writer:
        for result in results:
            # Names of files may hold bytes that are no text, which a table cannot.
            paths = [path.encode("utf-8", "backslashreplace").decode() for path in result.paths]
            columns: dict[str, Any] = {"path": paths}
            if known:
                found = [known.get(path, (None, None)) for path in result.paths]
                columns |= {"label": [label for label, _ in found], "part": [part for _, part in found]}
            flat = pa.array(result.vectors.numpy().ravel(), pa.float32())
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, dim)
            writer.write_table(pa.table(columns, schema))
    return target


def probe(vectors: np.ndarray, labels: list[str | None], parts: list[str | None], neighbours: int) -> pd.DataFrame:
    """Accuracy of nearest neighbours and of a linear probe on the images that neither has seen, a row each and part.

    Empty where fewer than two classes are known or nothing is left to measure on.
    """
    part_of, label_of = np.array(parts, dtype=object), np.array(labels, dtype=object)
    train, measured = part_of == "train", [part for part in ("val", "test") if (part_of == part).any()]
    if len(set(label_of[train])) < 2 or not measured:
        return pd.DataFrame()
    # Here, because a classifier's training, which reads this file too, would wait for it half a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = vectors[train], label_of[train].astype(str)
    nearest = KNeighborsClassifier(min(neighbours, len(x)), metric="cosine", weights="distance").fit(x, y)
    methods: list[tuple[str, str, Any]] = [("nearest neighbours", f"k={nearest.n_neighbors}", nearest)]
    best, chosen = -1.0, None
    for strength in REGULARIZATIONS:
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(x, y)
        # Of equally good ones the most regular; without validation images, sklearn's default.
        score = _accuracy(linear, vectors, label_of, part_of == "val") if "val" in measured else -abs(strength - 1)
        if chosen is None or score > best:
            best, chosen = score, (f"C={strength:g}", linear)
    methods.append(("linear probe", *chosen))
    counts = pd.Series(y).value_counts()
    rows = [
        (method, setting, part, _accuracy(model, vectors, label_of, part_of == part), int((part_of == part).sum()))
        for method, setting, model in methods
        for part in measured
    ]
    rows += [
        ("most frequent class", counts.index[0], part, float((label_of[part_of == part] == counts.index[0]).mean()),
         int((part_of == part).sum()))
        for part in measured
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "setting", "part", "accuracy", "images"])


def _accuracy(model: Any, vectors: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> float:
    return float((model.predict(vectors[chosen]) == labels[chosen].astype(str)).mean())
