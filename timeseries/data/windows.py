"""Windows of series: what a batch holds, what a model must know of them, and the dataset that cuts them out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from ...core.data import Draw


@dataclass
class SeriesDescription:
    """What a forecaster knows of the series it was trained on; travels in its checkpoint.

    Args:
        channels: names of the columns, in order.
        units: of each, "" where the file does not say.
        mean: subtracted from each, of the training rows.
        std: by which each is then divided, of the training rows.
        context: steps a model sees.
        horizon: steps it forecasts.
        frequency: pandas alias of the step, "" where rows are only numbered.
        period: steps in a season.
        calendar: names of calendar features.
        time: what the time axis is called.
        series: what the column of the series' names is called, "" where there is one series.
        seen_until: of each series, the last stamp of training and validation.
    """

    channels: list[str]
    units: list[str]
    mean: list[float]
    std: list[float]
    context: int
    horizon: int
    frequency: str
    period: int
    calendar: list[str]
    time: str
    series: str
    seen_until: dict[str, str]


class Windows(NamedTuple):
    """Windows in units of training standard deviations; NaN where nothing was observed.

    Fields: context (B, L, C); target (B, H, C); calendar (B, L + H, F); seasonal_error (B, C), the mean absolute
    difference of training rows one season apart; series (B), numbers of the series; position (B), numbers of the first
    target rows in their series.
    """

    context: Tensor
    target: Tensor
    calendar: Tensor
    seasonal_error: Tensor
    series: Tensor
    position: Tensor


class WindowDataset(Dataset):
    """Windows cut from one contiguous tensor that holds all series one after the other.

    Args:
        values: scaled, NaN where nothing was observed.
        calendar: features of each row.
        offsets: row at which each series starts.
        seasonal_error: of each series and channel.
        series: number of the series of each window.
        positions: row, in its series, of the first target of each window.
        context: rows before it.
        horizon: rows from it on.
    """

    def __init__(
        self,
        values: Float[Tensor, "rows channels"],
        calendar: Float[Tensor, "rows features"],
        offsets: Int[Tensor, " series"],
        seasonal_error: Float[Tensor, "series channels"],
        series: Int[Tensor, " windows"],
        positions: Int[Tensor, " windows"],
        context: int,
        horizon: int,
    ) -> None:
        self.values, self.calendar, self.seasonal_error = values.contiguous(), calendar.contiguous(), seasonal_error
        self.series, self.positions = series, positions
        self.starts = offsets[series] + positions - context
        self.context, self.horizon = context, horizon

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int | Draw) -> Windows:
        index = index.index if isinstance(index, Draw) else index
        start, middle = int(self.starts[index]), int(self.starts[index]) + self.context
        end, series = middle + self.horizon, self.series[index]
        values = self.values
        return Windows(
            values[start:middle],
            values[middle:end],
            self.calendar[start:end],
            self.seasonal_error[series],
            series,
            self.positions[index],
        )

    def __getitems__(self, indices: Sequence[int | Draw]) -> Windows:
        """A whole batch by one indexing; torch's loaders ask for it where it exists."""
        chosen = torch.tensor([index.index if isinstance(index, Draw) else index for index in indices])
        starts, series = self.starts[chosen], self.series[chosen]
        values = self._rows(self.values, starts)
        return Windows(
            values[:, : self.context],
            values[:, self.context :],
            self._rows(self.calendar, starts),
            self.seasonal_error[series],
            series,
            self.positions[chosen],
        )

    def _rows(self, table: Tensor, starts: Tensor) -> Tensor:
        """The windows (B, L + H, columns) of a table that begin at `starts`."""
        length, columns = self.context + self.horizon, table.shape[1]
        if not columns:
            return table.new_zeros(len(starts), length, 0)
        # A window's rows lie side by side: copied whole they cost a quarter of what indexing row by row does.
        windows = table.flatten().unfold(0, length * columns, columns)
        return windows.index_select(0, starts).unflatten(1, (length, columns))


def as_batch(batch: Windows) -> Windows:
    """What `__getitems__` made is a batch already."""
    return batch
