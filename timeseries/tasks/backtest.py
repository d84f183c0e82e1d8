"""Backtests: what a model would have forecast at moments of the past that it has not seen, beside the baselines."""

import numpy as np
import pandas as pd
from rich.table import Table

from ...core.errors import QuintetError
from ..data import SeriesData, SeriesDescription, WindowDataset
from .tables import quantile_name

BASELINES = ("ridge", "seasonal_naive")
FORECAST = "forecast"


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


def frame_of(
    data: SeriesData,
    description: SeriesDescription,
    positions: np.ndarray,
    outcomes: list[dict[str, np.ndarray]],
    point: int,
    quantiles: list[float],
) -> pd.DataFrame:
    """One row for each series, cutoff, step and channel, in the user's own units; cutoff is the last stamp seen."""
    known, blocks = description, []
    horizon = known.horizon
    for cutoff, outcome in enumerate(outcomes):
        for number, place in enumerate(positions[:, cutoff]):
            stamps = data.stamps(number)
            for at, channel in enumerate(known.channels):
                block = {known.series or "series": data.usable().series[number].name, "cutoff": stamps[place - 1]}
                block |= {"step": np.arange(1, horizon + 1), known.time: stamps[place : place + horizon]}
                block |= {"channel": channel, "truth": outcome["truth"][number, :, at]}
                block[FORECAST] = outcome["model"][number, :, at, point]
                block |= {
                    quantile_name(level): outcome["model"][number, :, at, output]
                    for output, level in enumerate(quantiles)
                }
                block |= {baseline: outcome[baseline][number, :, at] for baseline in BASELINES}
                blocks.append(pd.DataFrame(block))
    return pd.concat(blocks, ignore_index=True)


def scores_of(frame: pd.DataFrame, seasonal_error: np.ndarray, data: SeriesData) -> pd.DataFrame:
    """Errors of the forecast and of each baseline over all cutoffs and steps, series by series, channel by channel.

    Args:
        frame: of `frame_of`.
        seasonal_error: (series, channels) in the user's own units, of the rows before the first cutoff.
        data: names of the series and channels.
    """
    found = data.usable()
    series_column = frame.columns[0]
    rows = []
    for (name, channel), block in frame.groupby([series_column, "channel"], sort=False):
        number = next(at for at, one in enumerate(found.series) if one.name == name)
        scale = seasonal_error[number, found.channels.index(channel)]
        for forecaster in (FORECAST, *BASELINES):
            errors = (block["truth"] - block[forecaster]).abs()
            size = block["truth"].abs() + block[forecaster].abs()
            rows.append(
                {
                    series_column: name,
                    "channel": channel,
                    "forecaster": forecaster,
                    "mae": errors.mean(),
                    "rmse": float(np.sqrt((errors**2).mean())),
                    "smape": (200 * errors / size.where(size > 0, 1.0)).mean(),
                    "mase": errors.mean() / scale if scale > 0 else np.nan,
                }
            )
    return pd.DataFrame(rows)


def summary(scores: pd.DataFrame, cutoffs: int, series: int) -> Table:
    """Scale-free errors of the forecast beside those of the baselines, averaged over series and channels."""
    table = Table(title=f"{cutoffs} cutoffs of {series} series", title_justify="left")
    table.add_column("forecaster")
    for column in ("MASE", "sMAPE %", "better than seasonal naive"):
        table.add_column(column, justify="right")
    means = scores.groupby("forecaster", sort=False)[["mase", "smape"]].mean()
    naive = scores[scores["forecaster"] == "seasonal_naive"]["mase"].to_numpy()
    for name, row in means.iterrows():
        own = scores[scores["forecaster"] == name]["mase"].to_numpy()
        wins = f"{np.mean(own < naive):.0%} of channels" if name != "seasonal_naive" else "-"
        table.add_row(str(name).replace("_", " "), f"{row['mase']:.3f}", f"{row['smape']:.2f}", wins)
    return table


def errors_by_step(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Mean absolute error of each step, channels brought to one scale by the mean error of the seasonal naive."""
    errors = {name: (frame["truth"] - frame[name]).abs() for name in (FORECAST, *BASELINES)}
    keys = [frame[frame.columns[0]], frame["channel"]]
    scale = errors["seasonal_naive"].groupby(keys).transform("mean")
    scale = scale.where(scale > 0)
    return {
        "model" if name == FORECAST else name: (error / scale).groupby(frame["step"]).mean().to_numpy()
        for name, error in errors.items()
    }
