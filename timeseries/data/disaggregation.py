"""The load of households beside that of their appliances: windows of both, thresholds of running, suspicions."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from rich.table import Table
from torch.utils.data import Dataset

from ...core.data.faults import Fault
from ...core.data.module import Draw
from ...core.errors import QuintetError, nearest
from .examine import Examination
from .files import Given, Source, Wanted, read
from .series import IN_PYTHON
from .stamps import CALENDAR
from .whole import WholeWindows
from .windows import SeriesDescription, WindowDataset, Windows

# Where in its cycle a stamp stands, a whole number of turns apart for the same place.
CYCLES = {
    "minute": lambda stamps: stamps.minute / 60,
    "hour": lambda stamps: stamps.hour / 24,
    "weekday": lambda stamps: stamps.dayofweek / 7,
    "day": lambda stamps: stamps.day / 31,
    "yearday": lambda stamps: stamps.dayofyear / 366,
    "month": lambda stamps: stamps.month / 12,
}
OTHER_ROLES = ("target", "past", "future", "static", "categorical")


@dataclass
class DisaggregationDescription(SeriesDescription):
    """What a disaggregator knows of its data: channels are the whole load, then the appliances.

    Args:
        thresholds: power of each appliance from which on it counts as running.
        shares: of each appliance in the load, over the training rows where both were observed.
    """

    thresholds: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Rows of a window."""
        return self.context + self.horizon

    @property
    def appliances(self) -> list[str]:
        """Names of the appliances."""
        return self.channels[1:]


class ScoredOnce(Dataset):
    """Windows of load and appliances in which every row of an appliance is in one window alone, NaN in any other.

    Args:
        windows: in the order of their rows.
    """

    def __init__(self, windows: WindowDataset) -> None:
        self.windows = windows
        ends = windows.starts + windows.context + windows.horizon
        # Only the last window of a part reaches back into the one before it.
        before = torch.cat([windows.starts[:1], ends[:-1]])
        same = torch.cat([torch.ones(1, dtype=torch.bool), windows.series[1:] == windows.series[:-1]])
        self.counted = (before - windows.starts).clamp(min=0).where(same, 0)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitems__(self, indices: Sequence[int | Draw]) -> Windows:
        chosen = [index.index if isinstance(index, Draw) else index for index in indices]
        batch = self.windows.__getitems__(chosen)
        sizes = [self.windows.context, self.windows.horizon]
        again = torch.arange(sum(sizes)) < self.counted[chosen].unsqueeze(1)
        for part, values in zip(again.split(sizes, dim=1), batch[:2], strict=True):
            values[:, :, 1:][part] = torch.nan
        return batch


