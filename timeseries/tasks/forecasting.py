"""Forecasting: any network over windows of series, points or quantiles, always beside two honest baselines."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ...core.errors import QuintetError
from ...core.mixer import Mixer
from ...core.pretrained import load_pretrained
from ...core.registry import model_entry
from ...core.task import StepResult, Task, command
from ..backbones import Backbone, build_backbone, name_of
from ..data import SeriesData, SeriesDescription, Windows
from ..data.stamps import shown
from ..metrics import (
    AbsoluteError,
    Coverage,
    ErrorByStep,
    PinballLoss,
    RootSquaredError,
    ScaledError,
    SquaredError,
    SymmetricPercentageError,
)
from ..metrics.quantiles import pinball
from ..models.baselines import RidgeForecaster, seasonal_naive
from ..pictures import SHOWN, Panel, error_by_step, forecast_panels
from . import backtest, tables

FITTED_AT_ONCE = 2048  # windows the ridge baseline takes in one go
MEDIAN = 0.5
MODEL = "model"  # what the forecast is called beside its baselines


@dataclass
class ForecastStep(StepResult):
    """A step's result with what scales its errors."""

    seasonal_error: Tensor


@dataclass
class Forecasts:
    """What one batch of windows is forecast to be, in the user's own units."""

    series: list[int]
    values: Float[Tensor, "batch horizon channels outputs"]


