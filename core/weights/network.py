"""What networks say of themselves, beside what they compute: the contract that tasks and loaders read.

A network of quintet inherits `Network` and says what differs from its defaults. A module of another library, or of a
user's own file, need not inherit it: what it has under these names is taken, and for the rest it says what `Network`
does. `said` is the only way to ask.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from ..errors import QuintetError
from .described import Described
from .layout import Layout


class Network(Described, nn.Module):
    """A network that is built once the data say its sizes.

    Attributes:
        head_keys: names of the parameters that belong to the task it was trained for: published weights with a head of
            another size leave them as initialised, and `freeze=[backbone]` leaves them to learn. Names that it lacks
            are of heads of its kind whose weights a file may hold, and which it leaves out.
        layouts: in which other projects publish its weights.
        optional_buffers: names of buffers that a state dict may hold or not.
        no_weight_decay: names of parameters with several axes that are not decayed.
        remedies: what to do about an argument that it does not take, by the argument.
        feature_info: (channels, stride) of each of its feature maps, finest first; none where it has none.
        finetune: words by which `quintet fit` trains it further on one's own data.
    """

    head_keys: Sequence[str] = ()
    layouts: ClassVar[tuple[Layout, ...]] = ()
    optional_buffers: ClassVar[tuple[str, ...]] = ()
    no_weight_decay: ClassVar[tuple[str, ...]] = ()
    remedies: ClassVar[dict[str, str]] = {}
    feature_info: Sequence[tuple[int, int]] = ()
    finetune: str = ""
    arguments_from: ClassVar[Callable[[Path], dict[str, Any]] | None] = None
    """Reads from a file of weights the constructor arguments that it states, where a network can."""

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names from the first layer to the last, without the head; empty where there is none."""
        return []

    def feature_maps(self, inputs: Tensor) -> list[Tensor]:
        """One map (batch, channels, *grid) for each of `feature_info`. Raises QuintetError where there is none."""
        raise QuintetError(f"{type(self).__name__} has no feature maps")


def said(network: nn.Module, name: str, contract: type[Network] = Network) -> Any:
    """What a network says under a name of a contract, or what that itself says where the network is silent.

    Methods come bound. Raises AttributeError for a name that the contract does not have.
    """
    default = getattr(contract, name)
    if hasattr(network, name):
        return getattr(network, name)
    return partial(default, network) if callable(default) else default
