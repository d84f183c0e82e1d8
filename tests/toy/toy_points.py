"""A user's own domain in a user's own file: points of a plane, two classes, a network, a data module and a task.

The tests of the infrastructure copy this folder elsewhere and run commands there, as a user would.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from quintet.core import Augmented, DataModule, Fault, QuintetError, StepResult, Task
from quintet.core.learning.deployable import Deployable
from quintet.core.learning.task import command


@dataclass
class PointsDescription:
    """What a task must know of the points."""

    classes: list[str]
    mean: tuple[float, float]


class Jitter:
    """Moves a point a little."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def __call__(self, sample: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        point, label = sample
        return point + self.noise * torch.randn(point.shape), label


class Points(DataModule):
    """Rows `x,y,label` of a file points.csv."""

    def __init__(self, root: str, noise: float = 0.1, **base: Any) -> None:
        super().__init__(**base)
        self.root = Path(root)
        self.noise = noise

    def rows(self) -> list[dict[str, str]]:
        path = self.root / "points.csv"
        if not path.is_file():
            raise QuintetError(f"data.root: no file {path}; give a folder with points.csv")
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def prepare(self, stages: tuple[str, ...]) -> None:
        rows = self.rows()
        classes = self.description().classes
        points = torch.tensor([[float(row["x"]), float(row["y"])] for row in rows])
        labels = torch.tensor([classes.index(row["label"]) for row in rows])
        first, second = len(rows) // 2, 3 * len(rows) // 4
        parts = {"train": slice(0, first), "val": slice(first, second), "test": slice(second, None)}
        for stage in stages:
            part = parts.get(stage, slice(None))
            dataset = TensorDataset(points[part], labels[part])
            self.datasets[stage] = Augmented(dataset, Jitter(self.noise)) if stage == "train" else dataset

    def description(self) -> PointsDescription:
        if self._described is not None:
            return self._described
        rows = self.rows()
        mean = tuple(sum(float(row[axis]) for row in rows) / len(rows) for axis in ("x", "y"))
        return PointsDescription(sorted({row["label"] for row in rows}), mean)

    def table(self) -> Table:
        table = Table(title="points")
        table.add_column("rows")
        table.add_row(str(len(self.rows())))
        return table

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / "points.csv").is_file()

    def faults(self) -> list[Fault]:
        return [
            Fault(f"points.csv, row {number}", "the label is missing", "write it or drop the row")
            for number, row in enumerate(self.rows(), start=2)
            if not row["label"]
        ]


class SmallNet(nn.Module):
    """A hidden layer with batch normalization and dropout."""

    def __init__(self, dim: int, width: int = 8, activation: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, width)
        self.norm = nn.BatchNorm1d(width)
        self.activation = activation
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.activation(self.norm(self.hidden(x)))))


class DeployedPoints(nn.Module):
    """From points to the probabilities of their classes, those near the line made evener."""

    def __init__(self, task: Task, temperature: float) -> None:
        super().__init__()
        self.task, self.temperature = task, temperature

    def forward(self, points: Tensor) -> tuple[Tensor]:
        return ((self.task(points) / self.temperature).softmax(-1),)


class PointClassifier(Task):
    """Which class a point belongs to."""

    description_type = PointsDescription

    def __init__(self, net: Callable[[int], nn.Module] = SmallNet, **task: Any) -> None:
        super().__init__(**task)
        self.make_net = net

    def make(self, description: PointsDescription) -> None:
        self.register_buffer("mean", torch.tensor(description.mean))
        self.net = self.make_net(len(description.classes))

    def forward(self, points: Tensor) -> Tensor:
        return self.net(points - self.mean)

    def step(self, batch: tuple[Tensor, Tensor]) -> StepResult:
        points, labels = batch
        logits = self(points)
        return StepResult(nn.functional.cross_entropy(logits, labels), logits, labels)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"accuracy": MulticlassAccuracy(2, average="micro")})

    def layer_groups(self) -> list[list[str]]:
        return [["net.hidden"], ["net.norm"]]

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        return self(batch[0]).softmax(-1)

    def write_predictions(self, results: list[Tensor], folder: Path) -> list[Path]:
        path = folder / "predictions.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.description.classes)
            writer.writerows(torch.cat(results).tolist())
        return [path]

    def deployable(self, temperature: float = 1.0) -> Deployable:
        about = {"classes": self.description.classes}
        points, axes = torch.linspace(-2, 2, 10).view(5, 2), {"points": {0: "batch"}}
        module = DeployedPoints(self, temperature)
        return Deployable(module, {"points": points[:2]}, {"points": points[2:]}, axes, ["probabilities"], about)

    @command
    def weigh(self, data: DataModule, trainer: Any, folder: Path, digits: int = 2) -> list[Path]:
        """Writes the norm of the first layer's weights."""
        path = folder / "weight.txt"
        path.write_text(f"{self.net.hidden.weight.norm():.{digits}f}")
        return [path]

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        figure = Figure()
        figure.subplots().bar(self.description.classes, [1, 2])
        yield "classes", figure
