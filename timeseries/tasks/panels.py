"""What is drawn of a forecaster's windows: a panel for each channel, with names, units and stamps."""

import numpy as np

from ...core.learning.task import Task
from ..data import SeriesData
from ..data.stamps import shown
from ..pictures import SHOWN, Panel
from .backtest import BASELINES, MODEL


def panels_of(
    task: Task, data: SeriesData, outcome: dict[str, np.ndarray], window: int, series: int, position: int
) -> list[Panel]:
    """What to draw of one window, channel by channel.

    Args:
        task: a forecaster.
        data: names, stamps and units of the series.
        outcome: of several windows, see `Forecaster.outcome`.
        window: which of them.
        series: number of its series.
        position: its first target row there.
    """
    known = task.description
    horizon = outcome[MODEL].shape[1]
    stamps = data.stamps(series, horizon)[position - known.context : position + horizon]
    name, seen = data.usable().series[series].name, shown(stamps[known.context - 1])
    baselines = [baseline for baseline in BASELINES if baseline in outcome]
    return [
        Panel(
            title=f"{name} {channel} after {seen}".strip(),
            unit=unit,
            stamps=stamps,
            context=outcome["context"][window, :, number],
            truth=outcome["truth"][window, :, number],
            forecast=outcome[MODEL][window, :, number, task.point],
            quantiles=outcome[MODEL][window, :, number].T if task.quantiles else None,
            baselines={baseline: outcome[baseline][window, :, number] for baseline in baselines},
        )
        for number, (channel, unit) in enumerate(zip(known.channels, data.units(), strict=True))
    ]


def future_panels(task: Task, data: SeriesData, horizon: int) -> list[Panel]:
    """What to draw of the steps after the last stamp of each series, of as many as are shown."""
    dataset = data.datasets["predict"]
    batch = dataset.__getitems__(range(min(len(dataset), SHOWN)))
    # Truth and forecasts are cut, or go on unknown, to what was asked for; the context is not.
    outcome = {
        name: values if name == "context" else _reached(values, horizon) for name, values in task.outcome(batch).items()
    }
    places = enumerate(zip(batch.series.tolist(), batch.position.tolist(), strict=True))
    return [panel for window, place in places for panel in panels_of(task, data, outcome, window, *place)][:SHOWN]


def _reached(values: np.ndarray, horizon: int) -> np.ndarray:
    """The first `horizon` steps, NaN where there are fewer."""
    missing = max(0, horizon - values.shape[1])
    padding = [(0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2)]
    return np.pad(values[:, :horizon], padding, constant_values=np.nan)
