"""Series with anomalies: labels from a column or from windows of time, which no training and no threshold ever sees."""

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...core.errors import QuintetError, nearest
from .examine import examine, time_columns
from .files import Given, Source, read
from .gaps import refuse_unread
from .series import SeriesData
from .stamps import shown
from .whole import steps_between
from .windows import SeriesDescription, WindowDataset

LABEL_NAMES = ("label", "is_anomaly", "anomaly", "is_outlier", "outlier")
BEGIN, END = ("begin", "start", "from"), ("end", "stop", "to")


class AnomalyData(SeriesData):
    """Series from the user's own file with, where they are known, the anomalies in it; see `SeriesData` for reading.

    Labels score a test and are used for nothing else: training and threshold rest on rows alone, those of the training
    and validation parts.

    Args:
        path: the file, or a folder of files of one shape; in Python also a DataFrame, DataArray or Dataset.
        context: steps the model sees.
        horizon: steps it forecasts; a reconstruction hides as many at a time.
        label: column of 0 and 1; None finds one called label, is_anomaly or the like, or takes none.
        windows: begin and end of each anomaly, both included: a list, a JSON file of one (also by file or series name,
            as NAB has it), or a CSV with columns begin and end (and the series' names).
        stride: rows between windows of validation, test and prediction, at most `horizon`.
        split: as of `SeriesData`; None leaves a fifth of the rows to validation and two to the test.
        **series: further arguments of `SeriesData`: time, id, target, split, scale, period, frequency, duplicates, ...

    Raises:
        QuintetError: from `setup`, where the file cannot be read the way it is meant, or is too short.
    """

    def __init__(
        self,
        path: Given,
        context: int = 96,
        horizon: int = 12,
        label: str | None = None,
        windows: str | Path | list[list[Any]] | None = None,
        stride: int = 1,
        **series: Any,
    ) -> None:
        refuse_unread(series, "an anomaly detector")
        split = series.pop("split", None)
        super().__init__(path, context, horizon, split={"val": 0.2, "test": 0.4} if split is None else split, **series)
        if not 1 <= stride <= horizon:
            raise QuintetError(
                f"data.stride is {stride}; give 1 to data.horizon={horizon}, so that every row is scored"
            )
        if label is not None and windows is not None:
            raise QuintetError("data.label and data.windows both say what is anomalous; give one of them")
        self.label, self.given_windows, self.stride = label, windows, stride
        self._labelled: Source | None = None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False  # any table of series could be one

    def adopt(self, description: SeriesDescription) -> None:
        super().adopt(description)
        self.__dict__.pop("truth", None)

    def source(self) -> Source:
        """The user's table without its labels, which stand aside."""
        source = super().source()
        frame = source.frame
        lowered = {str(name).strip().lower(): name for name in frame.columns}
        name = self.label or next((lowered[name] for name in LABEL_NAMES if name in lowered), None)
        if self.label is not None and name not in frame:
            if self._described is not None:
                return source  # new data need no labels
            raise QuintetError(f"data.label: no column '{name}'; {nearest(str(name), map(str, frame.columns))}")
        if name is None:
            return source
        time = time_columns(source, self.reading)
        kept = [*time, *(source.series or self.reading.ids), name]
        self._labelled = replace(source, frame=frame[list(dict.fromkeys(kept))])
        self._label_column = name
        remarks = [*source.remarks, f"column '{name}' holds labels: they score the test and are used for nothing else"]
        return replace(source, frame=frame.drop(columns=name), remarks=remarks)

    @cached_property
    def truth(self) -> list[np.ndarray] | None:
        """Of each row of each series 1 where it is anomalous, 0 where not, NaN where unknown; None without labels."""
        found = self.usable()
        if self.given_windows is not None:
            return self._from_windows()
        if self._labelled is None:
            return None
        reading = replace(self.reading, target=[self._label_column], frequency=found.frequency or None)
        labels = examine(self._labelled, reading)
        if labels.faults:
            raise self._refusal(labels.faults)
        values = [series.values[:, 0] for series in labels.series]
        for column in values:
            wrong = ~np.isnan(column) & ((column < 0) | (column > 1))
            if wrong.any():
                raise QuintetError(
                    f"{found.where} column '{self._label_column}' has {column[wrong][0]:g}; labels are 0 and 1: name "
                    "another column with data.label"
                )
        # The mean of labels that share a stamp is anomalous where one of them is.
        return [np.where(np.isnan(column), np.nan, column > 0) for column in values]

    def _from_windows(self) -> list[np.ndarray]:
        found = self.usable()
        listed = self._listed_windows()
        columns = []
        for series in found.series:
            flags = np.zeros(len(series.values))
            for begin, end in listed.get(series.name, listed.get("", [])):
                rows = self._rows_within(series.stamps, begin, end)
                flags[rows] = 1.0
            columns.append(flags)
        return columns

    def _rows_within(self, stamps: pd.Index, begin: Any, end: Any) -> np.ndarray:
        try:
            if isinstance(stamps, pd.DatetimeIndex):
                first, last = pd.Timestamp(begin), pd.Timestamp(end)
                if stamps.tz is not None:
                    first, last = (
                        one.tz_localize(stamps.tz) if one.tz is None else one.tz_convert(stamps.tz)
                        for one in (first, last)
                    )
                elif first.tz is not None or last.tz is not None:
                    raise QuintetError(
                        f"data.windows: '{begin}' names an offset from UTC, the stamps do not; leave it out"
                    )
            else:
                first, last = int(begin), int(end)
        except (ValueError, TypeError):
            raise QuintetError(f"data.windows: '{begin}' to '{end}' is no window of {self._span(stamps)}") from None
        if last < first:
            raise QuintetError(f"data.windows: the window {begin} to {end} ends before it begins")
        rows = np.flatnonzero((stamps >= first) & (stamps <= last))
        if not len(rows):
            raise QuintetError(
                f"data.windows: the window {begin} to {end} holds no row; the series has {self._span(stamps)}"
            )
        return rows

    @staticmethod
    def _span(stamps: pd.Index) -> str:
        return f"rows from {shown(stamps[0])} to {shown(stamps[-1])}"

    def _listed_windows(self) -> dict[str, list[tuple[Any, Any]]]:
        """Windows by series; those of all under ""."""
        given = self.given_windows
        if isinstance(given, str | Path):
            path = Path(given).expanduser()
            if not path.is_file():
                raise QuintetError(f"data.windows: no file {path}")
            given = self._read_json(path) if path.suffix.lower() == ".json" else self._read_table(path)
        listed = given if isinstance(given, dict) else {"": given}
        for pairs in listed.values():
            if not isinstance(pairs, list | tuple):
                raise QuintetError(f"data.windows: {pairs!r} is no list of windows; give [[begin, end], ...]")
            for pair in pairs:
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    raise QuintetError(f"data.windows: {pair!r} is no window; give [begin, end]")
        return {name: [tuple(pair) for pair in pairs] for name, pairs in listed.items()}

    def _read_json(self, path: Path) -> Any:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise QuintetError(f"data.windows: {path} cannot be read: {str(error)[:120]}") from None
        if not isinstance(content, dict):
            return content
        own = Path(str(self.path)).as_posix()
        matching = [name for name in content if own == name or own.endswith(f"/{name}")]
        matching = matching or [name for name in content if Path(name).name == Path(own).name]
        if matching:
            return content[matching[0]]
        names = {series.name for series in self.usable().series} - {""}
        if names & set(content):
            return {name: content.get(name, []) for name in names}
        close = nearest(Path(own).name, content)
        raise QuintetError(f"data.windows: {path} names neither {Path(own).name} nor one of its series; {close}")

    def _read_table(self, path: Path) -> dict[str, list[tuple[Any, Any]]]:
        frame = read(path).frame
        lowered = {str(name).strip().lower(): name for name in frame.columns}
        ends = [next((lowered[name] for name in names if name in lowered), None) for names in (BEGIN, END)]
        if None in ends:
            raise QuintetError(f"data.windows: {path} needs columns begin and end; it has {', '.join(lowered)}")
        identifier = next((name for name in self.usable().labels if name in frame), None)
        names = frame[identifier].astype(str) if identifier else [""] * len(frame)
        listed: dict[str, list[tuple[Any, Any]]] = {name: [] for name in dict.fromkeys(names)}
        for name, begin, end in zip(names, frame[ends[0]], frame[ends[1]], strict=True):
            listed[name].append((begin, end))
        return listed

    def prepare(self, stages: tuple[str, ...]) -> None:
        super().prepare(tuple(stage for stage in stages if stage != "predict"))
        if "predict" in stages:
            self.datasets["predict"] = self._everywhere()

    def purpose(self) -> str:
        return f"sees {self.context} steps, expects {self.horizon}"

    def _places(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        series, positions = super()._places(part)
        if part == "train" or self.stride == 1:
            return series, positions
        kept = np.zeros(len(series), dtype=bool)
        for number in np.unique(series):
            own = np.flatnonzero(series == number)
            kept[own[:: self.stride]] = True
            kept[own[-1]] = True
        return series[kept], positions[kept]

    def _everywhere(self) -> WindowDataset:
        """Windows whose targets are all rows that have a context before them."""
        if self._described is None:
            raise QuintetError("finding anomalies needs a model: give ckpt_path, or data.adopt(task.description)")
        chosen, positions = [], []
        for number, series in enumerate(self.usable().series):
            rows, length = len(series.values), self.context + self.horizon
            if rows < length:
                label = f"series '{series.name}'" if series.name else str(self.usable().where)
                raise QuintetError(
                    f"{label} has {rows} rows; the model takes windows of {length} (context {self.context}, horizon "
                    f"{self.horizon})"
                )
            starts = steps_between(0, rows, length, self.stride)
            chosen.append(np.full(len(starts), number))
            positions.append(starts + self.context)
        count = len(self.usable().series)
        return self.windows(np.concatenate(chosen), np.concatenate(positions), [0] * count, self.horizon)
