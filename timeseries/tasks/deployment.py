"""What of a forecaster or classifier runs elsewhere: series in the user's own units in, forecasts or classes out."""

import torch
from torch import Tensor, nn

from ...core.errors import QuintetError
from ...core.learning.deployable import Deployable
from ...core.learning.task import Task


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


class DeployedClassifier(nn.Module):
    """Scales whole series and gives the probabilities of their classes; what was not observed is NaN."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.register_buffer("mean", torch.tensor(task.description.mean, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(task.description.std, dtype=torch.float64))

    def forward(self, values: Tensor) -> tuple[Tensor]:
        scaled = ((values - self.mean) / self.std).float()
        return (self.task(scaled).float().softmax(1),)


def deployable_classifier(task: Task) -> Deployable:
    """Examples of series for a classifier, those of one batch equally long, one of them with a gap."""
    known, generator = task.description, torch.Generator().manual_seed(0)

    def inputs(number: int, length: int) -> dict[str, Tensor]:
        drawn = torch.randn(number, length, len(known.channels), generator=generator, dtype=torch.float64)
        values = drawn * torch.tensor(known.std) + torch.tensor(known.mean)
        values[1, : length // 2] = torch.nan
        return {"values": values}

    about = {
        "inputs": {
            "values": f"float64 (batch, time, {len(known.channels)}), in the series' own units, NaN where nothing was "
            "observed; the series of a batch are equally long"
        },
        "outputs": {"probabilities": f"float32 (batch, {len(known.classes)})"},
        "channels": known.channels,
        "units": known.units,
        "classes": known.classes,
    }
    axes = {"values": {0: "batch", 1: "time"}}
    longest = max(known.longest, 2)
    module, other = DeployedClassifier(task), inputs(3, longest + 3)
    return Deployable(module, inputs(2, longest), other, axes, ["probabilities"], about)
