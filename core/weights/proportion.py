"""What a checkpoint asks to be built is held against the weights it brings: few weights belong to no large network.

Sizes and depths of a record are numbers that anybody may have written: a file of a few kilobytes could ask for blocks
without end, or for tables that take all memory.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from ..errors import QuintetError

# Far beyond what honest networks need: calls of torch for each tensor of weights, and elements of one result.
CALLS, FREE_CALLS = 300, 50_000
# A parameter may be registered again, adapters have several for one weight, and of a backbone that gives maps of its
# first stages alone the rest is built too.
PARAMETERS, FREE_PARAMETERS = 4, 20_000
ELEMENTS, FREE_ELEMENTS = 64, 1 << 27
LARGEST = 2_000_000  # of the whole numbers among the arguments of a task; some are counted up to in plain Python
SEEDS = ("seed",)


class OutOfProportion(QuintetError):
    """A record asks for more than belongs to its weights."""

    def __init__(self, where: Any) -> None:
        super().__init__(f"{where} is damaged: its record asks for a far larger network than its weights are of")


def check_numbers(node: Any, where: Any) -> None:
    """Raises QuintetError for a number among the arguments of a task that is no size of anything."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key not in SEEDS:
                check_numbers(value, where)
    elif isinstance(node, list | tuple):
        for value in node:
            check_numbers(value, where)
    elif isinstance(node, int) and abs(node) > LARGEST:
        raise QuintetError(
            f"{where} is damaged: a number in its record is {str(node)[:20]}, which no network is built with"
        )


@contextmanager
def within(state: Mapping[str, Tensor], where: Any) -> Iterator[None]:
    """While it lasts, raises QuintetError once more is built than belongs to these weights."""
    left = FREE_PARAMETERS + PARAMETERS * len(state)

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OutOfProportion(where)

    hook = register_module_parameter_registration_hook(count)
    try:
        with _Counted(state, where):
            yield
    finally:
        hook.remove()


class _Counted(TorchFunctionMode):
    """Counts what torch is asked for, and looks at the size of what it gives."""

    def __init__(self, state: Mapping[str, Tensor], where: Any) -> None:
        super().__init__()
        self.where = where
        self.calls = FREE_CALLS + CALLS * len(state)
        self.largest = FREE_ELEMENTS + ELEMENTS * sum(value.numel() for value in state.values())

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.calls -= 1
        large = isinstance(result, Tensor) and result.device.type != "meta" and result.numel() > self.largest
        if large or self.calls < 0:
            raise OutOfProportion(self.where)
        return result
