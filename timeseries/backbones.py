"""What a user may give as `backbone` of a task on windows of series."""

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Backbone(Protocol):
    """A class or function that builds a forecaster; see `ITransformer` for what its `forward` takes and gives."""

    def __call__(self, *, context: int, horizon: int, outputs: int) -> nn.Module: ...
