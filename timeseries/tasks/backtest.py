"""Backtests: what a model would have forecast at moments of the past that it has not seen, beside the baselines."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr
from rich.table import Table

from ...core.errors import QuintetError
from ...core.learning.task import Task
from ..data import SeriesData, SeriesDescription, WindowDataset
from ..metrics.scores import point_scores, quantile_scores, seasonal_scales
from ..models.baselines import seasonal_naive
from .tables import Layout, attach_labels, quantile_name

BASELINES = ("ridge", "seasonal_naive")
MODEL = "model"  # what the forecast is called beside its baselines
FORECAST = "forecast"  # the point of it, in tables

Outcomes = dict[str, np.ndarray]  # (series, cutoffs, steps, channels), of the model with its outputs last


def cutoffs_of(data: SeriesData, description: SeriesDescription, cutoffs: int, step: int | None) -> np.ndarray:
    """First forecast rows (series, cutoffs), rising; the last leaves a whole horizon in the data.

    Raises QuintetError where a target would lie in rows the model was trained or selected on.
    """
    horizon, context = description.horizon, description.context
    for name, value in (("cutoffs", cutoffs), ("step", 1 if step is None else step)):
        if value < 1:
            raise QuintetError(f"{name} is {value}; give at least 1")
    series = data.usable().series
    first = [max(context, _unseen(data, number, description)) for number in range(len(series))]
    last = [len(one.values) - horizon for one in series]
    tightest = min(range(len(series)), key=lambda number: last[number] - first[number])
    room = last[tightest] - first[tightest]
    if step is None:
        step = max(1, min(horizon, room // max(1, cutoffs - 1)))
    if room < (cutoffs - 1) * step:
        label = f"series '{series[tightest].name}'" if series[tightest].name else data.usable().where
        rows = max(0, len(series[tightest].values) - first[tightest])
        most = max(0, room // step + 1) if room >= 0 else 0
        remedy = f"give cutoffs={most}" if most else "give newer rows"
        raise QuintetError(
            f"{label} has {rows} rows to test on after those the model has seen, {cutoffs} cutoffs {step} apart with a "
            f"horizon of {horizon} need {(cutoffs - 1) * step + horizon}; {remedy}"
        )
    positions = np.array([[end - step * back for back in reversed(range(cutoffs))] for end in last])
    for one, places in zip(series, positions, strict=True):
        for place in places:
            data.refuse_blind(one, int(place))
    return positions


def _unseen(data: SeriesData, number: int, description: SeriesDescription) -> int:
    """The first row of a series after those of training and validation; 0 for a series the model does not know."""
    seen = description.seen_until.get(data.usable().series[number].name)
    if seen is None:
        return 0
    stamps = data.stamps(number)
    if not isinstance(stamps, pd.DatetimeIndex):
        return int(seen) + 1
    stamp = pd.Timestamp(seen)
    if stamps.tz is not None:
        stamp = stamp.tz_localize(stamps.tz) if stamp.tz is None else stamp.tz_convert(stamps.tz)
    return int(stamps.searchsorted(stamp.tz_localize(None) if stamps.tz is None and stamp.tz else stamp, side="right"))


def windows_at(data: SeriesData, positions: np.ndarray) -> WindowDataset:
    """Windows of all cutoffs, those of one cutoff side by side; errors are scaled by the rows before the first."""
    count, cutoffs = positions.shape
    numbers = np.tile(np.arange(count), cutoffs)
    return data.windows(numbers, positions.T.ravel(), positions[:, 0].tolist(), data.description().horizon)


def outcomes_of(task: Task, data: SeriesData, positions: np.ndarray) -> Outcomes:
    """What a forecaster and the baselines forecast at each cutoff, beside context and truth, in the user's units."""
    count, cutoffs = positions.shape
    dataset, found = windows_at(data, positions), []
    for cutoff in range(cutoffs):
        # Every series of one cutoff is one batch.
        found.append(task.outcome(dataset.__getitems__(range(cutoff * count, (cutoff + 1) * count))))
    outcomes = {name: np.stack([one[name] for one in found], axis=1) for name in found[0]}
    return outcomes | _as_observed(data, positions) | {FORECAST: outcomes[MODEL][..., task.point]}


