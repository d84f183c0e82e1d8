"""Series with gaps to be filled."""

from typing import Any, ClassVar

import numpy as np

from ...core.errors import QuintetError
from ..metrics.anomalies import stretches
from .files import Given
from .stamps import shown
from .whole import WholeWindows

UNREAD = ("past", "future", "static", "categorical", "calendar")


def refuse_unread(arguments: dict[str, Any], who: str) -> None:
    """Raises QuintetError for columns that would be read and not used."""
    for name in UNREAD:
        if arguments.get(name):
            raise QuintetError(f"data.{name}: {who} reads the target columns alone; name columns with data.target")


class ImputationData(WholeWindows):
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

    short: ClassVar[tuple[str, str]] = (
        "one window takes {length} (data.length)",
        "give a shorter data.length, or change data.split",
    )

    fixed: ClassVar[frozenset[str]] = WholeWindows.fixed | {"length"}

    def __init__(self, path: Given, length: int = 96, **series: Any) -> None:
        refuse_unread(series, "an imputer")
        super().__init__(path, length, **series)

    def purpose(self) -> str:
        return f"sees windows of {self.length} steps, fills the gaps in them"

    def teaches(self, values: np.ndarray) -> np.ndarray:
        # A window in which nothing was observed neither teaches nor tests.
        return ~np.isnan(values).all(1)

    def check_windows(self, number: int, starts: np.ndarray) -> None:
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
