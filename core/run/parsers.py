"""The parser that turns values into the arguments of a constructor, by its types."""

import contextlib

import numpy as np
import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import register_type
from torch import Tensor

# jsonargparse takes `Callable[[Tensor], Tensor]` for a factory of objects, refuses most functions for it, and leaves a
# default that is a function the text of its name, unless tensors and arrays are values.
register_type(Tensor, Tensor.tolist, torch.tensor)
register_type(np.ndarray, np.ndarray.tolist, np.array)


class _Numbers(type):
    def __instancecheck__(cls, value: object) -> bool:
        return type(value) in (int, float)


class CountOrShare(metaclass=_Numbers):
    """A type of options alone: a number of things, whole, or a share of them, a fraction. 1 is one, and 1.0 are all.

    `int | float` says the same, but Python's typing and those who read it may hand back equal unions in the order in
    which anybody wrote them first, fractions before whole numbers: 1 became 1.0.
    """


def _count_or_share(value: object) -> int | float:
    for kind in (int, float) if isinstance(value, str) else ():
        with contextlib.suppress(ValueError):
            return kind(value)
    if not isinstance(value, CountOrShare):
        raise ValueError(f"{value!r} is neither a whole number nor a fraction")
    return value


register_type(CountOrShare, lambda value: value, _count_or_share, type_check=isinstance)


def argument_parser() -> ArgumentParser:
    """A parser that raises what is wrong instead of ending the process."""
    return ArgumentParser(exit_on_error=False)
