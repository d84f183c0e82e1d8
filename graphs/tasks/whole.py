"""What tasks on whole graphs share: several networks in one, baselines beside every test, a blend of both."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pandas as pd
import torch
from jaxtyping import Float
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch_geometric.data import Batch

from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ...core.learning.baselines import Baselines
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.pictures.charts import shortened
from ...core.weights import networks
from ...core.weights.network import said
from ...core.weights.networks import Kind
from ...core.weights.pretrained import LoadReport
from ..data.description import GraphDescription
from ..models.blend import blend_weights
from ..models.references import References
from ..pictures.predicted import extremes, extremes_sheet
from ..pretrained.words import rows_by_word, take_words
from .ensemble import Ensemble, member_layout
from .explained import explanation_pictures, test_map
from .features import GraphFeatures
from .files import data_for
from .predictions import GraphPredictions, prediction_table, write_prediction_files
from .tested import Comparison, Tested, compare, tell

NETWORK = "network"  # what the network alone is called beside a blend
GRAPHS = Kind("graphs", "a backbone", "gps_tiny")


class GraphTask(NetworkTask):
    """Predicts something of whole graphs, beside what needs no network.

    Baselines learn once, from the training rows, and stand beside every test. Of molecules they are a forest on counts
    of Morgan fragments, gradient boosting on RDKit's descriptors, the three nearest training molecules and the mean; of
    other graphs a forest on counts of nodes, edges and categories, and the mean.

    Args:
        backbone: a registered name, or a class or function called with what `GraphDescription.sizes` says,
            `num_outputs` and `level`.
        ensemble: networks that learn side by side from other first weights; their mean is the prediction, and how far
            they disagree its standard deviation.
        baselines: fit baselines, which takes from seconds to a minute or two, and print them beside the test.
        blend: predict with shares of the network and of trees, chosen on the validation part and held near equal where
            that is small: of molecules boosting and extra trees on descriptors and fragments together, which stand
            among the baselines then; of other graphs the forest.
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit.
    """

    description_type: ClassVar[type] = GraphDescription
    kind: ClassVar[Kind] = GRAPHS
    fixed: ClassVar[frozenset[str]] = NetworkTask.fixed | {"ensemble", "baselines", "blend"}
    classifies: ClassVar[bool] = False

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "gps_tiny",
        backbone_arguments: dict[str, Any] | None = None,
        ensemble: int = 1,
        baselines: bool = True,
        blend: bool = False,
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        if ensemble < 1:
            raise QuintetError(f"model.ensemble is {ensemble}; give 1 for a single network, or more, such as 5")
        if blend and not baselines:
            raise QuintetError("model.blend mixes the network with baselines; leave model.baselines true, or blend out")
        self.ensemble, self.with_baselines, self.blend = ensemble, baselines, blend
        self.tested: Tested | None = None
        self.comparison: Comparison | None = None
        self.source: DataModule | None = None  # of new graphs, where no trainer runs
        self._validated: list[dict[str, Tensor]] = []
        self._estimated: dict[int, dict[str, Tensor]] = {}  # of validation batches, which never change

    # What a task says

    @property
    def output_names(self) -> list[str]:
        """What each output of the network stands for."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> Tensor:
        """The truth as the loss and the metrics take it."""
        raise NotImplementedError

    def loss_of(self, outputs: Float[Tensor, "graphs outputs"], targets: Tensor) -> Tensor:
        """The loss of one network."""
        raise NotImplementedError

    def outcome(self, outputs: Float[Tensor, "*members graphs outputs"]) -> Tensor:
        """What is predicted, from what a network computes."""
        raise NotImplementedError

    def exported(self, outputs: Float[Tensor, "members graphs outputs"]) -> Tensor:
        """What is predicted, as users read it, in operations that a graph for other programs can hold."""
        return self.outcome(outputs)

    # Building

    def make(self, description: GraphDescription) -> None:
        sizes = {**description.sizes, "num_outputs": len(self.output_names), "level": "graph"}
        self.network = self.build_network(sizes)
        if self.ensemble > 1:
            others = (self.build_network(sizes) for _ in range(self.ensemble - 1))
            self.network = Ensemble([self.network, *others])
        self.references = References(description, self.classifies, self.with_baselines, self.blend)
        names = list(self.references.names)
        self.register_buffer("shares", torch.eye(1, 1 + len(self.references.blended), dtype=torch.float64)[0])
        beside = [NETWORK, *names] if self.blend else names
        self.baseline_metrics = Baselines(beside, self.metrics())
        self.target_metrics = nn.ModuleDict(self.metrics_of_each())

    def metrics_of_each(self) -> dict[str, nn.Module]:
        """Metrics of each of several targets, which only a test measures."""
        return {}

    def load_network(self) -> LoadReport:
        """Loads what `pretrained` names, of an ensemble's file the member of the same number."""
        members = self.network.members if self.ensemble > 1 else [self.network]
        convert = rows_by_word(self.pretrained, self.description)
        for number, member in enumerate(members):
            member.layouts = (*said(member, "layouts"), replace(member_layout(number), convert=convert))
            take_words(member, convert)
            what = self.pretrained, self.sizes, self.network_arguments, self.accept_license
            report = networks.load_network(member, self.backbone, self.kind, *what)
        return report

    # Steps

    def forward(self, batch: Batch) -> Float[Tensor, "members graphs outputs"]:
        """What each network computes of a batch."""
        outputs = self.network(batch)
        return outputs if self.ensemble > 1 else outputs.unsqueeze(0)

    def step(self, batch: Batch) -> StepResult:
        members, targets = self(batch), self.targets(batch)
        loss = torch.stack([self.loss_of(outputs, targets) for outputs in members]).mean()
        return StepResult(loss, self.outcome(members.detach().float()).mean(0), targets)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.blend and self.trainer.world_size > 1:
            raise QuintetError("model.blend is chosen in a single process; give trainer.devices=1")
        if not self.references.fitted:
            data = self.trainer.datamodule
            self.references.fit(data.datasets["train"], data)

    # Validation: which shares

    def on_validation_epoch_start(self) -> None:
        self._validated = []

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        result = self.evaluate(batch, "val")
        if self.blend and self.trainer.state.fn is TrainerFn.FITTING:
            if batch_index not in self._estimated:
                self._estimated[batch_index] = self.estimates(batch)
            estimates = {NETWORK: result.predictions} | self._estimated[batch_index]
            self._validated.append({**estimates, "": self.truth_of(result.targets)})

    def on_validation_epoch_end(self) -> None:
        if self._validated:
            together = {name: torch.cat([one[name] for one in self._validated]) for name in self._validated[0]}
            truth = together.pop("").flatten().cpu()
            names = (NETWORK, *self.references.blended)
            methods = torch.stack([together[name].flatten().cpu() for name in names], dim=1)
            self.shares.copy_(blend_weights(methods, truth))
        self._validated = []

    def truth_of(self, targets: Tensor) -> Float[Tensor, "graphs outputs"]:
        """The targets in the form of predictions, NaN where unknown."""
        return targets

    def estimates(self, batch: Batch) -> dict[str, Tensor]:
        """What each baseline predicts of a batch, as the metrics take predictions."""
        return self.references(batch, self._data()) if self.references.names else {}

    def blended(self, network: Tensor, estimates: dict[str, Tensor]) -> Tensor:
        """Shares of the network and of trees."""
        methods = torch.stack([network, *(estimates[name].to(network) for name in self.references.blended)])
        return torch.tensordot(self.shares.to(methods), methods, dims=1)

    def _data(self) -> DataModule:
        return self.source if self.source is not None else self.trainer.datamodule

    # The test

    def on_test_epoch_start(self) -> None:
        self.tested = Tested()

    def test_step(self, batch: Batch, batch_index: int) -> None:
        result, estimates = self.step(batch), self.estimates(batch)
        if self.blend:
            estimates[NETWORK] = result.predictions
            result.predictions = self.blended(result.predictions, estimates)
        self.measure(result, "test")
        self.baseline_metrics.measure(self, estimates, result.targets)
        for metrics in self.target_metrics.values():
            metrics.update(result.predictions, result.targets)
            self.log_dict(dict(metrics), on_step=False, on_epoch=True, batch_size=len(result.targets))
        self.tested.add(batch.row, result.predictions, result.targets, estimates)

    # Prediction

    def predict_step(self, batch: Batch, batch_index: int) -> GraphPredictions:
        members = self.outcome(self(batch).float())
        values = members.mean(0)
        if self.blend:
            values = self.blended(values, self.estimates(batch))
        deviations = members.std(0) if self.ensemble > 1 else None
        similarity = self.references.similarity(batch, self._data())
        return self.in_units(GraphPredictions(batch.row.cpu(), values.cpu(), deviations, similarity))

    def in_units(self, predictions: GraphPredictions) -> GraphPredictions:
        """The predictions as users read them."""
        return predictions

    def columns_of(self, predictions: GraphPredictions) -> dict[str, list[Any]]:
        """Columns of the table of predictions, but for those of the rows."""
        raise NotImplementedError

    @command
    def predict(self, data: Any, trainer: L.Trainer | None = None, folder: Path | None = None) -> Any:
        """Predicts for the files `data` names and writes predictions.csv into `folder`.

        In plain Python: `load_task(path).predict(table)`, of a table (pandas), a list of SMILES or the path of a file,
        returns a table with one row for each of its rows, in their order.
        """
        if trainer is not None:
            return self.write_predictions(trainer.predict(self, datamodule=data), folder)
        self.source = data_for(self, data)
        try:
            with torch.inference_mode():
                loader = self.eval().source.predict_dataloader() if "predict" in self.source.datasets else []
                results = [self.predict_step(batch.to(self.device), at) for at, batch in enumerate(loader)]
            return self._table(results, self.source)
        finally:
            self.source = None

    def _table(self, results: list[GraphPredictions], data: DataModule) -> pd.DataFrame:
        return prediction_table(GraphPredictions.together(results), self.columns_of, data.rows)

    def write_predictions(self, results: list[GraphPredictions], folder: Path) -> list[Path]:
        """Writes predictions.csv, one row for each row of the input, and predictions.png.

        Raises QuintetError where one of them exists already.
        """
        data = self.trainer.datamodule
        table = self._table(results, data)
        told = [name for name in self.told_columns() if name in table]
        return write_prediction_files(table, data, told, Path(folder))

    def told_columns(self) -> list[str]:
        """Columns of predictions that captions say."""
        raise NotImplementedError

    @command
    def embed(self, data: DataModule, trainer: L.Trainer, folder: Path) -> list[Path]:
        """Writes what the head reads of each graph, as quintet.graphs.GraphFeatures does."""
        return GraphFeatures.of(self).embed(data, trainer, folder)

    # Pictures of the test

    def tell_verdict(self, measure: str, score: Callable[[Tensor, Tensor], float], smaller_is_better: bool) -> None:
        """Prints and keeps whether the network beats the baseline that is hardest to beat by default."""
        self.comparison = None
        if not self.tested or not self.references.names or self.trainer.world_size > 1:
            return
        against = next(name for name in ("boosting", "forest") if name in self.references.names)
        network = NETWORK if self.blend else None
        self.comparison = compare(self.tested, network, against, measure, score, smaller_is_better)
        tell([self.comparison])

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        """What all whole-graph tasks show of a test: the comparison, worst to best, contributions, attention, a map."""
        if not self.tested or self._trainer is None:
            return
        if (comparison := self.comparison) is not None:
            yield "comparison", comparison.bars()
        data = self.trainer.datamodule
        store = data.datasets["test"]
        if chosen := extremes(self.errors()):
            yield "worst_median_best", extremes_sheet(data, store, chosen, [self.caption(at) for at in chosen])
        yield from explanation_pictures(self, data, store)
        yield "embeddings", test_map(self, store)

    def errors(self) -> list[float]:
        """How far each test graph was missed."""
        raise NotImplementedError

    def caption(self, graph: int) -> str:
        """What a test graph is and what it was taken for."""
        raise NotImplementedError

    @property
    def explained_name(self) -> str:
        """What contributions of nodes are drawn to."""
        return shortened(self.output_names[0], 30)

    @property
    def contribution_scale(self) -> float:
        """What contributions to a network's output are multiplied by to be in the units of the prediction."""
        return 1.0

    def explained(self, graph: int) -> tuple[int, str]:
        """Of a test graph the output that contributions are drawn to, and what was said of it."""
        return 0, self.caption(graph)

    def colours(self) -> tuple[list[Any], str]:
        """What the map of embeddings shows of each test graph, and its name."""
        raise NotImplementedError
