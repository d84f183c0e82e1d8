"""Imputation: any network that gives a window back, scored on hidden cells alone, beside lines and last values."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ...core.errors import QuintetError
from ...core.learning.baselines import Baselines
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.weights.networks import Kind
from ..backbones import Backbone
from ..data import SeriesDescription, Windows
from ..data.gaps import ImputationData
from ..metrics import AbsoluteError, RootSquaredError, SquaredError
from ..metrics.anomalies import stretches
from ..models.interpolation import last_value, linear_interpolation
from ..pictures.gaps import GAPS, GapPanel, error_by_gap, gap_panels
from . import filling, tables
from .filling import FilledWindows
from .masks import Pattern, repeatable_cells
from .masks import hidden_cells as draw_cells

BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear_interpolation": linear_interpolation,
    "last_value": last_value,
}
MODEL = "model"
LENGTHS = (1, 2, 4, 8, 16, 32, 64)  # of gaps, from which on errors are counted apart


@dataclass
class ImputationStep(StepResult):
    """A step's result with what the network saw: values, and which of them (the rest is NaN in the targets)."""

    values: Tensor
    seen: Tensor


class Imputer(NetworkTask):
    """Fills gaps in series with any network that maps a window to itself.

    In training some of what was observed is hidden anew in every batch, and the error at those cells is minimised; no
    other cell counts, in training or in a score. Validation and test hide cells that are fixed by the window's place,
    so that all models are asked the same. MAE, MSE and RMSE are in units of training standard deviations; those of
    linear interpolation and of the last value stand beside every test.

    Args:
        backbone: a registered name, or a class or function called with `context` and `horizon`, both the length of a
            window, and `outputs` = 1, like a forecaster's; any forecaster serves.
        missing: share of the observed cells that is hidden.
        pattern: "points", "blocks" of one channel, "rows" of all channels, or "mixed": one of them for each window.
        block: rows of a block.
        loss: "mse" or "mae" at the hidden cells.
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit, a share that hides nothing
            or all.
    """

    description_type: ClassVar[type] = SeriesDescription
    kind: ClassVar[Kind] = Kind("timeseries", "an imputer", "itransformer")

    def __init__(
        self,
        backbone: str | Backbone = "itransformer",
        backbone_arguments: dict[str, Any] | None = None,
        missing: float = 0.25,
        pattern: Pattern = "mixed",
        block: int = 12,
        loss: Literal["mse", "mae"] = "mse",
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        if not 0 < missing < 1:
            raise QuintetError(f"model.missing is {missing}; the share of cells to hide lies between 0 and 1")
        if block < 1:
            raise QuintetError(f"model.block is {block}; give at least 1 row")
        self.missing, self.pattern, self.block = missing, pattern, block
        self.loss = loss

    # Building

    def make(self, description: SeriesDescription) -> None:
        length, channels = description.context + description.horizon, len(description.channels)
        own = {"context": length, "horizon": length, "outputs": 1}
        self.network = self.build_network(own | ({"channels": channels} if self.accepts("channels") else {}))
        self.register_buffer("mean", torch.tensor(description.mean, dtype=torch.float64), persistent=False)
        self.register_buffer("std", torch.tensor(description.std, dtype=torch.float64), persistent=False)
        self.baseline_metrics = Baselines(BASELINES, self.metrics())
        self.by_gap = nn.ModuleDict(
            {name: nn.ModuleList([AbsoluteError() for _ in LENGTHS]) for name in (MODEL, *BASELINES)}
        )

    def metrics(self) -> MetricCollection:
        return collection({"mae": AbsoluteError(), "mse": SquaredError(), "rmse": RootSquaredError()})

    # Steps

    def forward(
        self, values: Float[Tensor, "batch time channels"], seen: Bool[Tensor, "batch time channels"]
    ) -> Float[Tensor, "batch time channels"]:
        """Whole windows from the cells that are seen; what stands at the others changes nothing."""
        return self.network(values.masked_fill(~seen, 0.0), seen, None).squeeze(-1)

    def step(self, batch: Windows) -> ImputationStep:
        values = torch.cat([batch.context, batch.target], dim=1)
        observed = values.isfinite()
        if self.training:
            hidden = draw_cells(observed, self.missing, self.block, self.pattern)
        else:
            names = list(zip(batch.series.tolist(), batch.position.tolist(), strict=True))
            hidden = repeatable_cells(observed, names, self.missing, self.block, self.pattern)
        seen = observed & ~hidden
        predictions = self(values, seen)
        errors = (predictions - values.masked_fill(~hidden, 0.0)).masked_fill(~hidden, 0.0)
        errors = errors.square() if self.loss == "mse" else errors.abs()
        loss = errors.sum() / hidden.sum().clamp(min=1)
        targets = values.masked_fill(~hidden, torch.nan)
        return ImputationStep(loss, predictions.detach().unsqueeze(-1), targets, values, seen)

    # The test, with its baselines

    def on_test_epoch_start(self) -> None:
        for metrics in self.by_gap.values():
            for metric in metrics:
                metric.reset()

    def test_step(self, batch: Windows, batch_index: int) -> None:
        result = self.evaluate(batch, "test")
        estimates = {name: fill(result.values, result.seen).unsqueeze(-1) for name, fill in BASELINES.items()}
        self.baseline_metrics.measure(self, estimates, result.targets)
        lengths = gap_lengths(result.seen)
        for number, least in enumerate(LENGTHS):
            most = LENGTHS[number + 1] if number + 1 < len(LENGTHS) else torch.inf
            targets = result.targets.masked_fill((lengths < least) | (lengths >= most), torch.nan)
            for name, predicted in {MODEL: result.predictions, **estimates}.items():
                self.by_gap[name][number].update(predicted, targets)

    def on_test_epoch_end(self) -> None:
        # Every process takes part in the sums, though only one draws the picture.
        self.gap_errors = {
            name: np.array([float(metric.compute()) for metric in metrics]) for name, metrics in self.by_gap.items()
        }

    @torch.no_grad()
    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if not hasattr(self, "gap_errors") or self._trainer is None:
            return
        data, known = self.trainer.datamodule, self.description
        dataset = data.datasets["test"]
        count = max(1, -(-GAPS // len(known.channels)))
        chosen = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist()
        batch = dataset.__getitems__(chosen).to(self.device, self.dtype)
        training = self.training
        self.eval()
        result = self.step(batch)
        self.train(training)
        outcome = {MODEL: result.predictions.squeeze(-1)}
        outcome |= {name: fill(result.values, result.seen) for name, fill in BASELINES.items()}
        filled = {name: self.restored(values).cpu().numpy() for name, values in outcome.items()}
        truth, seen = self.restored(result.values).cpu().numpy(), result.seen.cpu().numpy()
        hidden = result.targets.isfinite().cpu().numpy()
        panels = []
        for window, (number, position) in enumerate(zip(batch.series.tolist(), batch.position.tolist(), strict=True)):
            stamps = data.stamps(number)[position - known.context : position + known.horizon]
            name = data.usable().series[number].name
            for channel, (column, unit) in enumerate(zip(known.channels, data.units(), strict=True)):
                panels.append(
                    GapPanel(
                        f"{name} {column}".strip(),
                        unit,
                        stamps,
                        np.where(seen[window, :, channel], truth[window, :, channel], np.nan),
                        np.where(hidden[window, :, channel], truth[window, :, channel], np.nan),
                        {
                            which: np.where(hidden[window, :, channel], values[window, :, channel], np.nan)
                            for which, values in filled.items()
                        },
                    )
                )
        title = f"hidden cells of test windows {', '.join(f'{index + 1:,}' for index in chosen)} of {len(dataset):,}"
        yield "filled", gap_panels(panels[:GAPS], title)
        yield "error_by_gap", error_by_gap(self.gap_errors, LENGTHS, "mean absolute error [training std]")

    def restored(self, values: Float[Tensor, "batch time channels"]) -> Tensor:
        """Scaled values in the user's own units, in float64."""
        return values.to(self.std.device).double() * self.std + self.mean

    # Prediction

    def predict_step(self, batch: Windows, batch_index: int) -> FilledWindows:
        values = torch.cat([batch.context, batch.target], dim=1)
        observed = values.isfinite()
        starts = (batch.position - self.description.context).tolist()
        filled = self.restored(self(values, observed)).cpu()
        return FilledWindows(batch.series.tolist(), starts, filled, observed.any(1).cpu())

    @command
    def predict(self, data: ImputationData, trainer: L.Trainer, folder: Path, output: str | None = None) -> list[Path]:
        """Fills the empty cells and absent stamps of the user's series; what was there stays as it was.

        Every channel gets a column `<channel>_filled` that says which of its cells were filled. In CSV the text of all
        other cells is kept to the letter, in other formats their numbers to the bit.

        Args:
            data: the series.
            trainer: runs the network.
            folder: for the table, unless `output` says otherwise, and for a picture.
            output: file to write: .csv, .parquet or .nc.

        Raises QuintetError for a gap as long as a window, where nothing is missing, and where a file would be
        overwritten.
        """
        table = Path(output) if output else folder / "filled.csv"
        picture = table.with_name(table.name.split(".")[0] + ".png")
        tables.check_ending(table, (".csv", ".parquet", ".nc"))
        tables.check_targets([table, picture])
        if not any(np.isnan(series.values).any() for series in data.usable().series):
            raise QuintetError(f"{data.usable().where} has no gap to fill: no cell is empty and no stamp is absent")
        results: list[FilledWindows] = trainer.predict(self, datamodule=data)
        filled = filling.merged(data, results)
        filling.write(table, data, filled)
        panels = self._gap_panels(data, filled)
        tables.write_picture(picture, gap_panels(panels, "gaps and what they were filled with"))
        return [table, picture]

    def _gap_panels(self, data: ImputationData, filled: list[np.ndarray]) -> list[GapPanel]:
        """The longest gaps, with as much around them as a window shows."""
        known, found = self.description, data.usable()
        gaps = [
            (last - first + 1, number, channel, first, last)
            for number, series in enumerate(found.series)
            for channel, column in enumerate(series.values.T)
            for first, last in stretches(np.isnan(column))
        ]
        panels = []
        for length, number, channel, first, last in sorted(gaps, key=lambda gap: (-gap[0], gap[1:]))[:GAPS]:
            around = max(4, data.length - length) // 2
            series = found.series[number]
            rows = slice(max(0, first - around), min(len(series.values), last + 1 + around))
            column = series.values[rows, channel]
            name = f"{series.name} {known.channels[channel]}".strip()
            inside = np.isnan(column)
            own = np.where(inside, filled[number][rows, channel], np.nan)
            panels.append(
                GapPanel(
                    name, data.units()[channel], series.stamps[rows], column, np.full(len(column), np.nan), {MODEL: own}
                )
            )
        return panels


def gap_lengths(seen: Bool[Tensor, "batch time channels"]) -> Tensor:
    """Of each cell that is not seen, the rows of the gap it lies in; 0 where it is seen."""
    length = seen.shape[1]
    steps = torch.arange(length, device=seen.device)[:, None]
    before = torch.where(seen, steps, -1).cummax(1).values
    after = torch.where(seen, steps, length).flip(1).cummin(1).values.flip(1)
    return (after - before - 1).masked_fill(seen, 0)