class Forecaster(Task):
    """Forecasts series with any network, from random weights or from a file.

    Training minimises the squared or absolute error, or the pinball loss of quantiles, over what was observed. Measured
    in units of training standard deviations are MAE, MSE and RMSE (pinball loss and coverage of quantiles); in the
    user's own, sMAPE and MASE. The same numbers of the seasonal naive forecast and of a closed-form ridge regression
    stand beside every test. Quantiles are sorted, so that they never cross.

    Args:
        backbone: a registered name, or a class or function called with `context`, `horizon` and `outputs`.
        backbone_arguments: further arguments for a backbone given by name, e.g. {"depth": 3}.
        mixer: the mixer to put into the backbone instead of its own.
        pretrained: a file or hub id of weights, also in the published layouts of the registered models.
        loss: "mse" or "mae" of a point forecast; quantiles have their own.
        quantiles: levels to forecast, 0.5 among them; None forecasts a point.
        **task: see quintet.core.task.Task.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, levels that are none, weights that do not fit.
    """

    description_type: ClassVar[type] = SeriesDescription

    def __init__(
        self,
        backbone: str | Backbone = "itransformer",
        backbone_arguments: dict[str, Any] | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        pretrained: bool | str = False,
        loss: Literal["mse", "mae"] = "mse",
        quantiles: list[float] | None = None,
        **task: Any,
    ) -> None:
        super().__init__(**task)
        if isinstance(backbone, nn.Module):
            raise QuintetError(
                f"model.backbone is a built {type(backbone).__name__}, but its sizes come from the data; give the "
                "class or a registered name, and what else it needs as model.backbone_arguments"
            )
        if quantiles is not None and (
            MEDIAN not in quantiles
            or sorted(set(quantiles)) != list(quantiles)
            or not 0 < quantiles[0] <= quantiles[-1] < 1
        ):
            raise QuintetError(
                f"model.quantiles is {quantiles}; give rising levels between 0 and 1 with 0.5, the point forecast"
            )
        self.backbone = backbone
        self.backbone_arguments = dict(backbone_arguments or {})
        self.mixer = mixer
        self.pretrained = pretrained
        self.loss = loss
        self.quantiles = list(quantiles or [])

    # Building

    def make(self, description: SeriesDescription) -> None:
        known = description
        arguments = self.backbone_arguments | ({} if self.mixer is None else {"mixer": self.mixer})
        outputs = len(self.quantiles) or 1
        self.network = build_backbone(self.backbone, known.context, known.horizon, outputs, arguments)
        # In the checkpoint, so that a later test has the baseline of the same training rows.
        self.ridge = RidgeForecaster(known.context, known.horizon)
        self.register_buffer("levels", torch.tensor(self.quantiles), persistent=False)
        self.register_buffer("mean", torch.tensor(known.mean, dtype=torch.float64), persistent=False)
        self.register_buffer("std", torch.tensor(known.std, dtype=torch.float64), persistent=False)
        self.point = self.quantiles.index(MEDIAN) if self.quantiles else 0
        self.baseline_metrics = nn.ModuleDict(
            {name: self.point_metrics(0).clone(prefix="test/", postfix=f"_{name}") for name in backtest.BASELINES}
        )
        points = {MODEL: self.point} | dict.fromkeys(backtest.BASELINES, 0)
        self.steps = nn.ModuleDict(
            {name: ErrorByStep(known.horizon, len(known.channels), point) for name, point in points.items()}
        )

    def initialise(self) -> None:
        if self.pretrained:
            sources = model_entry(self.backbone).pretrained if isinstance(self.backbone, str) else {}
            rank_zero_only(print)(load_pretrained(self.network, self.pretrained, sources, name_of(self.backbone)))

    def layer_groups(self) -> list[list[str]]:
        groups = self.network.layer_groups() if hasattr(self.network, "layer_groups") else []
        if not groups and self.layer_decay is not None:
            name = name_of(self.backbone)
            raise QuintetError(f"model.layer_decay needs the order of layers, and {name} has no layer_groups()")
        return [[f"network.{prefix}" for prefix in prefixes] for prefixes in groups]

    def metrics(self) -> MetricCollection:
        metrics: dict[str, Any] = dict(self.point_metrics(self.point).items())
        if self.quantiles:
            metrics["pinball"] = PinballLoss(self.quantiles)
        if len(self.quantiles) > 1:
            metrics["coverage"] = Coverage()
        return MetricCollection(metrics, compute_groups=False)

    def point_metrics(self, point: int) -> MetricCollection:
        """What is measured of a point forecast, the model's or a baseline's."""
        known = self.description
        metrics = {
            "mae": AbsoluteError(point),
            "mse": SquaredError(point),
            "rmse": RootSquaredError(point),
            "smape": SymmetricPercentageError(known.mean, known.std, point),
            "mase": ScaledError(point),
        }
        # Equal states of different metrics, e.g. of a perfect forecast, are no reason to compute only one of them.
        return MetricCollection(metrics, compute_groups=False)

    # Steps

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        calendar: Float[Tensor, "batch steps features"] | None = None,
    ) -> Float[Tensor, "batch horizon channels outputs"]:
        """Forecasts of scaled windows, NaN where nothing was observed; quantiles in the order of their levels."""
        observed: Tensor | None = values.isfinite()
        if bool(observed.all()):
            observed = None
        else:
            values = values.nan_to_num(0.0)
        if calendar is not None:
            calendar = calendar[:, : values.shape[1]] if calendar.shape[-1] else None
        outputs = self.network(values, observed, calendar)
        return outputs.sort(-1).values if self.quantiles else outputs

    def step(self, batch: Windows) -> ForecastStep:
        predictions = self(batch.context, batch.calendar)
        # A channel of which a window shows nothing cannot be forecast: its targets count nowhere.
        targets = batch.target.masked_fill(~batch.context.isfinite().any(1, keepdim=True), torch.nan)
        counted = targets.isfinite()
        known = targets.nan_to_num(0.0)
        if self.quantiles:
            errors = pinball(predictions, known, self.levels.to(predictions.dtype)).mean(-1)
        else:
            errors = known - predictions.squeeze(-1)
            errors = errors.square() if self.loss == "mse" else errors.abs()
        loss = errors.masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)
        return ForecastStep(loss, predictions.detach(), targets, batch.seasonal_error)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data = self.trainer.datamodule
        train = data.datasets["train"]
        chunks = (
            train.__getitems__(range(start, min(start + FITTED_AT_ONCE, len(train))))
            for start in range(0, len(train), FITTED_AT_ONCE)
        )
        device = self.ridge.weight.device
        self.ridge.cpu().fit((chunk.context, chunk.target) for chunk in chunks)
        self.ridge.to(device)

    def measure(self, result: ForecastStep, stage: Literal["val", "test"]) -> None:
        metrics, loss = (self.val_metrics, self.val_loss) if stage == "val" else (self.test_metrics, self.test_loss)
        size = result.targets.shape[0]
        metrics.update(result.predictions, result.targets, seasonal_error=result.seasonal_error)
        loss.update(result.loss, size)
        measured = {f"{stage}/loss": loss, **metrics}
        self.log_dict(measured, prog_bar=stage == "val", on_step=False, on_epoch=True, batch_size=size)

    # The test, with its baselines

    def on_test_epoch_start(self) -> None:
        for metric in self.steps.values():
            metric.reset()

    def test_step(self, batch: Windows, batch_index: int) -> None:
        result = self.evaluate(batch, "test")
        self.steps[MODEL].update(result.predictions, result.targets)
        for name, forecast in self.baselines(batch.context).items():
            metrics = self.baseline_metrics[name]
            metrics.update(forecast.unsqueeze(-1), result.targets, seasonal_error=result.seasonal_error)
            self.log_dict(dict(metrics), on_step=False, on_epoch=True, batch_size=len(result.targets))
            self.steps[name].update(forecast.unsqueeze(-1), result.targets)

    def on_test_epoch_end(self) -> None:
        # Every process takes part in the sums, though only one draws the picture.
        self.step_errors = {name: metric.compute().cpu() for name, metric in self.steps.items()}

    def baselines(self, context: Float[Tensor, "batch time channels"]) -> dict[str, Tensor]:
        """The baselines' forecasts (B, H, C) of the same windows."""
        known = self.description
        return {"ridge": self.ridge(context), "seasonal_naive": seasonal_naive(context, known.horizon, known.period)}

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if not hasattr(self, "step_errors") or self._trainer is None:
            return
        data, known = self.trainer.datamodule, self.description
        dataset = data.datasets["test"]
        panels = []
        count = max(1, -(-SHOWN // len(known.channels)))
        chosen = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist()
        batch = dataset.__getitems__(chosen)
        outcome = self.outcome(batch)
        for window, (number, position) in enumerate(zip(batch.series.tolist(), batch.position.tolist(), strict=True)):
            panels += self.panels(data, outcome, window, number, position)
        title = f"test windows {', '.join(f'{index + 1:,}' for index in chosen)} of {len(dataset):,}"
        yield "forecasts", forecast_panels(panels[:SHOWN], title, self.quantiles)
        scaled = {name: errors.mean(1).numpy() for name, errors in self.step_errors.items()}
        yield "error_by_step", error_by_step(scaled, "mean absolute error [training std]")

    # Prediction

    @torch.no_grad()
    def outcome(self, batch: Windows) -> dict[str, np.ndarray]:
        """Forecasts, baselines, context and truth of windows in the user's own units: arrays (B, T, C[, outputs])."""
        training = self.training
        self.eval()
        moved = Windows(*(part.to(self.mean.device) for part in batch))
        found = {MODEL: self.restored(self(moved.context, moved.calendar))}
        found |= {name: self.restored(value.unsqueeze(-1)) for name, value in self.baselines(moved.context).items()}
        found |= {
            "context": self.restored(moved.context.unsqueeze(-1)),
            "truth": self.restored(moved.target.unsqueeze(-1)),
        }
        self.train(training)
        return {name: (value if name == MODEL else value.squeeze(-1)).cpu().numpy() for name, value in found.items()}

    def restored(self, values: Float[Tensor, "batch time channels outputs"]) -> Tensor:
        """Scaled values in the user's own units, in float64."""
        return values.double() * self.std[:, None] + self.mean[:, None]

    def panels(
        self, data: SeriesData, outcome: dict[str, np.ndarray], window: int, series: int, position: int
    ) -> list[Panel]:
        """What to draw of one window, channel by channel."""
        known = self.description
        horizon = outcome[MODEL].shape[1]
        stamps = data.stamps(series, horizon)[position - known.context : position + horizon]
        name, seen = data.usable().series[series].name, shown(stamps[known.context - 1])
        baselines = [baseline for baseline in backtest.BASELINES if baseline in outcome]
        return [
            Panel(
                title=f"{name} {channel} after {seen}".strip(),
                unit=unit,
                stamps=stamps,
                context=outcome["context"][window, :, number],
                truth=outcome["truth"][window, :, number],
                forecast=outcome[MODEL][window, :, number, self.point],
                quantiles=outcome[MODEL][window, :, number].T if self.quantiles else None,
                baselines={baseline: outcome[baseline][window, :, number] for baseline in baselines},
            )
            for number, (channel, unit) in enumerate(zip(known.channels, data.units(), strict=True))
        ]

    def predict_step(self, batch: Windows, batch_index: int) -> Forecasts:
        return Forecasts(batch.series.tolist(), self.restored(self(batch.context, batch.calendar)).cpu())

    @command
    def predict(
        self,
        data: SeriesData,
        trainer: L.Trainer,
        folder: Path,
        horizon: int | None = None,
        quantiles: list[float] | None = None,
        output: str | None = None,
    ) -> list[Path]:
        """Forecasts the steps after the last stamp of each series, in the user's own units.

        Args:
            data: the series.
            trainer: runs the network.
            folder: for the table, unless `output` says otherwise, and for a picture.
            horizon: steps; None means all the model was trained for.
            quantiles: levels; None means all the model was trained for.
            output: file to write: .csv, .parquet or .nc.

        Raises QuintetError for a horizon or level the model cannot give, and where a file would be overwritten.
        """
        known = self.description
        horizon = known.horizon if horizon is None else horizon
        if not 1 <= horizon <= known.horizon:
            raise QuintetError(
                f"horizon={horizon}: this model forecasts 1 to {known.horizon} steps; train one with "
                f"data.horizon={max(1, horizon)}"
            )
        levels = self.levels_of(quantiles)
        table = Path(output) if output else folder / "forecast.csv"
        picture = table.with_name(table.name.split(".")[0] + ".png")
        tables.check_ending(table, (".csv", ".parquet", ".nc"))
        tables.refuse_existing([table, picture])
        results: list[Forecasts] = trainer.predict(self, datamodule=data)
        values = torch.cat([result.values for result in results])[:, :horizon]
        names = [data.usable().series[number].name for result in results for number in result.series]
        stamps = [data.stamps(number, horizon)[-horizon:] for result in results for number in result.series]
        kept = [self.quantiles.index(level) for level in levels]
        chosen = values[..., kept] if levels else values[..., self.point : self.point + 1]
        tables.write_forecast(table, replace(known, units=data.units()), names, stamps, chosen.numpy(), levels)
        figure = forecast_panels(
            self._future_panels(data, horizon), f"the {horizon} steps after the last stamp", self.quantiles
        )
        figure.savefig(picture, dpi=120)
        return [table, picture]

    def levels_of(self, wanted: Sequence[float] | None) -> list[float]:
        """The levels asked for, all where none are. Raises QuintetError for one the model was not trained for."""
        if wanted is None:
            return self.quantiles
        unknown = [level for level in wanted if level not in self.quantiles]
        if unknown:
            can = f"gives {', '.join(map(str, self.quantiles))}" if self.quantiles else "forecasts points"
            raise QuintetError(f"quantiles={unknown[0]}: this model {can}; train one with model.quantiles")
        return sorted(wanted)

    def _future_panels(self, data: SeriesData, horizon: int) -> list[Panel]:
        dataset = data.datasets["predict"]
        batch = dataset.__getitems__(range(min(len(dataset), SHOWN)))
        # Truth and forecasts are cut to what was asked for, the context is not.
        outcome = {
            name: values if name == "context" else values[:, :horizon] for name, values in self.outcome(batch).items()
        }
        places = enumerate(zip(batch.series.tolist(), batch.position.tolist(), strict=True))
        found = [panel for window, place in places for panel in self.panels(data, outcome, window, *place)]
        return found[:SHOWN]

    @command
    def backtest(
        self,
        data: SeriesData,
        trainer: L.Trainer,
        folder: Path,
        cutoffs: int = 8,
        step: int | None = None,
        output: str | None = None,
    ) -> list[Path]:
        """Forecasts from several moments of the past after the rows the model has seen, beside the baselines.

        Args:
            data: the series.
            trainer: says on which device to run.
            folder: for the tables and pictures.
            cutoffs: moments from which to forecast, counted back from the last possible one.
            step: rows between them; None spreads them, at most a horizon apart.
            output: file for the forecasts: .parquet (backtest.parquet in `folder` by default) or .csv.

        Raises QuintetError where the rows do not suffice, and where a file would be overwritten.
        """
        table = Path(output) if output else folder / "backtest.parquet"
        scores = table.with_name(table.name.split(".")[0] + "_scores.csv")
        pictures = [
            table.with_name(f"{table.name.split('.')[0]}_{name}.png") for name in ("forecasts", "error_by_step")
        ]
        tables.check_ending(table, (".parquet", ".csv"))
        tables.refuse_existing([table, scores, *pictures])
        self.to(trainer.strategy.root_device)
        positions = backtest.cutoffs_of(data, self.description, cutoffs, step)
        outcomes, batches = [], []
        dataset = backtest.windows_at(data, positions)
        for cutoff in range(cutoffs):
            # Every series of one cutoff is one batch.
            batches.append(dataset.__getitems__(range(cutoff * len(positions), (cutoff + 1) * len(positions))))
            outcomes.append(self.outcome(batches[-1]))
        frame = backtest.frame_of(data, self.description, positions, outcomes, self.point, self.quantiles)
        tables.write_frame(table, frame)
        scored = backtest.scores_of(frame, batches[0].seasonal_error.numpy() * np.array(self.description.std), data)
        scored.to_csv(scores, index=False)
        Console().print(backtest.summary(scored, cutoffs, len(positions)))
        panels = [
            panel
            for number, places in enumerate(positions.tolist())
            for panel in self.panels(data, outcomes[-1], number, number, places[-1])
        ]
        title = "the last cutoff" + (f", the first {SHOWN} of {len(panels)}" if len(panels) > SHOWN else "")
        forecast_panels(panels[:SHOWN], title, self.quantiles).savefig(pictures[0], dpi=120)
        error_by_step(backtest.errors_by_step(frame), "mean absolute scaled error").savefig(pictures[1], dpi=120)
        return [table, scores, *pictures]
