"""From what a user writes for `backbone` to a network: a registered name, a class or a function."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import nn

from ..core.errors import QuintetError, nearest
from ..core.weights.registry import model_entry, stored_arguments


@runtime_checkable
class Backbone(Protocol):
    """A class or function that builds a forecaster; see `ITransformer` for what its `forward` takes and gives."""

    def __call__(self, *, context: int, horizon: int, outputs: int) -> nn.Module: ...


def build_backbone(
    backbone: str | Backbone, context: int, horizon: int, outputs: int, arguments: Mapping[str, Any]
) -> nn.Module:
    """The network with random weights; `arguments` go to its constructor.

    Raises QuintetError for an unknown name and for an argument the backbone does not take.
    """
    return build_network(backbone, {"context": context, "horizon": horizon, "outputs": outputs}, arguments)


def build_network(
    backbone: str | Callable[..., nn.Module],
    own: Mapping[str, Any],
    arguments: Mapping[str, Any],
    kind: str = "a forecaster",
    example: str = "itransformer",
) -> nn.Module:
    """The network with random weights.

    Args:
        backbone: a registered name, or what builds a network.
        own: arguments that follow from the data.
        arguments: the user's.
        kind: of network, for messages.
        example: a registered one of that kind that takes a mixer.

    Raises QuintetError for an unknown name and for an argument the backbone does not take.
    """
    build = model_entry(backbone).build if isinstance(backbone, str) else backbone
    try:
        return build(**own, **arguments)
    except TypeError as error:
        # Only the complaint about an argument that was passed from here is the user's; others are mistakes in the code.
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None or unknown[1] not in {*own, *arguments}:
            raise
        name = unknown[1]
        if name in own:
            *most, last = own
            remedy = f"{kind} is called with {', '.join(most)} and {last}"
        elif name == "mixer":
            remedy = f"give a backbone that does, such as {example}"
        else:
            remedy = nearest(name, _parameters(build))
        raise QuintetError(f"{name_of(backbone)} takes no {name}; {remedy}") from None


def accepts(backbone: str | Backbone, argument: str) -> bool:
    """Whether a backbone's constructor has an argument of this name."""
    return argument in _parameters(model_entry(backbone).build if isinstance(backbone, str) else backbone)


def sizes_in(backbone: str | Backbone, pretrained: bool | str, accept_license: bool = False) -> dict[str, Any]:
    """Constructor arguments that a file of weights states; none where the backbone cannot read them from it."""
    entry = model_entry(backbone) if isinstance(backbone, str) else None
    build, sources = (entry.build, entry.pretrained) if entry else (_target(backbone), {})
    return stored_arguments(build, pretrained, sources, name_of(backbone), accept_license)


def name_of(backbone: str | Backbone) -> str:
    """What to call a backbone in a message."""
    if isinstance(backbone, str):
        return backbone
    target = _target(backbone)
    return getattr(target, "__name__", type(target).__name__)


def _parameters(build: Any) -> list[str]:
    signature = inspect.signature(_target(build))
    if inspect.isclass(signature.return_annotation):  # a builder passes its arguments on to what it returns
        signature = inspect.signature(signature.return_annotation)
    return list(signature.parameters)


def _target(factory: Any) -> Any:
    """The class or function behind a partial; jsonargparse hands a class to a partial of its own instantiator."""
    passed = next((item for item in getattr(factory, "args", ()) if inspect.isclass(item)), None)
    return passed or getattr(factory, "func", factory)
