"""Forecasting: any network over windows of series, points or quantiles, always beside two honest baselines."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ...core.errors import QuintetError
from ...core.learning.baselines import Baselines
from ...core.learning.deployable import Deployable
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.weights.network import said
from ...core.weights.networks import Kind
from ..backbones import Backbone
from ..data import SeriesData, SeriesDescription, Windows
from ..metrics import (
    AbsoluteError,
    Coverage,
    ErrorByStep,
    IntervalWidth,
    PinballLoss,
    RootSquaredError,
    ScaledError,
    SquaredError,
    SymmetricPercentageError,
    WeightedQuantileLoss,
)
from ..metrics.quantiles import pinball
from ..models._network import ForecastNetwork
from ..models._shared import complete, window_std
from ..models.baselines import RidgeForecaster, seasonal_naive
from ..models.covariates import Covariates
from ..pictures import SHOWN, error_by_step, forecast_panels
from .backtest import BASELINES, MODEL
from .deployment import deployable_forecaster
from .distributions import StudentT
from .outputs import write_backtest, write_future
from .panels import panels_of

FITTED_AT_ONCE = 2048  # windows the ridge baseline takes in one go
MEDIAN = 0.5
DECILES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
DISTRIBUTIONS = {"student_t": StudentT}


@dataclass
class ForecastStep(StepResult):
    """A step's result with what scales its errors."""

    seasonal_error: Tensor

    @property
    def further(self) -> dict[str, Any]:
        return {"seasonal_error": self.seasonal_error}


@dataclass
class Forecasts:
    """What one batch of windows is forecast to be, in the user's own units."""

    series: list[int]
    values: Float[Tensor, "batch horizon channels outputs"]


