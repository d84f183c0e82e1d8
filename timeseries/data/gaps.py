"""Series with gaps to be filled: windows that lie wholly in their part, so that no training row is scored."""

from pathlib import Path
from typing import Any

import numpy as np

from ...core.data import Fault
from ...core.errors import QuintetError
from ..metrics.anomalies import stretches
from .files import Given
from .series import SeriesData
from .stamps import shown
from .windows import SeriesDescription, WindowDataset

UNREAD = ("past", "future", "static", "categorical", "calendar")


def refuse_unread(arguments: dict[str, Any], who: str) -> None:
    """Raises QuintetError for columns that would be read and not used."""
    for name in UNREAD:
        if arguments.get(name):
            raise QuintetError(f"data.{name}: {who} reads the target columns alone; name columns with data.target")


class ImputationData(SeriesData):
    """Series from the user's own file, cut into windows whose gaps are filled; see `SeriesData` for how it is read.

    Windows of training begin at every row, those of validation and test follow one another without overlap; each lies
    wholly in its part. To predict, windows overlap by half.

    Args:
        path: the file, or a folder of files of one shape; in Python also a DataFrame, DataArray or Dataset.
        length: rows of a window.
        **series: further arguments of `SeriesData`: time, id, target, split, scale, frequency, sort, duplicates, ...

    Raises:
        QuintetError: from `setup`, where the file cannot be read the way it is meant, or is too short.
    """

    def __init__(self, path: Given, length: int = 96, **series: Any) -> None:
        if length < 2:
            raise QuintetError(f"data.length is {length}; a window to fill gaps in has at least 2 rows")
        refuse_unread(series, "an imputer")
        # A window is the context and the target of a forecast together; where one ends plays no part here.
        super().__init__(path, length // 2, length - length // 2, **series)

    @property
    def length(self) -> int:
        """Rows of a window."""
        return self.context + self.horizon

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    def adopt(self, description: SeriesDescription) -> None:
        own, trained = self.constructor_arguments.get("length"), description.context + description.horizon
        if own not in (None, trained):
            raise QuintetError(f"data.length={own}: this model was trained with data.length={trained}")
        super().adopt(description)

    def prepare(self, stages: tuple[str, ...]) -> None:
        super().prepare(tuple(stage for stage in stages if stage != "predict"))
        if "predict" in stages:
            self.datasets["predict"] = self._everywhere()

    def purpose(self) -> str:
        return f"sees windows of {self.length} steps, fills the gaps in them"

    def _places(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        chosen, positions = [], []
        for number, (series, rows) in enumerate(zip(self.usable().series, self.rows, strict=True)):
            first, end = rows[part]
            starts = steps_between(first, end, self.length, 1 if part == "train" else self.length)
            # A window in which nothing was observed neither teaches nor tests.
            seen = np.concatenate([[0], np.cumsum(~np.isnan(series.values).all(1))])
            starts = starts[seen[starts + self.length] > seen[starts]]
            chosen.append(np.full(len(starts), number))
            positions.append(starts + self.context)
        return np.concatenate(chosen), np.concatenate(positions)

    def _everywhere(self) -> WindowDataset:
        """Windows over all rows of all series, which overlap by half."""
        if self._described is None:
            raise QuintetError(
                "filling gaps needs a model's description: give ckpt_path, or data.adopt(task.description)"
            )
        chosen, positions = [], []
        for number, series in enumerate(self.usable().series):
            rows = len(series.values)
            if rows < self.length:
                label = f"series '{series.name}'" if series.name else str(self.usable().where)
                raise QuintetError(f"{label} has {rows} rows; the model sees windows of {self.length}")
            starts = steps_between(0, rows, self.length, max(1, self.length // 2))
            self._refuse_wide_gaps(number, starts)
            chosen.append(np.full(len(starts), number))
            positions.append(starts + self.context)
        count = len(self.usable().series)
        return self.windows(np.concatenate(chosen), np.concatenate(positions), [0] * count, self.horizon)

    def _refuse_wide_gaps(self, number: int, starts: np.ndarray) -> None:
        """Raises QuintetError for a gap that is all a model would see of a channel."""
        series = self.usable().series[number]
        for channel, column in zip(self.usable().channels, series.values.T, strict=True):
            empty = np.isnan(column)
            if not empty.any():
                continue
            reached = np.zeros(len(column), dtype=bool)
            for start in starts:
                window = slice(start, start + self.length)
                reached[window] |= not empty[window].all()
            if (blind := empty & ~reached).any():
                at = int(blind.argmax())
                first, last = next(gap for gap in stretches(empty) if gap[0] <= at <= gap[1])
                name = f"series '{series.name}': " if series.name else ""
                raise QuintetError(
                    f"{name}'{channel}' has no number from {shown(series.stamps[first])} to "
                    f"{shown(series.stamps[last])}, a gap too long for the {self.length} rows the model sees; leave "
                    "those rows out, or train with a longer data.length"
                )

    def _short(self, part: str) -> Fault | None:
        fault = super()._short(part)
        if fault is None:
            return None
        number = max(range(len(self.rows)), key=lambda number: self.rows[number]["test"][1])
        first, end = self.rows[number][part]
        what = f"has {end - first} {part} rows, and one window takes {self.length} (data.length)"
        return Fault(fault.where, what, "give a shorter data.length, or change data.split")


def steps_between(first: int, end: int, length: int, stride: int) -> np.ndarray:
    """Starts of windows of `length` rows within [first, end), the last flush with the end; none where it is short."""
    if end - first < length:
        return np.zeros(0, dtype=np.int64)
    starts = np.arange(first, end - length + 1, stride)
    return starts if starts[-1] == end - length else np.append(starts, end - length)
