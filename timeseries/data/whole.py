"""Windows that are read as one and lie wholly in their part of the rows, so that no training row is scored."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool

from ...core.data.faults import Fault
from ...core.errors import QuintetError
from .files import Given
from .series import SeriesData
from .windows import SeriesDescription, WindowDataset


def steps_between(first: int, end: int, length: int, stride: int) -> np.ndarray:
    """Starts of windows of `length` rows within [first, end), the last flush with the end; none where it is short."""
    if end - first < length:
        return np.zeros(0, dtype=np.int64)
    starts = np.arange(first, end - length + 1, stride)
    return starts if starts[-1] == end - length else np.append(starts, end - length)


class WholeWindows(SeriesData):
    """Series cut into windows of `length` rows without a horizon apart; see `SeriesData` for how files are read.

    Training windows begin at every `stride` rows, those of validation and test follow one another; where a part ends,
    the last one reaches back. To predict, windows overlap by half.

    Args:
        path: the file, or a folder of files of one shape; in Python also a DataFrame, DataArray or Dataset.
        length: rows of a window.
        stride: rows from one training window to the next.
        **series: further arguments of `SeriesData`.

    Raises:
        QuintetError: from `setup`, where the file cannot be read the way it is meant, or is too short.
    """

    short: ClassVar[tuple[str, str]]  # of a part in which no window fits: what is wrong, after its rows, and the remedy

    def __init__(self, path: Given, length: int, stride: int = 1, **series: Any) -> None:
        if length < 2:
            raise QuintetError(f"data.length is {length}; a window has at least 2 rows")
        if stride < 1:
            raise QuintetError(f"data.stride is {stride}; give at least 1")
        # A window is the context and the target of a forecast together; where one ends plays no part here.
        super().__init__(path, length // 2, length - length // 2, **series)
        self.stride = stride

    @property
    def length(self) -> int:
        """Rows of a window."""
        return self.context + self.horizon

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False  # any table of series could be one

    def adopt(self, description: SeriesDescription) -> None:
        own, trained = self.constructor_arguments.get("length"), description.context + description.horizon
        if own not in (None, trained):
            raise QuintetError(f"data.length={own}: this model was trained with data.length={trained}")
        super().adopt(description)

    def prepare(self, stages: tuple[str, ...]) -> None:
        super().prepare(tuple(stage for stage in stages if stage != "predict"))
        if "predict" in stages:
            self.datasets["predict"] = self._everywhere()

    def teaches(self, values: np.ndarray) -> Bool[np.ndarray, " rows"]:
        """Rows of a series of which one at least must be in a window that teaches or tests."""
        raise NotImplementedError

    def check_windows(self, number: int, starts: np.ndarray) -> None:
        """Raises QuintetError where the windows of a series to predict show too little."""

    def _places(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        chosen, positions = [], []
        for number, (series, rows) in enumerate(zip(self.usable().series, self.rows, strict=True)):
            starts = steps_between(*rows[part], self.length, self.stride if part == "train" else self.length)
            seen = np.concatenate([[0], np.cumsum(self.teaches(series.values))])
            starts = starts[seen[starts + self.length] > seen[starts]]
            chosen.append(np.full(len(starts), number))
            positions.append(starts + self.context)
        return np.concatenate(chosen), np.concatenate(positions)

    def _everywhere(self) -> WindowDataset:
        """Windows over all rows of all series, which overlap by half."""
        self.adopted()
        chosen, positions = [], []
        for number, series in enumerate(self.usable().series):
            rows = len(series.values)
            if rows < self.length:
                raise QuintetError(f"{self.label(number)} has {rows} rows; the model sees windows of {self.length}")
            starts = steps_between(0, rows, self.length, self.length // 2)
            self.check_windows(number, starts)
            chosen.append(np.full(len(starts), number))
            positions.append(starts + self.context)
        count = len(self.usable().series)
        return self.windows(np.concatenate(chosen), np.concatenate(positions), [0] * count, self.horizon)

    def label(self, number: int) -> str:
        """What messages call a series."""
        name = self.usable().series[number].name
        return f"series '{name}'" if name else str(self.usable().where)

    def _short(self, part: str) -> Fault | None:
        fault = super()._short(part)
        if fault is None:
            return None
        number = max(range(len(self.rows)), key=lambda number: self.rows[number]["test"][1])
        first, end = self.rows[number][part]
        what, remedy = self.short
        return Fault(fault.where, f"has {end - first} {part} rows, and {what.format(length=self.length)}", remedy)
