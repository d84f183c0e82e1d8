"""What a person reads before training: series, spans, parts, channels and problems of a table in time."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from ...core.data.problems import SHOWN, problems_table
from ...core.data.report import stacked
from .examine import Examination
from .splits import Rows
from .stamps import shown
from .windows import SeriesDescription


def report(
    found: Examination,
    roles: Mapping[str, Sequence[str]],
    rows: Sequence[Rows] | None = None,
    windows: Mapping[str, int] | None = None,
    description: SeriesDescription | None = None,
    remarks: Sequence[str] = (),
    purpose: str = "",
) -> Table:
    """The findings of an examination as tables in one column; without parts where faults stand in the way.

    Args:
        found: what was found.
        roles: names of the covariates of each role.
        rows: of each part, series by series.
        windows: number of windows of each part.
        description: what a model is told of the data.
        remarks: more of what is not wrong but worth knowing.
        purpose: what a model sees of a window and does with it.
    """
    return stacked(
        Text(found.where, style="bold"),
        _facts(found, description, purpose),
        _parts(found, rows, windows) if rows else None,
        _columns(found, roles),
        problems_table(found.faults, [*found.remarks, *remarks, *(_unused(found, rows, description) if rows else [])]),
    )


def _facts(found: Examination, description: SeriesDescription | None, purpose: str) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("rows", f"{found.rows:,}")
    if found.series:
        lengths = [len(series.values) for series in found.series]
        many = f"{len(lengths):,}, named in '{found.id}', of {min(lengths):,} to {max(lengths):,} steps"
        table.add_row("series", many if found.id else "1")
        first, last = (pick(series.stamps[at] for series in found.series) for pick, at in ((min, 0), (max, -1)))
        table.add_row(found.time, f"{shown(first)} to {shown(last)}")
    table.add_row("step", found.frequency or "row")
    if description:
        table.add_row("season", f"{description.period} steps" if description.period > 1 else "none")
        table.add_row("model", purpose)
    return table


def _parts(found: Examination, rows: Sequence[Rows], windows: Mapping[str, int]) -> Table:
    table = Table("part", box=None, pad_edge=False, header_style="bold")
    for column in ("rows", "windows"):
        table.add_column(column, justify="right")
    table.add_column("from")
    table.add_column("to")
    for part, count in windows.items():
        spans = [
            (series, one[part]) for series, one in zip(found.series, rows, strict=True) if one[part][1] > one[part][0]
        ]
        total = sum(end - begin for _, (begin, end) in spans)
        first = shown(min(series.stamps[begin] for series, (begin, _) in spans)) if spans else "-"
        last = shown(max(series.stamps[end - 1] for series, (_, end) in spans)) if spans else "-"
        table.add_row(part, f"{total:,}", f"{count:,}", first, last)
    return table


def _columns(found: Examination, roles: Mapping[str, Sequence[str]]) -> Table | None:
    if not found.series:
        return None
    table = Table("column", "role", box=None, pad_edge=False, header_style="bold")
    for column in ("observed", "mean", "least", "most"):
        table.add_column(column, justify="right")
    values = np.concatenate([series.values for series in found.series])
    for name, unit, column in list(zip(found.channels, found.units, values.T, strict=True))[:SHOWN]:
        table.add_row(Text(f"{name} [{unit}]" if unit else name), "target", *_numbers(column))
    if len(found.channels) > SHOWN:
        table.add_row(f"and {len(found.channels) - SHOWN} more", "target")
    for role, names in roles.items():
        for name in names:
            column = np.concatenate([series.columns[name] for series in found.series])
            if name in found.categories:
                words = found.categories[name]
                told = f"{len(words)}: {', '.join(words[:4])}{', ...' if len(words) > 4 else ''}"
                table.add_row(Text(name), role, _numbers(column)[0], Text(told))
            else:
                table.add_row(Text(name), role, *_numbers(column))
    return table


def _numbers(column: np.ndarray) -> list[str]:
    """Share of a column that is observed, then its mean, least and most."""
    observed = column[~np.isnan(column)]
    numbers = [f"{pick(observed):,.4g}" for pick in (np.mean, np.min, np.max)] if len(observed) else ["-"] * 3
    return [f"{len(observed) / max(1, len(column)):.1%}", *numbers]


def _unused(found: Examination, rows: Sequence[Rows], description: SeriesDescription) -> list[str]:
    """Rows that are in no part, and series that are in no training window."""
    remarks = []
    if unused := sum(len(series.values) - one["test"][1] for series, one in zip(found.series, rows, strict=True)):
        remarks.append(f"{unused:,} rows after those of the test are in no part")
    if short := sum(one["train"][1] < description.context + description.horizon for one in rows):
        remarks.append(f"{short:,} of {len(rows):,} series are too short for a window of training")
    return remarks
