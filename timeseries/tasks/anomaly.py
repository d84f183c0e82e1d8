"""Anomaly detection by the errors of any forecaster, with a threshold that no test row and no label has touched."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MetricCollection

from ...core.errors import QuintetError
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, command
from ...core.weights.networks import Kind
from ..backbones import Backbone
from ..data import SeriesDescription, Windows
from ..data.anomalies import AnomalyData
from ..metrics import AbsoluteError, SquaredError
from ..metrics.anomalies import largest_buffer, point_adjusted, point_scores, volume_under_surface
from ..models.baselines import seasonal_naive
from ..pictures.anomalies import SERIES, AnomalyPanel, anomaly_panels
from . import tables
from .thresholds import Rule, threshold_of

MODEL, BASELINE = "model", "seasonal_naive"


@dataclass
class AnomalyStep(StepResult):
    """A step's result with the baseline's predictions and the row of each first prediction."""

    baseline: Tensor
    baseline_targets: Tensor
    starts: Tensor


@dataclass
class RowErrorsOfWindows:
    """Squared errors (B, T, C) of one batch of windows, NaN where nothing was observed, and where each begins."""

    series: list[int]
    starts: list[int]
    errors: Float[Tensor, "batch time channels"]


class RowErrors:
    """Mean squared error of each row and channel over all windows that hold it.

    Args:
        lengths: rows of each series.
        channels: of all.
        device: where sums are kept: that of the errors, or the CPU where it has no float64.
    """

    def __init__(self, lengths: list[int], channels: int, device: torch.device | str = "cpu") -> None:
        self.lengths = lengths
        self.offsets = torch.tensor(np.cumsum([0, *lengths[:-1]]), device=device)
        self.total = torch.zeros(sum(lengths), channels, dtype=torch.float64, device=device)
        self.count = torch.zeros_like(self.total)

    def add(self, series: Tensor, starts: Tensor, errors: Float[Tensor, "batch time channels"]) -> None:
        """Takes in the errors of windows that begin at `starts` of `series`."""
        series, starts, errors = (part.to(self.total.device) for part in (series, starts, errors))
        rows = self.offsets[series][:, None] + starts[:, None] + torch.arange(errors.shape[1], device=errors.device)
        counted = errors.isfinite()
        self.total.index_add_(0, rows.flatten(), errors.double().nan_to_num(0.0).flatten(0, 1))
        self.count.index_add_(0, rows.flatten(), counted.double().flatten(0, 1))

    def reduced(self, gather: Callable[[Tensor], Tensor]) -> list[np.ndarray]:
        """Means (T, C) of each series over all processes, NaN where no window had a row."""
        total, count = (gather(part).reshape(-1, *part.shape).sum(0).cpu().numpy() for part in (self.total, self.count))
        means = total / np.where(count > 0, count, np.nan)
        return np.split(means, np.cumsum(self.lengths)[:-1])


class AnomalyDetector(NetworkTask):
    """Finds rows that a network did not expect.

    A row's score is the root of its mean squared error over channels, each divided by its root mean squared error on
    validation rows, averaged over all windows that hold the row. With "forecast" a window's last rows are forecast from
    those before them; with "reconstruction" stretches of rows are hidden in turn and rebuilt from what lies on both
    sides, so that no network can simply copy its input. The threshold is taken from the scores of the validation part:
    neither labels nor test rows reach it. Precision, recall and F1 of rows, PR-AUC and VUS (PVLDB 15(11), 2022) are
    measured where labels are known; F1 after point adjustment is called so. The same numbers for the errors of the
    seasonal naive forecast stand beside every test.

    Args:
        backbone: a registered forecaster, or a class or function called with `context`, `horizon` and `outputs`.
        score_by: "forecast" or "reconstruction".
        threshold: "quantile" of the validation scores, or "pot": a Pareto tail fitted to the highest of them.
        level: of the quantile; of "pot" the quantile above which the tail begins.
        risk: share of normal rows that "pot" lets be flagged.
        smoothing: rows, up to its own, over which a row's score is averaged.
        **network: see quintet.core.learning.network_task.NetworkTask.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit, a level or risk that is
            none.
    """

    description_type: ClassVar[type] = SeriesDescription
    kind: ClassVar[Kind] = Kind("timeseries", "an anomaly detector", "itransformer")
    fixed: ClassVar[frozenset[str]] = NetworkTask.fixed | {"score_by", "threshold", "level", "risk", "smoothing"}

    def __init__(
        self,
        backbone: str | Backbone = "itransformer",
        backbone_arguments: dict[str, Any] | None = None,
        score_by: Literal["forecast", "reconstruction"] = "forecast",
        threshold: Rule = "quantile",
        level: float = 0.99,
        risk: float = 1e-3,
        smoothing: int = 1,
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        if not 0 < level < 1:
            raise QuintetError(f"model.level is {level}; a quantile lies between 0 and 1, e.g. 0.99")
        if threshold == "pot" and not 0 < risk < 1 - level:
            raise QuintetError(f"model.risk is {risk}; with model.level={level} it lies between 0 and {1 - level:.3g}")
        if smoothing < 1:
            raise QuintetError(f"model.smoothing is {smoothing}; give at least 1 row")
        self.score_by = score_by
        self.rule, self.level, self.risk = threshold, level, risk
        self.smoothing = smoothing

    # Building

    def make(self, description: SeriesDescription) -> None:
        known = description
        whole = known.context + known.horizon
        sizes = (known.context, known.horizon) if self.score_by == "forecast" else (whole, whole)
        own = {"context": sizes[0], "horizon": sizes[1], "outputs": 1}
        if self.accepts("channels"):
            own["channels"] = len(known.channels)
        self.network = self.build_network(own)
        # In the checkpoint, of the model and of the baseline; NaN until rows were validated.
        for name in (MODEL, BASELINE):
            self.register_buffer(f"{name}_scale", torch.full((len(known.channels),), torch.nan, dtype=torch.float64))
            self.register_buffer(f"{name}_threshold", torch.tensor(torch.nan, dtype=torch.float64))

    def metrics(self) -> MetricCollection:
        return collection({"mae": AbsoluteError(), "mse": SquaredError()})

    # Steps

    def forward(
        self, values: Float[Tensor, "batch time channels"], seen: Bool[Tensor, "batch time channels"]
    ) -> Float[Tensor, "batch steps channels"]:
        """What the network expects, from the cells that are seen; what stands at the others changes nothing."""
        return self.network(values.masked_fill(~seen, 0.0), seen, None).squeeze(-1)

    def step(self, batch: Windows) -> AnomalyStep:
        if self.score_by == "forecast":
            observed = batch.context.isfinite()
            predictions, starts = self(batch.context, observed), batch.position
            # A channel of which a window shows nothing cannot be forecast.
            targets = batch.target.masked_fill(~observed.any(1, keepdim=True), torch.nan)
        else:
            predictions, targets = self._rebuilt(torch.cat([batch.context, batch.target], dim=1))
            starts = batch.position - self.description.context
        counted = targets.isfinite()
        errors = (predictions - targets.nan_to_num(0.0)).square().masked_fill(~counted, 0.0)
        loss = errors.sum() / counted.sum().clamp(min=1)
        baseline = seasonal_naive(batch.context, self.description.horizon, self.description.period)
        return AnomalyStep(loss, predictions.detach().unsqueeze(-1), targets, baseline, batch.target, starts)

    def _rebuilt(self, values: Float[Tensor, "batch time channels"]) -> tuple[Tensor, Tensor]:
        """Windows rebuilt where rows were hidden, and the targets, NaN elsewhere.

        Training hides one stretch of rows of each window at random; else all rows are hidden, a stretch at a time.
        """
        observed, length, hidden = values.isfinite(), values.shape[1], self.description.horizon
        steps = torch.arange(length, device=values.device)
        if self.training:
            begins = torch.randint(length - hidden + 1, (len(values), 1), device=values.device)
            chosen = ((steps >= begins) & (steps < begins + hidden)).unsqueeze(-1)
            return self(values, observed & ~chosen), values.masked_fill(~(chosen & observed), torch.nan)
        rebuilt = torch.zeros_like(values)
        for begin in range(0, length, hidden):
            rows = slice(begin, begin + hidden)
            chosen = ((steps >= begin) & (steps < begin + hidden))[:, None]
            rebuilt[:, rows] = self(values, observed & ~chosen)[:, rows]
        return rebuilt, values

    # Errors of rows, from which validation takes the threshold and the test its scores

    def _collect(self) -> dict[str, RowErrors]:
        lengths = [len(series.values) for series in self.trainer.datamodule.usable().series]
        device = self.model_scale.device
        return {name: RowErrors(lengths, len(self.description.channels), device) for name in (MODEL, BASELINE)}

    def on_validation_epoch_start(self) -> None:
        self.rows = self._collect()

    def on_test_epoch_start(self) -> None:
        self.rows = self._collect()
        self._refuse_untrained()

    def validation_step(self, batch: Windows, batch_index: int) -> None:
        self._take(batch, self.evaluate(batch, "val"))

    def test_step(self, batch: Windows, batch_index: int) -> None:
        self._take(batch, self.evaluate(batch, "test"))

    def _take(self, batch: Windows, result: AnomalyStep) -> None:
        self.rows[MODEL].add(batch.series, result.starts, (result.predictions.squeeze(-1) - result.targets).square())
        self.rows[BASELINE].add(batch.series, batch.position, (result.baseline - result.baseline_targets).square())

    def on_validation_epoch_end(self) -> None:
        for name, rows in self.rows.items():
            errors = self._of_part(rows.reduced(self.all_gather), "val")
            scale = np.sqrt(np.nanmean(np.concatenate(errors), axis=0))
            if not np.isfinite(scale).all():
                channel = self.description.channels[int((~np.isfinite(scale)).argmax())]
                raise QuintetError(
                    f"'{channel}' has no number in the validation rows; leave it out, or change data.split"
                )
            # A channel that is always forecast exactly would make any error infinite.
            getattr(self, f"{name}_scale").copy_(torch.from_numpy(np.maximum(scale, 1e-8)))
            scores = np.concatenate(self.scores(errors, name))
            getattr(self, f"{name}_threshold").fill_(threshold_of(scores, self.rule, self.level, self.risk))

    def _of_part(self, errors: list[np.ndarray], part: str) -> list[np.ndarray]:
        """Errors of the rows of one part: a reconstruction also has those of the context before it."""
        found = []
        for one, rows in zip(errors, self.trainer.datamodule.rows, strict=True):
            kept = np.full_like(one, np.nan)
            kept[slice(*rows[part])] = one[slice(*rows[part])]
            found.append(kept)
        return found

    def scores(self, errors: list[np.ndarray], name: str = MODEL) -> list[np.ndarray]:
        """Score of each row of each series from its squared errors (T, C), NaN where it was never forecast."""
        scale, found = getattr(self, f"{name}_scale").cpu().numpy(), []
        for one in errors:
            scaled = one / scale**2
            count = np.isfinite(scaled).sum(1)
            score = np.sqrt(np.nansum(scaled, axis=1) / np.where(count, count, np.nan))
            if self.smoothing > 1:
                score = pd.Series(score).rolling(self.smoothing, min_periods=1).mean().where(count > 0).to_numpy()
            found.append(score)
        return found

    def _refuse_untrained(self) -> None:
        if not bool(self.model_threshold.isfinite()):
            raise QuintetError("this checkpoint has no threshold: it was written before anything was validated")

    # The test, with its baseline

    def on_test_epoch_end(self) -> None:
        truth = self.trainer.datamodule.truth
        self.found: dict[str, list[np.ndarray]] = {}
        for name, rows in self.rows.items():
            self.found[name] = self.scores(self._of_part(rows.reduced(self.all_gather), "test"), name)
            postfix = "" if name == MODEL else f"_{name}"
            threshold = float(getattr(self, f"{name}_threshold"))
            measured = measure(self.found[name], truth, threshold, self.description.period)
            if name == BASELINE:
                measured.pop("anomalous", None)  # a fact of the data, said once
            self.log_dict({f"test/{key}{postfix}": value for key, value in measured.items() if np.isfinite(value)})

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if not hasattr(self, "found") or self._trainer is None:
            return
        data = self.trainer.datamodule
        rows = [range(*parts["test"]) for parts in data.rows]
        yield "anomalies", anomaly_panels(self._panels(data, self.found[MODEL], rows, data.truth), "test rows")

    def _panels(
        self, data: AnomalyData, scores: list[np.ndarray], rows: list[range], truth: list[np.ndarray] | None
    ) -> list[AnomalyPanel]:
        """What to draw of the series with the highest scores."""
        found, threshold = data.usable(), float(self.model_threshold)
        highest = [np.nanmax(one, initial=-1.0) for one in scores]
        panels = []
        shown = [number for number in np.argsort(highest)[::-1].tolist() if len(rows[number])][:SERIES]
        for number in sorted(shown):
            series, own = found.series[number], slice(rows[number].start, rows[number].stop)
            panels.append(
                AnomalyPanel(
                    title=series.name or found.where.rsplit("/", 1)[-1],
                    stamps=series.stamps[own],
                    values=series.values[own],
                    channels=found.channels,
                    scores=scores[number][own],
                    threshold=threshold,
                    truth=None if truth is None else truth[number][own] > 0,
                )
            )
        return panels

    # Prediction

    def predict_step(self, batch: Windows, batch_index: int) -> RowErrorsOfWindows:
        result = self.step(batch)
        errors = (result.predictions.squeeze(-1) - result.targets).square()
        return RowErrorsOfWindows(batch.series.tolist(), result.starts.tolist(), errors.cpu())

    @command
    def predict(self, data: AnomalyData, trainer: L.Trainer, folder: Path, output: str | None = None) -> list[Path]:
        """Scores all rows of the user's series that have a context before them, and flags those above the threshold.

        The table has a column of stamps, one of names, score, threshold, anomaly (empty where a row has no score), and
        with several channels the one that was expected least.

        Args:
            data: the series.
            trainer: runs the network.
            folder: for the table, unless `output` says otherwise, and for a picture.
            output: file to write: .csv or .parquet.

        Raises QuintetError for series shorter than a window, and where a file would be overwritten.
        """
        self._refuse_untrained()
        table = Path(output) if output else folder / "anomalies.csv"
        picture = table.with_name(table.name.split(".")[0] + ".png")
        tables.check_ending(table, (".csv", ".parquet"))
        tables.check_targets([table, picture])
        layout = tables.layout_of(data, range(len(data.usable().series)))
        tables.refuse_taken(layout, ("score", "threshold", "anomaly", "channel"))
        results: list[RowErrorsOfWindows] = trainer.predict(self, datamodule=data)
        found, known = data.usable(), self.description
        rows = RowErrors([len(series.values) for series in found.series], len(known.channels))
        for result in results:
            rows.add(torch.tensor(result.series), torch.tensor(result.starts), result.errors)
        errors = rows.reduced(lambda part: part)
        scores, threshold = self.scores(errors), float(self.model_threshold)
        scale, blocks = self.model_scale.cpu().numpy(), []
        for number, (series, score) in enumerate(zip(found.series, scores, strict=True)):
            scored = np.isfinite(score)
            columns = {name: found.labels[name].iloc[number] for name in found.labels}
            columns |= {found.time: series.stamps, "score": score, "threshold": threshold}
            columns["anomaly"] = pd.array(np.where(scored, score > threshold, None), dtype="boolean")
            if len(known.channels) > 1:
                worst = np.nan_to_num(errors[number] / scale**2, nan=-1.0).argmax(1)
                columns["channel"] = [
                    known.channels[at] if has else None for at, has in zip(worst, scored, strict=True)
                ]
            blocks.append(pd.DataFrame(columns))
        tables.write_frame(table, pd.concat(blocks, ignore_index=True))
        everything = [range(len(score)) for score in scores]
        tables.write_picture(picture, anomaly_panels(self._panels(data, scores, everything, None), "all rows"))
        return [table, picture]


def measure(
    scores: list[np.ndarray], truth: list[np.ndarray] | None, threshold: float, period: int
) -> dict[str, float]:
    """Everything that is measured of the scores of rows; NaN in scores and truth stands for what is not known.

    Flags and PR-AUC are of the rows of all series together; VUS is the mean over the series that have anomalies. PR-AUC
    of a score that knows nothing is `anomalous`, the share of the rows.

    Args:
        scores: of each series.
        truth: 1 where a row is anomalous; None where that is not known.
        threshold: above which a row is flagged.
        period: steps in a season; buffers of VUS have at most as many rows, and as anomalies have in the mean.
    """
    known = [np.isfinite(one) if truth is None else np.isfinite(one + own) for one, own in zip(scores, truth or scores)]
    kept = [one[rows] for one, rows in zip(scores, known, strict=True)]
    flags = [one > threshold for one in kept]
    every = np.concatenate(flags)
    measured = {"flagged": float(every.mean()) if len(every) else float("nan")}
    if truth is None:
        return measured
    labels = [own[rows] > 0 for own, rows in zip(truth, known, strict=True)]
    right = np.concatenate(labels)
    if not len(right):
        return measured
    measured |= point_scores(every, right) | {"anomalous": float(right.mean())}
    adjusted = np.concatenate([point_adjusted(one, own) for one, own in zip(flags, labels, strict=True)])
    measured["point_adjusted_f1"] = point_scores(adjusted, right)["f1"]
    if right.any():
        # Here, because forecasters, whose file is read along with this one, would wait for it.
        from sklearn.metrics import average_precision_score

        measured["pr_auc"] = float(average_precision_score(right, np.concatenate(kept)))
        pairs = zip(kept, labels, strict=True)
        volumes = [
            volume_under_surface(one, own, largest_buffer(own, period))
            for one, own in pairs
            if own.any() and not own.all()
        ]
        if volumes:
            measured["vus_roc"], measured["vus_pr"] = map(float, np.mean(volumes, axis=0))
    return measured