class Forecaster(NetworkTask):
    """Forecasts series with any network, from random weights or from a file.

    Training minimises the squared or absolute error, the pinball loss of quantiles, or the negative log-likelihood of a
    distribution, over what was observed. Measured in units of training standard deviations are MAE, MSE and RMSE (of
    quantiles also pinball loss, coverage and width of the widest interval); in the user's own, sMAPE, MASE and the
    weighted quantile loss. The same numbers of the seasonal naive forecast and of a closed-form ridge regression stand
    beside every test; skill is 1 - MASE / MASE of the seasonal naive. Quantiles are sorted, so that they never cross.

    Args:
        backbone: a registered name, or a class or function called with `context`, `horizon` and `outputs`.
        loss: "mse" or "mae" of a point forecast; quantiles have their own.
        quantiles: levels to forecast, 0.5 among them; None forecasts a point, or takes 0.1 to 0.9 of a distribution.
        distribution: "student_t", or a class like `StudentT`, whose quantiles are forecast; it gives any level.
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, levels that are none, weights that do not fit.
    """

    description_type: ClassVar[type] = SeriesDescription
    kind: ClassVar[Kind] = Kind("timeseries", "a forecaster", "itransformer")
    fixed: ClassVar[frozenset[str]] = NetworkTask.fixed | {"quantiles", "distribution"}

    def __init__(
        self,
        backbone: str | Backbone = "itransformer",
        backbone_arguments: dict[str, Any] | None = None,
        loss: Literal["mse", "mae"] = "mse",
        quantiles: list[float] | None = None,
        distribution: Literal["student_t"] | Callable[[list[float]], nn.Module] | None = None,
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        if quantiles is not None and (
            MEDIAN not in quantiles
            or sorted(set(quantiles)) != list(quantiles)
            or not 0 < quantiles[0] <= quantiles[-1] < 1
        ):
            raise QuintetError(
                f"model.quantiles is {quantiles}; give rising levels between 0 and 1 with 0.5, the point forecast"
            )
        self.loss = loss
        self.distribution = DISTRIBUTIONS[distribution] if isinstance(distribution, str) else distribution
        self.quantiles = list(quantiles or ([] if distribution is None else DECILES))
        self.reach: int | None = None  # steps to predict beyond those of training, from networks that can

    # Building

    def make(self, description: SeriesDescription) -> None:
        known = description
        self.head = None if self.distribution is None else self.distribution(self.quantiles)
        self.network = self.build_network(self._sizes(known))
        self._check_roles(known)
        self._take_levels()
        # In the checkpoint, so that a later test has the baseline of the same training rows.
        self.ridge = RidgeForecaster(known.context, known.horizon)
        self.register_buffer("levels", torch.tensor(self.quantiles), persistent=False)
        self.register_buffer("mean", torch.tensor(known.mean, dtype=torch.float64), persistent=False)
        self.register_buffer("std", torch.tensor(known.std, dtype=torch.float64), persistent=False)
        self.point = self.quantiles.index(MEDIAN) if self.quantiles else 0
        self.baseline_metrics = Baselines(BASELINES, self.point_metrics(0))
        points = {MODEL: self.point} | dict.fromkeys(BASELINES, 0)
        self.steps = nn.ModuleDict(
            {name: ErrorByStep(known.horizon, len(known.channels), point) for name, point in points.items()}
        )

    def _sizes(self, known: SeriesDescription) -> dict[str, Any]:
        outputs = len(self.quantiles) or 1 if self.head is None else self.head.parameters_a_step
        # A network whose tokens are steps has weights for every channel and calendar feature.
        further = {"channels": len(known.channels), "calendar": len(known.calendar)}
        if features := known.covariate_features():
            further["covariates"] = features
        own = {"context": known.context, "horizon": known.horizon, "outputs": outputs}
        return own | {name: size for name, size in further.items() if self.accepts(name)}

    def _check_roles(self, known: SeriesDescription) -> None:
        """Raises QuintetError for covariates that the network would not see."""
        self.roles = said(self.network, "takes", ForecastNetwork)
        self.reads_future = said(self.network, "reads_future_calendar", ForecastNetwork)
        for role in known.covariate_features():
            if role not in self.roles:
                what = f"{self.backbone_name} takes no {role} covariates"
                names = ", ".join(column.name for column in getattr(known, role))
                raise QuintetError(f"{what} ({names}); leave data.{role} out, or take a model that does: itransformer")

    def _take_levels(self) -> None:
        """A network that forecasts fixed quantiles decides on them. Raises QuintetError where others were asked for."""
        levels = said(self.network, "levels", ForecastNetwork)
        if levels is None:
            return
        option = "quantiles" if self.head is None else "distribution"
        if option == "distribution" or (self.quantiles and self.quantiles != list(levels)):
            given = ", ".join(map(str, levels))
            raise QuintetError(f"{self.backbone_name} forecasts the levels {given}; leave model.{option} out")
        self.quantiles = list(levels)

    def metrics(self) -> MetricCollection:
        metrics: dict[str, Any] = dict(self.point_metrics(self.point).items())
        if self.quantiles:
            known = self.description
            metrics["pinball"] = PinballLoss(self.quantiles)
            metrics["wql"] = WeightedQuantileLoss(self.quantiles, known.mean, known.std)
        if len(self.quantiles) > 1:
            metrics |= {"coverage": Coverage(), "width": IntervalWidth()}
        return collection(metrics)

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
        return collection(metrics)

    # Steps

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        calendar: Float[Tensor, "batch steps features"] | None = None,
        covariates: Covariates | None = None,
    ) -> Float[Tensor, "batch horizon channels outputs"]:
        """Forecasts of scaled windows, NaN where nothing was observed; quantiles in the order of their levels.

        The calendar is of context and horizon, the covariates as in `Windows`.
        """
        return self.read(values, self.outputs(values, calendar, covariates))

    def outputs(self, values: Tensor, calendar: Tensor | None, covariates: Covariates | None) -> Tensor:
        """What the network says of scaled windows, whatever it means."""
        observed: Tensor | None = None
        # A graph that is exported cannot branch on data: it treats every window as one with gaps.
        if torch.compiler.is_exporting() or not complete(values):
            values, observed = values.nan_to_num(0.0), values.isfinite()
        if calendar is not None and not calendar.shape[-1]:
            calendar = None
        if calendar is not None and not self.reads_future:
            calendar = calendar[:, : values.shape[1]]
        further = [covariates] if self.roles else []
        reach = {} if self.reach is None else {"horizon": self.reach}
        return self.network(values, observed, calendar, *further, **reach)

    def read(self, values: Tensor, outputs: Tensor) -> Tensor:
        """The forecasts that outputs for scaled windows mean: a point, or quantiles that rise with their levels."""
        if self.head is not None:
            return self.head(outputs, window_std(values))
        return outputs.sort(-1).values if self.quantiles else outputs

    def step(self, batch: Windows) -> ForecastStep:
        targets = batch.target
        if not complete(batch.context):
            # A channel of which a window shows nothing cannot be forecast: its targets count nowhere.
            targets = targets.masked_fill(~batch.context.isfinite().any(1, keepdim=True), torch.nan)
        forecasts_of = said(self.network, "training_forecasts", ForecastNetwork)
        if self.training and forecasts_of is not None:
            # A network that forecasts inside the context too learns from all of it, in units of its own.
            observed, further = batch.context.isfinite(), [batch.covariates] if self.roles else []
            predictions, targets = forecasts_of(batch.context.nan_to_num(0.0), targets, observed, *further)
        else:
            outputs = self.outputs(batch.context, batch.calendar, batch.covariates)
            predictions = self.read(batch.context, outputs)
        whole = complete(targets)
        known = targets if whole else targets.nan_to_num(0.0)
        if self.head is not None:
            errors = self.head.loss(outputs, window_std(batch.context), known)
        elif self.quantiles:
            errors = pinball(predictions, known, self.levels.to(predictions.dtype)).mean(-1)
        else:
            errors = known - predictions.squeeze(-1)
            errors = errors.square() if self.loss == "mse" else errors.abs()
        if whole:
            loss = errors.mean()
        else:
            counted = targets.isfinite()
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

    # The test, with its baselines

    def on_test_epoch_start(self) -> None:
        for metric in self.steps.values():
            metric.reset()

    def test_step(self, batch: Windows, batch_index: int) -> None:
        result = self.evaluate(batch, "test")
        forecasts = {name: forecast.unsqueeze(-1) for name, forecast in self.baselines(batch.context).items()}
        self.baseline_metrics.measure(self, forecasts, result.targets, **result.further)
        for name, forecast in {MODEL: result.predictions, **forecasts}.items():
            self.steps[name].update(forecast, result.targets)

    def on_test_epoch_end(self) -> None:
        # Every process takes part in the sums, though only one draws the picture.
        # Metrics give an array of one number as that number.
        shape = self.description.horizon, len(self.description.channels)
        self.step_errors = {name: metric.compute().reshape(shape).cpu() for name, metric in self.steps.items()}
        naive = self.baseline_metrics["seasonal_naive"]["mase"].compute()
        self.log("test/skill", (1 - self.test_metrics["mase"].compute() / naive).float())

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
            panels += panels_of(self, data, outcome, window, number, position)
        title = f"test windows {' · '.join(f'{index + 1:,}' for index in chosen)} of {len(dataset):,}"
        yield "forecasts", forecast_panels(panels[:SHOWN], title, self.quantiles)
        scaled = {name: errors.mean(1).numpy() for name, errors in self.step_errors.items()}
        yield "error_by_step", error_by_step(scaled, "mean absolute error [training std]")

    # Prediction

    def deployable(self) -> Deployable:
        """From windows in the user's own units to forecasts in them."""
        return deployable_forecaster(self)

    @torch.no_grad()
    def outcome(self, batch: Windows) -> dict[str, np.ndarray]:
        """Forecasts, baselines, context and truth of windows in the user's own units: arrays (B, T, C[, outputs])."""
        training = self.training
        self.eval()
        moved = batch.to(self.device, self.dtype)
        found = {MODEL: self.restored(self(moved.context, moved.calendar, moved.covariates))}
        found |= {name: self.restored(value.unsqueeze(-1)) for name, value in self.baselines(moved.context).items()}
        found |= {
            "context": self.restored(moved.context.unsqueeze(-1)),
            "truth": self.restored(moved.target.unsqueeze(-1)),
        }
        self.train(training)
        return {name: (value if name == MODEL else value.squeeze(-1)).cpu().numpy() for name, value in found.items()}

    def restored(self, values: Float[Tensor, "batch time channels outputs"]) -> Tensor:
        """Scaled values in the user's own units, in float64."""
        return values.to(self.std.device).double() * self.std[:, None] + self.mean[:, None]

    def predict_step(self, batch: Windows, batch_index: int) -> Forecasts:
        forecasts = self(batch.context, batch.calendar, batch.covariates)
        return Forecasts(batch.series.tolist(), self.restored(forecasts).cpu())

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
            quantiles: levels; None means all the model was trained for. A distribution gives any.
            output: file to write: .csv, .parquet, .nc or .zarr.

        Raises QuintetError for a horizon or level the model cannot give, and where a file would be overwritten.
        """
        horizon = self.description.horizon if horizon is None else horizon
        most = self.longest_horizon()
        if not 1 <= horizon <= most:
            raise QuintetError(
                f"horizon={horizon}: this model forecasts 1 to {most} steps; train one with "
                f"data.horizon={max(1, horizon)}"
            )
        levels = self.levels_of(quantiles)
        self.reach = horizon if horizon > self.description.horizon else None
        with self._quantiles_of(levels):
            return write_future(self, data, trainer, folder, horizon, levels, output)

    @contextmanager
    def _quantiles_of(self, levels: list[float]) -> Iterator[None]:
        """While it lasts, a distribution gives these levels and the median."""
        if self.head is None:
            yield
            return
        trained = self.quantiles, self.point, self.head
        self.quantiles = sorted({*levels, MEDIAN})
        self.point, self.head = self.quantiles.index(MEDIAN), self.distribution(self.quantiles).to(self.mean.device)
        try:
            yield
        finally:
            self.quantiles, self.point, self.head = trained
            self.head.to(self.mean.device)

    def longest_horizon(self) -> int:
        """Steps the model can forecast: those it was trained for, or as many as its network says it reaches."""
        known, most = self.description, said(self.network, "max_horizon", ForecastNetwork)
        # What is known of the future is cut to the horizon of training.
        return known.horizon if known.future or most is None else most

    def levels_of(self, wanted: Sequence[float] | None) -> list[float]:
        """The levels asked for, all where none are. Raises QuintetError for one the model cannot give."""
        if wanted is None:
            return self.quantiles
        if self.head is not None:
            if outside := [level for level in wanted if not 0 < level < 1]:
                raise QuintetError(f"quantiles={outside[0]}: levels lie between 0 and 1")
            return sorted(set(wanted))
        unknown = [level for level in wanted if level not in self.quantiles]
        if unknown:
            can = f"gives {', '.join(map(str, self.quantiles))}" if self.quantiles else "forecasts points"
            raise QuintetError(f"quantiles={unknown[0]}: this model {can}; train one with model.quantiles")
        return sorted(wanted)

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

        Future covariates are taken as they came, as if they had been known without error.

        Args:
            data: the series.
            trainer: says on which device to run.
            folder: for the tables and pictures.
            cutoffs: moments from which to forecast, counted back from the last possible one.
            step: rows between them; None spreads them, at most a horizon apart.
            output: file for the forecasts: .parquet (backtest.parquet in `folder` by default), .csv, .nc or .zarr.

        Raises QuintetError where the rows do not suffice, and where a file would be overwritten.
        """
        self.check_precision(trainer)
        self.to(trainer.strategy.root_device)
        return write_backtest(self, data, folder, cutoffs, step, output)
