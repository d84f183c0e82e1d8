"""Windows of series: what a batch holds, what a model must know of them, and the dataset that cuts them out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from ...core.data.module import Draw
from ..models.covariates import ROLES, Covariates
from .features import Covariate


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
        past: covariates known up to the forecast.
        future: covariates known over the horizon too.
        static: covariates that each series has one value of.
    """

    together: ClassVar[tuple[tuple[str, ...], ...]] = (("channels", "units", "mean", "std"),)

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
    past: list[Covariate | dict[str, Any]] = field(default_factory=list)
    future: list[Covariate | dict[str, Any]] = field(default_factory=list)
    static: list[Covariate | dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A checkpoint holds plain dictionaries, which become what they were.
        for role in ROLES:
            columns = [Covariate(**one) if isinstance(one, dict) else one for one in getattr(self, role)]
            setattr(self, role, columns)

    def covariate_features(self) -> dict[str, int]:
        """Number of features of each role that has any."""
        counts = {role: sum(column.features for column in getattr(self, role)) for role in ROLES}
        return {role: count for role, count in counts.items() if count}


class Windows(NamedTuple):
    """Windows in units of training standard deviations; NaN where nothing was observed.

    Fields: context (B, L, C); target (B, H, C); calendar (B, L + H, F); seasonal_error (B, C), the mean absolute
    difference of training rows one season apart; series (B), numbers of the series; position (B), numbers of the first
    target rows in their series; covariates, None where the data have none.
    """

    context: Tensor
    target: Tensor
    calendar: Tensor
    seasonal_error: Tensor
    series: Tensor
    position: Tensor
    covariates: Covariates | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Windows":
        """The same windows on another device, what is no number of a row in another type where one is given."""

        def moved(part: Tensor) -> Tensor:
            return part.to(device, dtype if part.is_floating_point() else None)

        return Windows(*map(moved, self[:6]), self.covariates and Covariates(*map(moved, self.covariates)))


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
        past: features of each row that are known up to the forecast; None where no role has any, as the next two.
        future: features of each row that are known over the horizon too.
        static: features of each series.
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
        past: Float[Tensor, "rows past"] | None = None,
        future: Float[Tensor, "rows future"] | None = None,
        static: Float[Tensor, "series static"] | None = None,
    ) -> None:
        self.values, self.calendar, self.seasonal_error = values.contiguous(), calendar.contiguous(), seasonal_error
        self.covariates = None
        if not (past is None and future is None and static is None):
            self.covariates = Covariates(
                values.new_zeros(len(values), 0) if past is None else past.contiguous(),
                values.new_zeros(len(values), 0) if future is None else future.contiguous(),
                values.new_zeros(len(offsets), 0) if static is None else static,
            )
        self.series, self.positions = series, positions
        self.starts = offsets[series] + positions - context
        self.context, self.horizon = context, horizon

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int | Draw) -> Windows:
        batch = self.__getitems__([index])
        covariates = batch.covariates and Covariates(*(part[0] for part in batch.covariates))
        return Windows(*(part[0] for part in batch[:6]), covariates)

    def __getitems__(self, indices: Sequence[int | Draw]) -> Windows:
        """A whole batch by one indexing; torch's loaders ask for it where it exists."""
        chosen = torch.tensor([index.index if isinstance(index, Draw) else index for index in indices])
        starts, series = self.starts[chosen], self.series[chosen]
        length = self.context + self.horizon
        values, covariates = _rows(self.values, starts, length), None
        if self.covariates is not None:
            past, future, static = self.covariates
            covariates = Covariates(_rows(past, starts, self.context), _rows(future, starts, length), static[series])
        return Windows(
            values[:, : self.context],
            values[:, self.context :],
            _rows(self.calendar, starts, length),
            self.seasonal_error[series],
            series,
            self.positions[chosen],
            covariates,
        )


def _rows(table: Tensor, starts: Tensor, length: int) -> Tensor:
    """The windows (B, length, columns) of a table that begin at `starts`."""
    columns = table.shape[1]
    if not columns:
        return table.new_zeros(len(starts), length, 0)
    # A window's rows lie side by side: copied whole they cost a quarter of what indexing row by row does.
    windows = table.flatten().unfold(0, length * columns, columns)
    return windows.index_select(0, starts).unflatten(1, (length, columns))


def as_batch(batch: Windows) -> Windows:
    """What `__getitems__` made is a batch already."""
    return batch
