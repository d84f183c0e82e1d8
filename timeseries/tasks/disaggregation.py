"""Load disaggregation: what single appliances draw, estimated from the load of the whole household."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ...core.learning.baselines import Baselines
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.weights.networks import Kind
from ..data import Windows
from ..data.disaggregation import DisaggregationData, DisaggregationDescription
from ..data.stamps import shown
from ..metrics.appliances import MatchingRatio, MeanLoad, PowerError, RootPowerError, RunningF1
from ..pictures.loads import COLUMNS, LoadPanel, load_panels, mean_loads
from . import tables

BASELINES = ("share", "off")
SHOWN_ROWS = 2000  # of a picture of what was predicted


@dataclass
class Loads:
    """What the appliances draw in one batch of windows, in the user's own units, and where each begins."""

    series: list[int]
    starts: list[int]
    values: Float[Tensor, "batch time appliances"]


class Disaggregator(NetworkTask):
    """Estimates the load of each appliance from that of the whole household (non-intrusive load monitoring).

    Training minimises the error of each appliance's load as a share of its largest in the training rows. Measured are,
    in the user's units, MAE and RMSE, and the matching ratio and the F1 of running; as means over the appliances and of
    each by its name. Only rows count where the load and the appliance were observed. Beside every test stand two
    estimates any model must beat: each appliance's share of the load in the training rows, and that nothing runs.
    Estimates below 0 count, and are written, as 0.

    Args:
        backbone: a registered name, or a class or function called with `appliances`, and with `calendar` where it takes
            that: the number of its features.
        loss: "mse" or "mae".
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit.
    """

    description_type: ClassVar[type] = DisaggregationDescription
    kind: ClassVar[Kind] = Kind("timeseries", "a disaggregator", "nilmformer")

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "nilmformer",
        backbone_arguments: dict[str, Any] | None = None,
        loss: Literal["mse", "mae"] = "mse",
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        self.loss = loss

    # Building

    def make(self, description: DisaggregationDescription) -> None:
        known = description
        own = {"appliances": len(known.appliances)}
        self.reads_calendar = self.accepts("calendar")
        if self.reads_calendar:
            own["calendar"] = 2 * len(known.calendar)
        self.network = self.build_network(own)
        self.register_buffer("scale", torch.tensor(known.std, dtype=torch.float64), persistent=False)
        self.register_buffer("shares", torch.tensor(known.shares, dtype=torch.float64), persistent=False)
        self.baseline_metrics = Baselines(BASELINES, self.metrics())
        self.appliance_metrics = nn.ModuleList(
            self.metrics(at).clone(prefix="test/", postfix=f"_{name.replace('/', '_')}")
            for at, name in enumerate(known.appliances)
        )
        self.energy = nn.ModuleDict({name: MeanLoad(known.std[1:]) for name in ("truth", "model", "share")})

    def metrics(self, appliance: int | None = None) -> MetricCollection:
        """What is measured of one appliance, or as the mean of all."""
        known = self.description
        scale = known.std[1:]
        metrics = {
            "mae": PowerError(scale, appliance),
            "rmse": RootPowerError(scale, appliance),
            "matching_ratio": MatchingRatio(scale, appliance),
            "f1": RunningF1(scale, known.thresholds, appliance),
        }
        return collection(metrics)

    # Steps

    def forward(
        self, load: Float[Tensor, "batch time"], calendar: Float[Tensor, "batch time features"] | None = None
    ) -> Float[Tensor, "batch time appliances"]:
        """Loads of the appliances from windows of the whole one, NaN where it was not observed; all scaled."""
        observed: Tensor | None = load.isfinite()
        # A graph that is exported cannot branch on data: it treats every window as one with gaps.
        if not torch.compiler.is_exporting() and bool(observed.all()):
            observed = None
        else:
            load = load.nan_to_num(0.0)
        if not self.reads_calendar or (calendar is not None and not calendar.shape[-1]):
            calendar = None
        return self.network(load, observed, calendar)

    def step(self, batch: Windows) -> StepResult:
        values = torch.cat([batch.context, batch.target], dim=1)
        load, targets = values[..., 0], values[..., 1:]
        targets = targets.masked_fill(load.isnan().unsqueeze(-1), torch.nan)
        predictions = self(load, batch.calendar)
        counted = targets.isfinite()
        errors = predictions - targets.nan_to_num(0.0)
        errors = errors.square() if self.loss == "mse" else errors.abs()
        loss = errors.masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)
        return StepResult(loss, predictions.detach(), targets)

    # The test, with its baselines

    def on_test_epoch_start(self) -> None:
        for metric in self.energy.values():
            metric.reset()

    def test_step(self, batch: Windows, batch_index: int) -> None:
        result = self.evaluate(batch, "test")
        load = torch.cat([batch.context, batch.target], dim=1)[..., 0]
        estimates = self.baselines(load)
        self.baseline_metrics.measure(self, estimates, result.targets)
        for metrics in self.appliance_metrics:
            metrics.update(result.predictions, result.targets)
            self.log_dict(dict(metrics), on_step=False, on_epoch=True, batch_size=len(load))
        loads = {"truth": result.targets, "model": result.predictions, "share": estimates["share"]}
        for name, values in loads.items():
            self.energy[name].update(values, result.targets)

    def on_test_epoch_end(self) -> None:
        # Every process takes part in the sums, though only one draws the picture.
        # Metrics give an array of one number as that number.
        self.mean_loads = {name: metric.compute().reshape(-1).cpu().numpy() for name, metric in self.energy.items()}

    def baselines(self, load: Float[Tensor, "batch time"]) -> dict[str, Tensor]:
        """The baselines' estimates (B, T, A), scaled."""
        watts = load.nan_to_num(0.0).to(self.scale.device).double().unsqueeze(-1) * self.scale[0]
        share = (watts * self.shares / self.scale[1:]).to(load.dtype).to(load.device)
        return {"share": share, "off": torch.zeros_like(share)}

    def restored(self, values: Float[Tensor, "batch time appliances"]) -> Tensor:
        """Scaled loads of appliances in the user's own units, none below 0, in float64."""
        return values.to(self.scale.device).double().clamp(min=0) * self.scale[1:]

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if not hasattr(self, "mean_loads") or self._trainer is None:
            return
        data, known = self.trainer.datamodule, self.description
        unit = data.units()[0]
        yield "mean_loads", mean_loads(self.mean_loads, known.appliances, unit)
        dataset = data.datasets["test"]
        chosen = self._eventful(dataset)
        batch = dataset.__getitems__(chosen).to(self.device, self.dtype)
        training = self.training
        self.eval()
        with torch.no_grad():
            result = self.step(batch)
        self.train(training)
        load = torch.cat([batch.context, batch.target], dim=1)[..., 0]
        load = load.to(self.scale.device).double() * self.scale[0]
        truth = (result.targets.to(self.scale.device).double() * self.scale[1:]).cpu().numpy()
        estimates = self.restored(result.predictions).cpu().numpy()
        panels = []
        for window, (number, position) in enumerate(zip(batch.series.tolist(), batch.position.tolist(), strict=True)):
            stamps = data.stamps(number)[position - known.context : position + known.horizon]
            title = f"{data.usable().series[number].name} {shown(stamps[0])}".strip()
            panels.append(LoadPanel(title, stamps, load[window].cpu().numpy(), estimates[window], truth[window]))
        title = f"test windows {', '.join(f'{index + 1:,}' for index in chosen)} of {len(dataset):,}"
        yield "loads", load_panels(panels, known.appliances, known.thresholds, unit, title)

    def _eventful(self, dataset: Any) -> list[int]:
        """Windows that together show most appliances running, in the order of time."""
        thresholds = torch.tensor(self.description.thresholds, dtype=torch.float64) / self.scale[1:].cpu()
        running = []
        for start in range(0, len(dataset), 256):
            batch = dataset.__getitems__(range(start, min(start + 256, len(dataset))))
            running.append((torch.cat([batch.context, batch.target], dim=1)[..., 1:] >= thresholds).any(1))
        left, chosen = torch.cat(running).double(), []
        for _ in range(min(COLUMNS, len(dataset))):
            # An appliance that was seen once counts less.
            weight = left.sum(1)
            weight[chosen] = -1.0
            chosen.append(int(weight.argmax()))
            left = torch.where(left[chosen[-1]] > 0, 0.5 * left, left)
        return sorted(chosen)

    # Prediction

    def predict_step(self, batch: Windows, batch_index: int) -> Loads:
        load = torch.cat([batch.context, batch.target], dim=1)[..., 0]
        starts = (batch.position - self.description.context).tolist()
        return Loads(batch.series.tolist(), starts, self.restored(self(load, batch.calendar)).cpu())

    @command
    def predict(
        self, data: DisaggregationData, trainer: L.Trainer, folder: Path, output: str | None = None
    ) -> list[Path]:
        """Writes what each appliance draws at every stamp, and whether it runs, beside the load it was told from.

        Columns are the names and stamps of the user's table, the load, for each appliance its load in the units of the
        table, and `<appliance>_on`. Where the load was not observed the estimate is empty.

        Args:
            data: the loads.
            trainer: runs the network.
            folder: for the table, unless `output` says otherwise, and for a picture.
            output: file to write: .csv, .parquet or .nc.

        Raises QuintetError where a file would be overwritten.
        """
        table = Path(output) if output else folder / "appliances.csv"
        picture = table.with_name(table.name.split(".")[0] + ".png")
        tables.check_ending(table, (".csv", ".parquet", ".nc"))
        tables.check_targets([table, picture])
        layout, known = tables.layout_of(data, range(len(data.usable().series))), self.description
        tables.refuse_taken(layout, [*known.channels, *(f"{name}_on" for name in known.appliances)])
        estimates = merged(data, trainer.predict(self, datamodule=data))
        frame = self._frame(data, estimates)
        if table.suffix == ".nc":
            tables.write_dataset(table, self._dataset(data, frame))
        else:
            tables.write_frame(table, frame)
        panels = []
        for series, own in list(zip(data.usable().series, estimates, strict=True))[:COLUMNS]:
            rows = slice(max(0, len(own) - SHOWN_ROWS), len(own))
            load, truth = series.values[rows, 0], series.values[rows, 1:]
            panels.append(LoadPanel(series.name or str(table.name), series.stamps[rows], load, own[rows], truth))
        title = "loads of the appliances" + (f", the last {SHOWN_ROWS:,} rows" if len(own) > SHOWN_ROWS else "")
        figure = load_panels(panels, known.appliances, known.thresholds, data.units()[0], title)
        tables.write_picture(picture, figure)
        return [table, picture]

    def _frame(self, data: DisaggregationData, estimates: list[np.ndarray]) -> pd.DataFrame:
        """Series after series: names, stamps, the load, appliances and whether they run."""
        known, found, blocks = self.description, data.usable(), []
        for number, (series, own) in enumerate(zip(found.series, estimates, strict=True)):
            columns = {name: found.labels[name].iloc[number] for name in found.labels}
            columns |= {found.time: series.stamps, known.channels[0]: series.values[:, 0]}
            columns |= dict(zip(known.appliances, own.T, strict=True))
            runs = own >= np.array(known.thresholds)
            columns |= {f"{name}_on": column for name, column in zip(known.appliances, runs.T, strict=True)}
            blocks.append(pd.DataFrame(columns))
        return pd.concat(blocks, ignore_index=True)

    def _dataset(self, data: DisaggregationData, frame: pd.DataFrame) -> Any:
        """The same as labelled arrays, with units; stamps in UTC."""
        found = data.usable()
        if getattr(frame[found.time].dtype, "tz", None) is not None:
            frame[found.time] = frame[found.time].dt.tz_convert("UTC").dt.tz_localize(None)
        dataset = frame.set_index([*found.labels, found.time]).to_xarray()
        for name, unit in zip(self.description.channels, data.units(), strict=True):
            dataset[name].attrs["units"] = unit
        for name in self.description.appliances:
            # A point of a grid that a series does not reach was not observed.
            dataset[f"{name}_on"] = dataset[f"{name}_on"].fillna(False).astype(bool)
        return dataset


def merged(data: DisaggregationData, results: list[Loads]) -> list[np.ndarray]:
    """Each series (T, A) as the mean of the windows over it, NaN where the load was not observed."""
    found = data.usable()
    count = len(found.channels) - 1
    sums = [np.zeros((len(series.values), count)) for series in found.series]
    windows = [np.zeros((len(series.values), 1)) for series in found.series]
    for result in results:
        for number, start, values in zip(result.series, result.starts, result.values.numpy(), strict=True):
            rows = slice(start, start + len(values))
            sums[number][rows] += values
            windows[number][rows] += 1
    return [
        np.where(np.isnan(series.values[:, :1]), np.nan, total / covered)
        for series, total, covered in zip(found.series, sums, windows, strict=True)
    ]
