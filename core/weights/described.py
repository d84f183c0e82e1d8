"""Objects that remember how they were constructed, so that a checkpoint can say it.

A description is plain data: `{"class_path": "quintet.vision.models.NeighborhoodAttentionTransformer", "init_args":
{...}}`, the same form the command line uses, with `"partial": true` where a class waits for more arguments and
`{"function": "torch.nn.functional.gelu"}` for a function. `records.build` makes objects of it again. What could not be
built again is refused when it is described, not when the checkpoint is needed.
"""

import functools
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import accumulate
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import QuintetError
from .trusted import LIBRARIES, RESERVED, Describable, is_trusted, resolve


class Described(Describable):
    """Base that records the arguments of the constructor; `description_of(instance)` writes them down."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Described":
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError:
            # Wrong arguments: the constructor itself says so next. Copying and unpickling pass none and restore ours.
            return self
        arguments = dict(list(bound.arguments.items())[1:])
        for parameter in bound.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments |= arguments.pop(parameter.name, {})
        object.__setattr__(self, "constructor_arguments", arguments)
        return self

    def restate(self, **arguments: Any) -> None:
        """Records values of constructor arguments that turned out to be others than it was called with."""
        self.constructor_arguments.update(arguments)


def description_of(value: Any, where: str = "") -> Any:
    """Writes a value down as plain data; raises QuintetError naming the argument that cannot be written down."""
    if value is None or isinstance(value, bool):
        return value
    # Subclasses (numpy's numbers, enumerations) are no plain data: a checkpoint with them would be refused as unsafe.
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence | set | frozenset):
        items = [description_of(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        if taken := RESERVED & {key for key in value if isinstance(key, str)}:
            raise QuintetError(f"argument '{where}' has the key '{min(taken)}', which in a checkpoint means an object")
        return {description_of(key, where): description_of(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Described):
        return {"class_path": _path(type(value), where), "init_args": _named_arguments(value, where)}
    if isinstance(value, functools.partial):
        target = _target_of(value, where)
        arguments = {key: description_of(item, f"{where}.{key}") for key, item in value.keywords.items()}
        return {"class_path": _path(target, where), "init_args": arguments, "partial": True}
    if inspect.isclass(value):
        return {"class_path": _path(value, where), "init_args": {}, "partial": True}
    if inspect.isroutine(value):
        return {"function": _path(value, where)}
    if isinstance(value, nn.Module) and (settings := _settings_of(value)) is not None:
        return {"class_path": _path(type(value), where), "init_args": description_of(settings, where)}
    raise QuintetError(
        f"argument '{where}' is a {type(value).__name__}, which a checkpoint cannot describe; pass a class, a "
        "functools.partial, a registered name, or let its class inherit quintet.core.Described"
    )


def _named_arguments(value: Described, where: str) -> dict[str, Any]:
    """The recorded arguments of a constructor, as plain data."""
    for parameter in inspect.signature(type(value).__init__).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL and parameter.name in value.constructor_arguments:
            raise QuintetError(
                f"a checkpoint cannot describe {type(value).__name__}(*{parameter.name}); let it take a list instead"
            )
    return {
        key: description_of(item, f"{where}.{key}" if where else key)
        for key, item in value.constructor_arguments.items()
    }


def _target_of(value: functools.partial, where: str) -> Any:
    """The class or function that a partial completes."""
    if value.func.__module__.startswith("jsonargparse."):
        # jsonargparse hands a class over as an argument of its own instantiator.
        return next(item for item in value.args if inspect.isclass(item))
    if value.args:
        raise QuintetError(f"argument '{where}' is a partial with positional arguments; pass them by name")
    return value.func


def _settings_of(layer: nn.Module) -> dict[str, Any] | None:
    """Constructor arguments of a layer without tensors, e.g. Dropout(0.2), from the attributes of the same names.

    None where they do not say everything: a layer built from them must have the same attributes.
    """
    if layer._parameters or layer._buffers or layer._modules:
        return None
    names = inspect.signature(type(layer).__init__).parameters
    settings = {name: item for name, item in vars(layer).items() if name in names}
    try:
        twin = type(layer)(**settings)
    except TypeError:
        return None
    visible = [
        {name: repr(item) for name, item in vars(module).items() if name[0] != "_" and name != "training"}
        for module in (layer, twin)
    ]
    return settings if visible[0] == visible[1] else None


def to_json(description: Any) -> str:
    """Plain data as JSON that `from_json` gives back as it is: tuples stay tuples, numbers stay numbers as keys."""
    return json.dumps(_tagged(description))


def from_json(text: str) -> Any:
    """Undoes `to_json`."""
    return json.loads(text, object_hook=_untagged)


def _tagged(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"(tuple)": [_tagged(item) for item in value]}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if all(isinstance(key, str) and key not in ("(tuple)", "(mapping)") for key in value):
        return {key: _tagged(item) for key, item in value.items()}
    return {"(mapping)": [[_tagged(key), _tagged(item)] for key, item in value.items()]}


def _untagged(value: dict[str, Any]) -> Any:
    if value.keys() == {"(tuple)"}:
        return tuple(value["(tuple)"])
    return dict(value["(mapping)"]) if value.keys() == {"(mapping)"} else value


def packages_of(description: Any) -> set[str]:
    """Packages that a description needs besides those that are always trusted."""
    if isinstance(description, list | tuple):
        return {name for item in description for name in packages_of(item)}
    if not isinstance(description, Mapping):
        return set()
    paths = [description[key] for key in ("class_path", "function") if isinstance(description.get(key), str)]
    own = {path.split(".")[0] for path in paths if not is_trusted(path)}
    return own | packages_of(list(description.values()))


def _path(target: Any, where: str) -> str:
    """The dotted path of a class or function under which it is found again: the shortest of those packages offer."""
    module, name = getattr(target, "__module__", None) or "", target.__name__
    homes = list(accumulate(module.split("."), "{}.{}".format))
    paths = [f"{home}.{target.__qualname__}" for home in homes if home in sys.modules]
    # torch's own functions say that they live in its C modules.
    for path in (*paths, f"torch.nn.functional.{name}", f"torch.{name}"):
        try:
            if resolve(path, {path.split(".")[0]} - set(LIBRARIES)) is target:
                return path
        except QuintetError:
            continue
    raise QuintetError(
        f"argument '{where}' is {target!r}, which a checkpoint could not find again; pass a class of layers, or a "
        "function, that a module defines under its own name"
    )