def _as_observed(data: SeriesData, positions: np.ndarray) -> Outcomes:
    """Context and truth of each cutoff to the bit, and the last season of it; windows hold them scaled, in float32."""
    known, series = data.description(), data.usable().series

    def cut(first: int, end: int) -> np.ndarray:
        own = zip(series, positions, strict=True)
        return np.stack(
            [np.stack([one.values[place + first : place + end] for place in places]) for one, places in own]
        )

    context = cut(-known.context, 0)
    naive = seasonal_naive(torch.from_numpy(context).flatten(0, 1), known.horizon, known.period)
    return {
        "context": context,
        "truth": cut(0, known.horizon),
        "seasonal_naive": naive.unflatten(0, positions.shape).numpy(),
    }


def columns_of(levels: Sequence[float]) -> list[str]:
    """What the tables of a backtest have of themselves, beside the columns of names and stamps."""
    own = ["cutoff", "step", "channel", "truth", FORECAST, "quantile", "quantiles", "units", "forecaster", "skill"]
    scores = ["mae", "mse", "rmse", "smape", "mase", "rmsse", "pinball", "wql", "coverage", "width"]
    return [*own, *BASELINES, *scores, *map(quantile_name, levels)]


def frame_of(data: SeriesData, positions: np.ndarray, outcomes: Outcomes, levels: Sequence[float]) -> pd.DataFrame:
    """One row for each series, cutoff, channel and step, in the user's own units; cutoff is the last stamp seen."""
    known, (labels, _) = data.description(), data.labels()
    count, cutoffs, horizon, channels = outcomes["truth"].shape
    at_series, at_cutoff, at_channel, at_step = np.indices((count, cutoffs, channels, horizon)).reshape(4, -1)
    stamps = [data.stamps(number) for number in range(count)]
    seen = _joined([own[places - 1] for own, places in zip(stamps, positions, strict=True)])
    come = _joined([own[place : place + horizon] for own, places in zip(stamps, positions) for place in places])
    places = at_series * cutoffs + at_cutoff
    found = {name: labels[name].to_numpy()[at_series] for name in labels}
    found |= {"cutoff": seen[places], "step": at_step + 1, known.time: come[places * horizon + at_step]}
    found["channel"] = np.array(known.channels)[at_channel]
    for name in ("truth", FORECAST):
        found[name] = outcomes[name].swapaxes(2, 3).ravel()
    for output, level in enumerate(levels):
        found[quantile_name(level)] = outcomes[MODEL][..., output].swapaxes(2, 3).ravel()
    return pd.DataFrame(found | {name: outcomes[name].swapaxes(2, 3).ravel() for name in BASELINES})


def _joined(indices: Sequence[pd.Index]) -> pd.Index:
    return indices[0].append(list(indices[1:]))


def arrays_of(frame: pd.DataFrame, layout: Layout, levels: Sequence[float]) -> xr.Dataset:
    """The table of `frame_of` as labelled arrays over what tells the series apart, cutoff, step and channel.

    Stamps are a coordinate over cutoff and step, in UTC where they had a time zone, of which NetCDF knows none.
    """
    frame = frame.copy()
    for name in ("cutoff", layout.time):
        if getattr(frame[name].dtype, "tz", None) is not None:
            frame[name] = frame[name].dt.tz_convert("UTC").dt.tz_localize(None)
    axes = [*layout.labels, "cutoff", "step", "channel"]
    stamps = frame.groupby(["cutoff", "step"])[layout.time].first().to_xarray()
    found = frame.drop(columns=layout.time).set_index(axes).to_xarray().reindex(channel=list(layout.channels))
    if levels:
        quantiles = [found[quantile_name(level)] for level in levels]
        found = found.drop_vars([quantile_name(level) for level in levels])
        found["quantiles"] = xr.concat(quantiles, pd.Index(list(levels), name="quantile")).transpose(*axes, "quantile")
    found = found.assign_coords({layout.time: stamps, "units": ("channel", list(layout.units))})
    return attach_labels(found, layout)


