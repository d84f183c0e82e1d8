"""The parser that turns values into the arguments of a constructor, by its types."""

import numpy as np
import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import register_type
from torch import Tensor

# jsonargparse takes `Callable[[Tensor], Tensor]` for a factory of objects, refuses most functions for it, and leaves a
# default that is a function the text of its name, unless tensors and arrays are values.
register_type(Tensor, Tensor.tolist, torch.tensor)
register_type(np.ndarray, np.ndarray.tolist, np.array)


def argument_parser() -> ArgumentParser:
    """A parser that raises what is wrong instead of ending the process."""
    return ArgumentParser(exit_on_error=False)
