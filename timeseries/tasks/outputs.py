"""What the commands of a forecaster write: tables, arrays and pictures, none of which replaces another file."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch

from ...core.learning.task import Task
from ...core.writing.console import Console
from ..data import SeriesData
from ..pictures import SHOWN, error_by_step, forecast_panels
from . import backtest, tables
from .panels import future_panels, panels_of


def write_future(
    task: Task,
    data: SeriesData,
    trainer: L.Trainer,
    folder: Path,
    horizon: int,
    levels: Sequence[float],
    output: str | None,
) -> list[Path]:
    """Forecasts of the steps after the last stamp of each series: a table or array, and a picture.

    Raises QuintetError for an ending that names no kind of file, and where one would be overwritten.
    """
    table = Path(output) if output else folder / "forecast.csv"
    picture = table.with_name(table.name.split(".")[0] + ".png")
    tables.check_ending(table, (*tables.TABLES, *tables.ARRAYS))
    tables.check_targets([table, picture])
    known, layout = task.description, tables.layout_of(data, range(len(data.usable().series)))
    columns = [f"{name} {tables.quantile_name(q)}" for name in known.channels for q in levels] or known.channels
    dimensions = ["step", *(["quantile"] if levels else []), *known.channels]
    tables.refuse_taken(layout, dimensions if table.suffix in tables.ARRAYS else columns)
    results = trainer.predict(task, datamodule=data)
    values = torch.cat([result.values for result in results])[:, :horizon]
    kept = [task.quantiles.index(level) for level in levels] or [task.point]
    numbers = [number for result in results for number in result.series]
    stamps = [data.stamps(number, horizon)[-horizon:] for number in numbers]
    tables.write_forecast(table, tables.layout_of(data, numbers), stamps, values[..., kept].numpy(), levels)
    panels = future_panels(task, data, horizon)
    tables.write_picture(picture, forecast_panels(panels, f"the {horizon} steps after the last stamp", task.quantiles))
    _say_notes(data)
    return [table, picture]


def write_backtest(
    task: Task, data: SeriesData, folder: Path, cutoffs: int, step: int | None, output: str | None
) -> list[Path]:
    """Forecasts from moments of the past beside the baselines: tables or arrays, scores, and two pictures.

    Raises QuintetError where the rows do not suffice, for an ending that names no kind of file, and where one would be
    overwritten.
    """
    table = Path(output) if output else folder / "backtest.parquet"
    stem = table.name.split(".")[0]
    scores = table.with_name(f"{stem}_scores.csv")
    pictures = [table.with_name(f"{stem}_{name}.png") for name in ("forecasts", "error_by_step")]
    tables.check_ending(table, (*tables.TABLES, *tables.ARRAYS))
    tables.check_targets([table, scores, *pictures])
    layout = tables.layout_of(data, range(len(data.usable().series)))
    tables.refuse_taken(layout, backtest.columns_of(task.quantiles))
    positions = backtest.cutoffs_of(data, task.description, cutoffs, step)
    outcomes = backtest.outcomes_of(task, data, positions)
    frame = backtest.frame_of(data, positions, outcomes, task.quantiles)
    if table.suffix in tables.ARRAYS:
        tables.write_dataset(table, backtest.arrays_of(frame, layout, task.quantiles))
    else:
        tables.write_frame(table, frame)
    scored = backtest.scores_of(data, positions, outcomes, task.quantiles)
    tables.write_frame(scores, scored)
    Console().print(backtest.summary(scored, cutoffs, len(positions)))
    _say_notes(data)
    last = {name: values[:, -1] for name, values in outcomes.items()}
    panels = [
        panel
        for number, places in enumerate(positions[:SHOWN].tolist())
        for panel in panels_of(task, data, last, number, number, places[-1])
    ]
    total = len(positions) * len(task.description.channels)
    title = "the last cutoff" + (f", the first {SHOWN} of {total}" if total > SHOWN else "")
    tables.write_picture(pictures[0], forecast_panels(panels[:SHOWN], title, task.quantiles))
    figure = error_by_step(backtest.errors_by_step(outcomes), "mean absolute scaled error")
    tables.write_picture(pictures[1], figure)
    return [table, scores, *pictures]


def _say_notes(data: SeriesData) -> None:
    """Says what of the files was masked: a command has no table that would."""
    for note in data.unseen:
        Console(markup=False, soft_wrap=True).print(f"note: {note}", highlight=False)