def scores_of(data: SeriesData, positions: np.ndarray, outcomes: Outcomes, levels: Sequence[float]) -> pd.DataFrame:
    """Errors of the forecast and of each baseline over all cutoffs and steps, series by series, channel by channel.

    Scaled errors are divided by what the rows before the first cutoff say. Coverage and width are of the outermost
    quantiles, skill is 1 - MAE / MAE of the seasonal naive.
    """
    known, (labels, _), rows = data.description(), data.labels(), []
    for number, one in enumerate(data.usable().series):
        scales = seasonal_scales(one.values[: positions[number, 0]], known.period)
        for at, channel in enumerate(known.channels):
            truth = outcomes["truth"][number, :, :, at].ravel()
            found = {
                name: point_scores(truth, outcomes[name][number, :, :, at].ravel(), scales[0][at], scales[1][at])
                for name in (FORECAST, *BASELINES)
            }
            if levels:
                quantiles = outcomes[MODEL][number, :, :, at].reshape(len(truth), -1)
                found[FORECAST] |= quantile_scores(truth, quantiles, levels)
            naive = found["seasonal_naive"]["mae"]
            for name, scores in found.items():
                skill = 1 - scores["mae"] / naive if naive > 0 else np.nan
                label = {column: labels[column].iloc[number] for column in labels}
                rows.append(label | {"channel": channel, "forecaster": name} | scores | {"skill": skill})
    return pd.DataFrame(rows)


def summary(scores: pd.DataFrame, cutoffs: int, series: int) -> Table:
    """Scale-free errors of the forecast beside those of the baselines, averaged over series and channels.

    Skill, and the share of channels won, are against the seasonal naive forecast.
    """
    table = Table(title=f"{cutoffs} cutoffs of {series} series", title_justify="left", box=None, pad_edge=False)
    table.add_column("forecaster", no_wrap=True)
    columns = {"MASE": "mase", "RMSSE": "rmsse", "sMAPE %": "smape", "wQL": "wql", "coverage": "coverage"}
    columns = {title: name for title, name in columns.items() if name in scores}
    for title in (*columns, "skill", "channels won"):
        table.add_column(title, justify="right")
    naive = scores[scores["forecaster"] == "seasonal_naive"]["mae"].to_numpy()
    for name, block in scores.groupby("forecaster", sort=False):
        numbers = [f"{block[column].mean():.3f}" if block[column].notna().any() else "-" for column in columns.values()]
        skill, wins = f"{block['skill'].mean():.3f}", f"{np.mean(block['mae'].to_numpy() < naive):.0%}"
        further = ["-", "-"] if name == "seasonal_naive" else [skill, wins]
        table.add_row(str(name).replace("_", " "), *numbers, *further)
    return table


def errors_by_step(outcomes: Outcomes) -> dict[str, np.ndarray]:
    """Mean absolute error of each step, channels brought to one scale by the mean error of the seasonal naive.

    A channel that it forecasts without error has no such scale and is left out; where all are such, units stay.
    """
    errors = {name: np.abs(outcomes["truth"] - outcomes[name]) for name in (FORECAST, *BASELINES)}
    scale = np.nanmean(errors["seasonal_naive"], axis=(1, 2), keepdims=True)
    scale = np.where(scale > 0, scale, np.nan if (scale > 0).any() else 1.0)
    return {
        MODEL if name == FORECAST else name: np.nanmean(error / scale, axis=(0, 1, 3)) for name, error in errors.items()
    }
