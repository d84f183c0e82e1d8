"""What of a forecaster runs elsewhere: series in the user's own units in, forecasts in the same units out."""

import torch
from torch import Tensor, nn

from ...core.errors import QuintetError
from ...core.export import Deployable
from ...core.task import Task


class DeployedForecaster(nn.Module):
    """Scales windows, forecasts and scales back; what was not observed is NaN."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, values: Tensor, calendar: Tensor | None = None) -> tuple[Tensor]:
        scaled = ((values - self.task.mean) / self.task.std).float()
        return (self.task.restored(self.task(scaled, calendar)),)


def deployable_forecaster(task: Task) -> Deployable:
    """Examples of windows for a forecaster, some of whose values are missing.

    Raises QuintetError for a model that takes covariates.
    """
    known = task.description
    if known.covariate_features():
        raise QuintetError(
            "a forecaster with covariates is not exported as a graph, which could not read their categories; "
            "format=safetensors takes its weights"
        )
    generator = torch.Generator().manual_seed(0)

    def draw(number: int, *sizes: int) -> Tensor:
        return torch.randn(number, *sizes, generator=generator, dtype=torch.float64)

    def inputs(number: int) -> dict[str, Tensor]:
        found = {"values": draw(number, known.context, len(known.channels)) * task.std + task.mean}
        found["values"][1, : known.context // 2] = torch.nan
        if known.calendar:
            # As data.calendar writes them: shares of a day, a week or a year around 0.
            found["calendar"] = (
                draw(number, known.context + known.horizon, len(known.calendar)).float().clamp(-0.5, 0.5)
            )
        return found

    example = inputs(2)
    rows = f"(batch, {known.context}, {len(known.channels)})"
    about = {
        "inputs": {"values": f"float64 {rows}, in the series' own units, NaN where nothing was observed"},
        "outputs": {"forecast": f"float64 (batch, {known.horizon}, {len(known.channels)}, quantiles)"},
        "channels": known.channels,
        "units": known.units,
        "quantiles": task.quantiles,
    }
    if known.calendar:
        about["inputs"]["calendar"] = f"float32 (batch, {known.context + known.horizon}, {len(known.calendar)})"
        about["calendar"] = known.calendar
    axes = {name: {0: "batch"} for name in example}
    return Deployable(DeployedForecaster(task), example, inputs(3), axes, ["forecast"], about)
