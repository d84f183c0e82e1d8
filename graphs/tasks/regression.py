"""Numbers of whole graphs, such as solubilities of molecules: several targets, any of which may be unknown."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch_geometric.data import Batch
from torchmetrics import MetricCollection

from ...core.errors import QuintetError
from ...core.learning.deployable import Deployable
from ..data.description import GraphDescription
from ..metrics.errors import error_metrics
from ..pictures.parity import Parity, parity_panels
from .deployment import deployable_graphs
from .losses import number_loss
from .predictions import GraphPredictions
from .whole import GraphTask


class GraphRegressor(GraphTask):
    """Predicts numbers of whole graphs, in the user's units.

    Targets are standardised with the mean and standard deviation of the training rows; a target that is NaN does not
    count. Measured are MAE, RMSE and R², of several targets the means in units of their standard deviations and of each
    by its name in the user's units.

    Args:
        backbone: a registered name, or a class or function called with what `GraphDescription.sizes` says,
            `num_outputs` and `level`.
        loss: "huber", "l1" or "squared", of standardised targets.
        **task: see quintet.graphs.tasks.whole.GraphTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit, targets that are classes.
    """

    classifies: ClassVar[bool] = False

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "gps_tiny",
        backbone_arguments: dict[str, Any] | None = None,
        loss: Literal["huber", "l1", "squared"] = "huber",
        **task: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **task)
        self.loss = loss

    def make(self, description: GraphDescription) -> None:
        if not description.target_scale:
            raise QuintetError(
                "the targets are classes or yes and no, not numbers; give model=graphs/classifier, or name the columns "
                "of numbers with data.targets"
            )
        scale = torch.tensor(list(description.target_scale.values()), dtype=torch.float64)
        self.register_buffer("mean", scale[:, 0].clone(), persistent=False)
        self.register_buffer("std", scale[:, 1].clone(), persistent=False)
        super().make(description)

    @property
    def output_names(self) -> list[str]:
        return list(self.description.target_scale)

    def metrics(self) -> MetricCollection:
        return error_metrics(self.std.tolist())

    def metrics_of_each(self) -> dict[str, nn.Module]:
        names, scale = self.output_names, self.std.tolist()
        if len(names) == 1:
            return {}
        return {
            f"target_{at}": error_metrics(scale, at).clone(prefix="test/", postfix=f"_{as_metric(name)}")
            for at, name in enumerate(names)
        }

    def targets(self, batch: Batch) -> Float[Tensor, "graphs targets"]:
        """Standardised targets, NaN where not measured."""
        y = batch.y.to(self.mean.device).double()
        return ((y - self.mean) / self.std).to(batch.y.device, torch.float32)

    def loss_of(self, outputs: Float[Tensor, "graphs targets"], targets: Float[Tensor, "graphs targets"]) -> Tensor:
        return number_loss(outputs, targets, self.loss)

    def outcome(self, outputs: Float[Tensor, "*members graphs targets"]) -> Tensor:
        return outputs

    def restored(self, values: Float[Tensor, "*others targets"]) -> Tensor:
        """Standardised values in the user's units, in float64."""
        return values.to(self.mean.device).double() * self.std + self.mean

    # Prediction

    def exported(self, outputs: Float[Tensor, "members graphs targets"]) -> Tensor:
        return outputs * self.std.to(outputs) + self.mean.to(outputs)

    def deployable(self) -> Deployable:
        """From graphs as plain tensors to the numbers, in the user's units."""
        return deployable_graphs(self, "predictions", {"targets": self.output_names})

    def in_units(self, predictions: GraphPredictions) -> GraphPredictions:
        deviations = predictions.deviations
        if deviations is not None:
            deviations = (deviations.to(self.std.device).double() * self.std).cpu()
        return predictions._replace(values=self.restored(predictions.values).cpu(), deviations=deviations)

    def columns_of(self, predictions: GraphPredictions) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {}
        for at, name in enumerate(self.output_names):
            columns[f"predicted_{name}"] = predictions.values[:, at].tolist()
            if predictions.deviations is not None:
                columns[f"deviation_{name}"] = predictions.deviations[:, at].tolist()
        return columns

    # Pictures of the test

    def on_test_epoch_end(self) -> None:
        self.tell_verdict("rmse", self._root_mean_error, smaller_is_better=True)

    def _root_mean_error(self, predictions: Tensor, targets: Tensor) -> float:
        """RMSE as the metric of this name says it."""
        metric = error_metrics(self.std.tolist())["rmse"]
        metric.update(predictions, targets)
        return float(metric.compute())

    def told_columns(self) -> list[str]:
        return [f"predicted_{name}" for name in self.output_names[:3]]

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if not self.tested:
            return
        beside = next((name for name in ("boosting", "forest") if name in self.tested.methods), None)
        of = {"truth": self.tested.targets, "model": self.tested.predictions}
        if beside:
            of["baseline"] = self.tested.of(beside)
        values = {name: self.restored(one).cpu().numpy() for name, one in of.items()}
        panels = []
        for at, name in enumerate(self.output_names):
            known = np.isfinite(values["truth"][:, at])
            panels.append(Parity(name, **{key: one[known, at] for key, one in values.items()}))
        yield "parity", parity_panels(panels, "blend" if self.blend else "network", beside or "")
        yield from super().pictures()

    def errors(self) -> list[float]:
        return (self.tested.predictions - self.tested.targets).abs().nanmean(1).tolist()

    def caption(self, graph: int) -> str:
        truth, found = (self.restored(one[graph])[0].item() for one in (self.tested.targets, self.tested.predictions))
        return f"measured {truth:.3g}\npredicted {found:.3g}"

    @property
    def contribution_scale(self) -> float:
        return float(self.std[0])

    def colours(self) -> tuple[list[Any], str]:
        return self.restored(self.tested.targets)[:, 0].tolist(), self.output_names[0]


def as_metric(name: str) -> str:
    """The name of a target as it may stand in that of a metric."""
    return name.replace("/", "_").replace(".", "_")
