"""Series of one's own: tables of numbers in time, looked through before training, split by time, cut into windows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from rich.table import Table

from ...core.data.faults import Fault, refusal
from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ..metrics.scores import seasonal_scales
from ..models.covariates import ROLES
from .examine import Duplicates, Examination, Reading, Series, examine
from .features import features_of, fitted, unfit, unseen
from .files import Given, Labels, Source, Wanted, files_in, format_of, names_pictures, read
from .report import report
from .splits import Rows, Split, check_split, rows_of
from .stamps import calendar_of, extended, find_time, same_step, season_of, shown
from .windows import SeriesDescription, WindowDataset, Windows, as_batch

IN_PYTHON = "an object in Python"  # what a checkpoint says of data that were no file


class SeriesData(DataModule):
    """Series from the user's own files: CSV (also .gz), parquet, NetCDF or Zarr.

    A wide table has a column of stamps and one or more columns of numbers, its channels; a long one also columns that
    name the series of each row; of a grid each point is a series, and so is each file of a folder. Rows are put on the
    regular grid of their frequency; absent stamps and empty cells are masked (NaN) in everything that follows, never
    filled. Validation and test are the last rows of each series; the scaler sees training rows alone.

    Covariates are columns that are known and not forecast. To forecast, future ones must reach over the horizon: rows
    after the last target, with the target left empty. Words become one 0/1 feature for each category of the training
    rows; a category they never show is masked, and said.

    Args:
        path: the file, or a folder of files of one shape; in Python also a DataFrame, DataArray or Dataset.
        context: steps the model sees.
        horizon: steps it forecasts.
        time: column of the stamps, or those that make one up (year, month, ...); None finds it, or numbers the rows.
        id: column, or columns, of the series' names; None finds one called unique_id or the like, or takes all
            dimensions beside time; else there is one series.
        target: columns to forecast; None takes all that hold numbers and have no other role.
        split: "ett-hour", or where validation and test begin: shares of the rows or dates; None means a fifth each.
        scale: "standard" subtracts the mean and divides by the standard deviation of each channel; "none" does not.
        period: steps in a season; None takes that of the frequency (24 of hours, 7 of days, 12 of months).
        calendar: calendar features for models that read them: minute, hour, weekday, day, yearday, month.
        frequency: pandas alias of the step, e.g. 15min; None finds it.
        time_format: of the stamps, as `datetime.strptime` takes it; of numbers also "unix" for seconds since 1970,
            "unix_ms", "unix_us" and "unix_ns", and "excel" for the days of a spreadsheet.
        time_zone: to which stamps with an offset are brought, and in which those without are.
        sort: sort rows that go back in time instead of refusing them.
        duplicates: which of several rows with one stamp is taken: first, last, mean; "raise" refuses them.
        past: covariates known up to the forecast.
        future: covariates known over the horizon too.
        static: covariates of which each series has one value.
        categorical: those of the covariates whose numbers name categories; words always do.
        batch_size: windows in a batch.
        num_workers: processes that cut windows; everything lies in memory, so 0 is fastest.
        seed: of the order.

    Raises:
        QuintetError: from `setup`, where the file cannot be read the way it is meant, or is too short.
    """

    files: ClassVar[str | None] = "path"

    fixed: ClassVar[frozenset[str]] = frozenset(
        {"target", "scale", "period", "calendar", "past", "future", "static", "categorical"}
    )

    def __init__(
        self,
        path: Given,
        context: int = 96,
        horizon: int = 24,
        time: str | list[str] | None = None,
        id: str | list[str] | None = None,
        target: list[str] | None = None,
        split: Split | None = None,
        scale: Literal["standard", "none"] = "standard",
        period: int | None = None,
        calendar: list[str] | None = None,
        frequency: str | None = None,
        time_format: str | None = None,
        time_zone: str | None = None,
        sort: bool = False,
        duplicates: Duplicates = "raise",
        past: list[str] | None = None,
        future: list[str] | None = None,
        static: list[str] | None = None,
        categorical: list[str] | None = None,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        for name, value in (("context", context), ("horizon", horizon), ("period", 1 if period is None else period)):
            if value < 1:
                raise QuintetError(f"data.{name} is {value}; give at least 1")
        self.path = Path(path).expanduser() if isinstance(path, str | Path) else path
        if not isinstance(path, str | Path):
            # Objects do not travel in a checkpoint; that there was one does.
            self.restate(path=IN_PYTHON)
        self._sizes = context, horizon
        self.split: Split = {"val": 0.2, "test": 0.2} if split is None else split
        check_split(self.split)
        self.scale, self.period, self._calendar = scale, period, list(calendar or [])
        self.reading = Reading(
            time,
            id,
            target,
            list(past or []),
            list(future or []),
            list(static or []),
            list(categorical or []),
            frequency,
            time_format,
            time_zone,
            sort,
            duplicates,
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if not cls.reads(path):
            return False
        source = read(path)
        if names_pictures(source.frame):
            return False
        if not (source.time or find_time(source.frame, None)):
            raise QuintetError(
                f"{path} has no column of dates; name it with data.time, or give data=timeseries/series where "
                "the rows are in their order"
            )
        return bool(examine(source, Reading()).channels)

    @classmethod
    def reads(cls, path: Path) -> bool:
        return format_of(path) is not None or (path.is_dir() and bool(files_in(path)))

    def adopt(self, description: SeriesDescription) -> None:
        for name, own, trained in zip(
            ("context", "horizon"), self._sizes, (description.context, description.horizon), strict=True
        ):
            if name in self.constructor_arguments and own != trained:
                asked = f"; to forecast fewer steps give horizon={own}" if name == "horizon" and own < trained else ""
                raise QuintetError(f"data.{name}={own}: this model was trained with data.{name}={trained}{asked}")
        super().adopt(description)
        for name in ("examination", "rows", "_measured"):
            self.__dict__.pop(name, None)

    @property
    def context(self) -> int:
        return self._described.context if self._described else self._sizes[0]

    @property
    def horizon(self) -> int:
        return self._described.horizon if self._described else self._sizes[1]

    def source(self) -> Source:
        """The user's table, as it lies in the file."""
        if isinstance(self.path, Path) and self.path == Path(IN_PYTHON):
            raise QuintetError(f"this model was trained on {IN_PYTHON}; give data.path=FILE")
        reading = self._reading()
        columns = None if reading.target is None else [*reading.target, *reading.past, *reading.future]
        time = reading.time if isinstance(reading.time, str) else None
        return read(self.path, Wanted(time, reading.ids, columns, reading.static))

    def _reading(self) -> Reading:
        """How the table is read: a trained model decides on the roles of columns."""
        known = self._described
        if known is None:
            return self.reading
        roles = {role: [column.name for column in getattr(known, role)] for role in ROLES}
        words = [column.name for role in ROLES for column in getattr(known, role) if column.categories]
        return replace(self.reading, target=known.channels, categorical=words, **roles)

    @cached_property
    def examination(self) -> Examination:
        """The user's table, looked through once; faults are listed, not raised."""
        return self._examined()

    def _examined(self) -> Examination:
        known = self._described
        source = self.source()
        self._labels = source.labels
        found = examine(source, self._reading(), demanded=known is not None)
        if known and not found.faults and not same_step(found.series[0].stamps, found.frequency, known.frequency):
            what = f"has steps of {found.frequency or 'rows'}, the model was trained on {known.frequency or 'rows'}"
            found.faults.append(Fault(found.where, what, "resample it, or give data.frequency"))
        return found

    def faults(self) -> list[Fault]:
        found = self.examination
        if found.faults or self._described:
            return found.faults
        short = (self._short(part) for part in ("train", "val", "test") if not len(self._places(part)[0]))
        return [*self._unscalable(), *filter(None, short)]

    def usable(self) -> Examination:
        """The examination, once nothing stands in the way. Raises QuintetError for the first fault."""
        found = self.examination
        if found.faults:
            raise self._refusal(found.faults)
        return found

    def _refusal(self, faults: Sequence[Fault]) -> QuintetError:
        return refusal(faults, f"quintet inspect {self.path}" if isinstance(self.path, Path) else "data.faults()")

    def prepare(self, stages: tuple[str, ...]) -> None:
        for stage in stages:
            if stage == "predict":
                self.datasets[stage] = self._future()
                continue
            dataset = self._part(stage)
            if len(dataset):
                self.datasets[stage] = dataset
            elif fault := self._short(stage):
                raise self._refusal([fault])

    def description(self) -> SeriesDescription:
        return self._described or self._measured

    def table(self) -> Table:
        found = self.examination
        if self.faults():
            return report(found, self._roles())
        windows = {part: len(self._places(part)[0]) for part in ("train", "val", "test")}
        return report(found, self._roles(), self.rows, windows, self.description(), self.unseen, self.purpose())

    def purpose(self) -> str:
        """What a model sees of a window and does with it, for people."""
        return f"sees {self.context} steps, forecasts {self.horizon}"

    def collate(self) -> Callable:
        return as_batch

    def transfer_batch_to_device(self, batch: Windows, device: torch.device, dataloader_idx: int) -> Windows:
        # Lightning looks through every field of nested tuples, which costs more than all else around a small step.
        return batch.to(device)

    # What the task and its tables ask for

    def units(self) -> list[str]:
        """Units of the channels: of this file, or else of the one the model was trained on."""
        return [own or known for own, known in zip(self.usable().units, self.description().units, strict=True)]

    def labels(self) -> tuple[pd.DataFrame, Labels | None]:
        """What the columns that name the series say, a row for each; and what labelled arrays say beside numbers."""
        found = self.usable()
        return found.labels, self._labels

    @cached_property
    def rows(self) -> list[Rows]:
        """Rows of each part, series by series."""
        return [rows_of(series, self.split) for series in self.usable().series]

    def stamps(self, series: int, steps: int = 0) -> Any:
        """The stamps of a series, and `steps` after its last."""
        return extended(self.usable().series[series].stamps, self.description().frequency, steps)

    def windows(
        self,
        series: Sequence[int] | np.ndarray,
        positions: Sequence[int] | np.ndarray,
        trained: Sequence[int],
        horizon: int,
    ) -> WindowDataset:
        """Windows whose first target rows are given; rows after the last are unknown (NaN).

        Args:
            series: number of the series of each window.
            positions: first target row of each.
            trained: rows of each series that count as known when errors are scaled.
            horizon: target rows.
        """
        return self._windowed(np.asarray(series), np.asarray(positions), list(trained), horizon, beyond=horizon)

    # Building

    @cached_property
    def _measured(self) -> SeriesDescription:
        return self._measure()

    def _measure(self) -> SeriesDescription:
        found = self.usable()
        if faults := self._unscalable():
            raise self._refusal(faults)
        train = self._training_rows()
        standard = self.scale == "standard"
        frequency = found.frequency
        return SeriesDescription(
            channels=found.channels,
            units=found.units,
            mean=np.nanmean(train, axis=0).tolist() if standard else [0.0] * len(found.channels),
            std=np.nanstd(train, axis=0).tolist() if standard else [1.0] * len(found.channels),
            context=self.context,
            horizon=self.horizon,
            frequency=frequency,
            period=self.period or season_of(frequency),
            calendar=self._calendar,
            time=found.time,
            series=found.id,
            seen_until={
                series.name: shown(series.stamps[rows["val"][1] - 1])
                for series, rows in zip(found.series, self.rows, strict=True)
            },
            **{
                role: [fitted(name, self._training_column(name), found.categories.get(name)) for name in names]
                for role, names in self._roles().items()
            },
        )

    def _roles(self) -> dict[str, list[str]]:
        return {role: getattr(self.reading, role) for role in ROLES}

    def _training_column(self, name: str) -> np.ndarray:
        """What the training rows of all series say of a covariate; of a static one, each series says it once."""
        end = {number: rows["train"][1] for number, rows in enumerate(self.rows)}
        return np.concatenate([one.columns[name][: end[number]] for number, one in enumerate(self.usable().series)])

    def _training_rows(self) -> np.ndarray:
        found = self.usable()
        return np.concatenate(
            [series.values[slice(*rows["train"])] for series, rows in zip(found.series, self.rows, strict=True)]
        )

    def _unscalable(self) -> list[Fault]:
        """Channels that training rows say nothing of."""
        faults, found = [], self.usable()
        for name, column in zip(found.channels, self._training_rows().T, strict=True):
            observed, where = column[~np.isnan(column)], f"{found.where} column '{name}'"
            remedy = "leave it out: name the others with data.target"
            if not len(observed):
                faults.append(Fault(where, "has no number in the training rows", remedy))
            elif np.ptp(observed) <= 1e-12 * max(1.0, abs(observed[0])):
                faults.append(Fault(where, f"is constant ({observed[0]:g}) over the training rows", remedy))
        for role, names in self._roles().items():
            for name in names:
                if what := unfit(self._training_column(name), found.categories.get(name)):
                    faults.append(Fault(f"{found.where} column '{name}'", what, f"leave it out of data.{role}"))
        return faults

    def _part(self, part: str) -> WindowDataset:
        series, positions = self._places(part)
        return self._windowed(series, positions, [rows["train"][1] for rows in self.rows], self.horizon)

    def _places(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Series and first target rows of all windows whose targets lie within a part.

        The context of validation and test reaches back before the part.
        """
        context, horizon = self.context, self.horizon
        chosen, positions = [], []
        for number, (series, rows) in enumerate(zip(self.usable().series, self.rows, strict=True)):
            first, end = rows[part]
            found = np.arange(max(first, context), end - horizon + 1)
            if np.isnan(series.values).any():
                # A window without anything to see or to learn from is no window.
                seen = np.concatenate([[0], np.cumsum(~np.isnan(series.values).all(1))])
                found = found[(seen[found] > seen[found - context]) & (seen[found + horizon] > seen[found])]
            chosen.append(np.full(len(found), number))
            positions.append(found)
        return np.concatenate(chosen), np.concatenate(positions)

    def _future(self) -> WindowDataset:
        """One window a series, whose targets are the steps after its last row."""
        self.adopted()
        series = self.usable().series
        for one in series:
            self.refuse_blind(one, len(one.values))
        for number, one in enumerate(series):
            self._refuse_unknown_future(number, one)
        last = [len(one.values) for one in series]
        return self.windows(range(len(series)), last, last, self.horizon)

    def refuse_blind(self, series: Series, position: int) -> None:
        """Raises QuintetError where what a model would see before a row is too short, or empty in some channel."""
        label = f"series '{series.name}'" if series.name else str(self.usable().where)
        if position < self.context:
            raise QuintetError(
                f"{label} has {position} rows; the model sees {self.context} of them before it forecasts"
            )
        empty = np.isnan(series.values[position - self.context : position]).all(0)
        if empty.any():
            name = self.usable().channels[int(empty.argmax())]
            until = shown(series.stamps[position - 1])
            raise QuintetError(
                f"{label}: '{name}' has no number in the {self.context} rows up to {until}, which the model would see; "
                "end the file where it was last observed"
            )

    def _refuse_unknown_future(self, number: int, series: Series) -> None:
        """Raises QuintetError where a future covariate is not known over the whole horizon."""
        end = len(series.values)
        for column in self.description().future:
            ahead = series.columns[column.name][end : end + self.horizon]
            unknown = np.isnan(ahead)
            if len(ahead) == self.horizon and not unknown.any():
                continue
            at = int(unknown.argmax()) if unknown.any() else len(ahead)
            label = f"series '{series.name}'" if series.name else str(self.usable().where)
            stamps = self.stamps(number, self.horizon)
            raise QuintetError(
                f"{label} has no '{column.name}' at {shown(stamps[end + at])}, a future covariate that the model needs "
                f"up to {shown(stamps[-1])}; add those rows and leave their target empty"
            )

    @property
    def unseen(self) -> list[str]:
        """What to say of the categories that no training row shows, column by column."""
        known, words = self.description(), self.usable().categories
        columns = [column for role in ROLES for column in getattr(known, role)]
        found = {column.name: unseen(column, words.get(column.name, [])) for column in columns}
        shown = {name: ", ".join(map(repr, new[:3])) for name, new in found.items() if new}
        return [f"column '{name}' has {new}, which no training row shows; masked" for name, new in shown.items()]

    def _windowed(
        self, series: np.ndarray, positions: np.ndarray, trained: list[int], horizon: int, beyond: int = 0
    ) -> WindowDataset:
        """Windows over all series, each with `beyond` unknown rows after its last."""
        known, found = self.description(), self.usable()
        mean, std, scale_errors = np.array(known.mean), np.array(known.std), []
        blocks, calendars, offsets, offset = [], [], [], 0
        for number, one in enumerate(found.series):
            scaled = (one.values - mean) / std
            scale_errors.append(seasonal_scales(scaled[: trained[number]], known.period)[0].astype(np.float32))
            blocks += [scaled.astype(np.float32), np.full((beyond, scaled.shape[1]), np.nan, dtype=np.float32)]
            # Without a calendar the stamps are not laid out, which for thousands of series takes the longest.
            stamps = self.stamps(number, beyond) if known.calendar else pd.RangeIndex(len(scaled) + beyond)
            calendars.append(calendar_of(stamps, known.calendar))
            offsets.append(offset)
            offset += len(scaled) + beyond
        return WindowDataset(
            torch.from_numpy(np.concatenate(blocks)),
            torch.from_numpy(np.concatenate(calendars)),
            torch.tensor(offsets),
            torch.from_numpy(np.stack(scale_errors)),
            torch.from_numpy(np.asarray(series, dtype=np.int64)),
            torch.from_numpy(np.asarray(positions, dtype=np.int64)),
            known.context,
            horizon,
            **{role: features_of(found.series, role, getattr(known, role), found.categories, beyond) for role in ROLES},
        )

    def _short(self, part: str) -> Fault | None:
        """What to say of a part without a window; None of a test that nobody asked for."""
        if part == "test" and self.split != "ett-hour" and not self.split.get("test", 0):
            return None
        number = max(range(len(self.rows)), key=lambda number: self.rows[number]["test"][1])
        series, rows = self.usable().series[number], self.rows[number][part]
        label = f"series '{series.name}'" if series.name else self.usable().where
        needed = self.horizon + (self.context if part == "train" else 0)
        return Fault(
            label,
            f"has {rows[1] - rows[0]} {part} rows of {len(series.values)}, and one window takes {needed} (context "
            f"{self.context}, horizon {self.horizon})",
            "give a shorter data.context or data.horizon, or change data.split",
        )
