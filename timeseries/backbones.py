"""From what a user writes for `backbone` to a network: a registered name, a class or a function."""

import inspect
import re
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import nn

from ..core.errors import QuintetError, nearest
from ..core.registry import model_entry


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
    build = model_entry(backbone).build if isinstance(backbone, str) else backbone
    own = {"context": context, "horizon": horizon, "outputs": outputs}
    try:
        return build(**own, **arguments)
    except TypeError as error:
        # Only the complaint about an argument that was passed from here is the user's; others are mistakes in the code.
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None or unknown[1] not in {*own, *arguments}:
            raise
        name = unknown[1]
        if name in own:
            remedy = "a forecaster is called with context, horizon and outputs"
        elif name == "mixer":
            remedy = "give a backbone that does, such as itransformer"
        else:
            remedy = nearest(name, _parameters(build))
        raise QuintetError(f"{name_of(backbone)} takes no {name}; {remedy}") from None


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
