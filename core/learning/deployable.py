"""What a task says of itself that runs elsewhere: a module from what users have to what they want, with examples."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class Deployable:
    """What of a task runs elsewhere.

    Args:
        module: called with the tensors of `inputs` in their order; returns a tuple of tensors.
        inputs: examples by name, two samples each.
        other: the same of other sizes where sizes may differ, three samples each.
        axes: of each input the axes that may have any size, and their names.
        outputs: names of the results.
        alone: one sample; None takes the first of `other` along the first axis of each input.
        about: what goes into the file besides: plain data a person reads, such as classes and units.
        note: one line for whom exports it, where something is not as they may expect.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    other: dict[str, Tensor]
    axes: dict[str, dict[int, str]]
    outputs: list[str]
    about: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    alone: dict[str, Tensor] | None = None