class DisaggregationData(WholeWindows):
    """The load of one or several households with that of their appliances, from the user's own file.

    A table has a column of stamps, one of the whole load and one for each appliance; see `SeriesData` for how it is
    read (a column of names makes each household a series). Training windows begin at every `stride` rows, those of
    validation and test follow one another, and no row of an appliance is scored twice; each window lies wholly in its
    part. Loads are divided by their largest value in the training rows. To predict, the appliances' columns may be
    absent.

    Args:
        path: the file, or a folder of files of one shape; in Python also a DataFrame, DataArray or Dataset.
        length: rows of a window.
        aggregate: column of the whole load.
        appliances: columns of the appliances; None takes all others that hold numbers.
        thresholds: power from which on an appliance counts as running, by name. Where none is given it lies in the
            middle between the means of the two groups that part the training rows best: "Thresholding methods in
            non-intrusive load monitoring", arXiv 2010.16050.
        stride: rows from one training window to the next; None means a quarter of a window.
        calendar: what the model is told of each stamp, as sine and cosine: minute, hour, weekday, day, yearday, month.
        **series: further arguments of `SeriesData`: time, id, split, frequency, sort, duplicates, ...

    Raises:
        QuintetError: from `setup`, where the file cannot be read the way it is meant, or is too short.
    """

    short: ClassVar[tuple[str, str]] = (
        "no window of {length} (data.length) with load and appliances",
        "give a shorter data.length, change data.split, or measure the appliances",
    )

    fixed: ClassVar[frozenset[str]] = WholeWindows.fixed | {"length", "aggregate", "appliances", "thresholds"}

    def __init__(
        self,
        path: Given,
        length: int = 256,
        aggregate: str = "aggregate",
        appliances: list[str] | None = None,
        thresholds: dict[str, float] | None = None,
        stride: int | None = None,
        calendar: list[str] | None = None,
        **series: Any,
    ) -> None:
        refuse_other_roles(series)
        target = None if appliances is None else [aggregate, *appliances]
        calendar = ["minute", "hour", "weekday", "month"] if calendar is None else calendar
        stride = max(1, length // 4) if stride is None else stride
        super().__init__(path, length, stride, target=target, calendar=calendar, **series)
        self.aggregate, self._thresholds = aggregate, dict(thresholds or {})

    # Reading

    def source(self) -> Source:
        if isinstance(self.path, Path) and self.path == Path(IN_PYTHON):
            return super().source()
        time = self.reading.time if isinstance(self.reading.time, str) else None
        source, known = read(self.path, Wanted(time, self.reading.ids)), self._described
        aggregate = known.channels[0] if known else self.aggregate
        names = [str(name) for name in source.frame.columns]
        if aggregate not in names:
            raise QuintetError(
                f"{source.where} has no column '{aggregate}', the whole load; name it with data.aggregate; "
                f"{nearest(aggregate, names)}"
            )
        if known:
            # Appliances that nobody measured are unknown in every row.
            absent = [name for name in known.appliances if name not in names]
            source.frame = source.frame.assign(**dict.fromkeys(absent, np.nan))
        elif missing := [name for name in (self.reading.target or [])[1:] if name not in names]:
            raise QuintetError(f"data.appliances: no column '{missing[0]}'; {nearest(missing[0], names)}")
        return source

    def _examined(self) -> Examination:
        # The load comes first.
        found = super()._examined()
        if found.faults:
            return found
        order = [found.channels.index(self._described.channels[0] if self._described else self.aggregate)]
        order += [at for at in range(len(found.channels)) if at not in order]
        found.channels = [found.channels[at] for at in order]
        found.units = [found.units[at] or "W" for at in order]
        for series in found.series:
            series.values = series.values[:, order]
        if len(found.channels) < 2:
            what = f"has no column of numbers beside '{found.channels[0]}'"
            found.faults.append(Fault(found.where, what, "add a column for each appliance, measured with the load"))
            return found
        if unknown := [name for name in self._thresholds if name not in found.channels[1:]]:
            raise QuintetError(
                f"data.thresholds: no appliance is called '{unknown[0]}'; {nearest(unknown[0], found.channels[1:])}"
            )
        found.remarks += suspicions(found)
        return found

    # Building

    def _measure(self) -> DisaggregationDescription:
        base = super()._measure()
        if self._calendar and not isinstance(self.usable().series[0].stamps, pd.DatetimeIndex):
            raise QuintetError("data.calendar needs dates, and these rows have none; give data.calendar=[]")
        train = self._training_rows()
        both = np.isfinite(train) & np.isfinite(train[:, :1])
        whole = np.where(both, train[:, :1], 0.0).sum(0)
        shares = np.where(both, train, 0.0).sum(0) / np.where(whole > 0, whole, np.nan)
        thresholds = [
            float(self._thresholds.get(name, middle_threshold(column[np.isfinite(column)])))
            for name, column in zip(base.channels[1:], train.T[1:], strict=True)
        ]
        changed = {
            "mean": [0.0] * len(base.channels),
            "std": np.nanmax(np.abs(train), axis=0).tolist(),
            "thresholds": thresholds,
            "shares": np.nan_to_num(shares[1:]).tolist(),
        }
        return DisaggregationDescription(**{one.name: getattr(base, one.name) for one in fields(base)} | changed)

    def _unscalable(self) -> list[Fault]:
        faults = super()._unscalable()
        remedy = "name the columns to learn with data.appliances, or change data.split"
        return [Fault(fault.where, fault.what, remedy) for fault in faults]

    def _part(self, part: str) -> WindowDataset | ScoredOnce:
        dataset = super()._part(part)
        return ScoredOnce(dataset) if part != "train" and len(dataset) else dataset

    def teaches(self, values: np.ndarray) -> np.ndarray:
        # A window teaches and tests where load and an appliance were observed together.
        observed = ~np.isnan(values)
        return observed[:, 0] & observed[:, 1:].any(1)

    def check_windows(self, number: int, starts: np.ndarray) -> None:
        if np.isnan(self.usable().series[number].values[:, 0]).all():
            load = self.usable().channels[0]
            raise QuintetError(f"{self.label(number)}: '{load}' is empty; there is no load to take apart")

    def _windowed(
        self, series: np.ndarray, positions: np.ndarray, trained: list[int], horizon: int, beyond: int = 0
    ) -> WindowDataset:
        dataset = super()._windowed(series, positions, trained, horizon, beyond)
        count, names = len(self.usable().series), self.description().calendar
        if names:
            blocks = [cyclic_calendar(self.stamps(number, beyond), names) for number in range(count)]
            dataset.calendar = torch.from_numpy(np.concatenate(blocks)).contiguous()
        return dataset

    def table(self) -> Table:
        page = super().table()
        if self.faults():
            return page
        known = self.description()
        table = Table("appliance", box=None, pad_edge=False, header_style="bold")
        for column in ("runs from", "of the time", "of the load"):
            table.add_column(column, justify="right")
        train = self._training_rows()[:, 1:] if self._described is None else None
        for at, (name, unit) in enumerate(zip(known.appliances, self.units()[1:], strict=True)):
            running = "-"
            if train is not None:
                column = train[:, at][np.isfinite(train[:, at])]
                running = f"{(column >= known.thresholds[at]).mean():.1%}"
            table.add_row(name, f"{known.thresholds[at]:,.4g} {unit}", running, f"{known.shares[at]:.1%}")
        page.add_row(table)
        return page


def refuse_other_roles(arguments: dict[str, Any]) -> None:
    """Raises QuintetError for columns that would be read and not used."""
    for name in OTHER_ROLES:
        if arguments.get(name):
            raise QuintetError(f"data.{name}: a disaggregator reads what data.aggregate and data.appliances name")


def cyclic_calendar(stamps: pd.Index, names: Sequence[str]) -> np.ndarray:
    """sin(2 pi c) and cos(2 pi c) of where in each cycle a stamp stands, two columns a name.

    Raises QuintetError for a name that is none.
    """
    if unknown := [name for name in names if name not in CYCLES]:
        raise QuintetError(f"data.calendar: no feature is called '{unknown[0]}'; {nearest(unknown[0], CALENDAR)}")
    turns = [2 * np.pi * np.asarray(CYCLES[name](stamps), dtype=np.float64) for name in names]
    return np.stack([wave(turn) for turn in turns for wave in (np.sin, np.cos)], axis=1).astype(np.float32)


def middle_threshold(power: np.ndarray) -> float:
    """The middle between the means of two groups, every value in the nearer: 2-means, begun at the extremes."""
    threshold = (power.min() + power.max()) / 2
    for _ in range(100):
        high = power >= threshold
        if high.all() or not high.any():
            break
        moved = (power[high].mean() + power[~high].mean()) / 2
        if moved == threshold:
            break
        threshold = moved
    return float(threshold)


def suspicions(found: Examination) -> list[str]:
    """What is not wrong with loads but worth knowing."""
    remarks = []
    values = np.concatenate([series.values for series in found.series])
    for name, column in zip(found.channels, values.T, strict=True):
        if negative := int((column < 0).sum()):
            remarks.append(f"column '{name}' is negative in {negative:,} rows")
    together = np.nansum(values[:, 1:], axis=1)
    with np.errstate(invalid="ignore"):
        above = int((together > values[:, 0] + 1e-6).sum())
    if above:
        share = above / len(values)
        remarks.append(f"the appliances together exceed '{found.channels[0]}' in {above:,} rows ({share:.1%})")
    return remarks
