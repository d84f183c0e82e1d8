"""What networks over windows of series say of themselves beside the contract of all networks."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ...core.weights.network import Network


class ForecastNetwork(Network):
    """A network that forecasts windows; `ITransformer` says what its `forward` takes and gives.

    Attributes:
        context: steps it reads.
        horizon: steps it forecasts.
        reads_future_calendar: its calendar is of context and horizon, else of the context alone.
        takes: roles of covariates that it reads: past, future, static.
        levels: of the quantiles that it forecasts; None where these are chosen from outside.
        max_horizon: steps that it can be asked for at most; None for its horizon.
    """

    context: int
    horizon: int
    reads_future_calendar: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset()
    levels: Sequence[float] | None = None
    max_horizon: int | None = None
    training_forecasts: ClassVar[Callable[..., Any] | None] = None
    """Forecasts and targets of a window in training, where a network forecasts inside its context too."""

    @property
    def finetune(self) -> str:
        return f"experiment=timeseries/finetune data.path=FILE data.context={self.context} data.horizon={self.horizon}"
