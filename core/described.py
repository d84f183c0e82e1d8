"""Objects that remember how they were constructed, so that a checkpoint can say it and build them again.

A description is plain data: `{"class_path": "quintet.vision.models.nat.NeighborhoodAttentionTransformer", "init_args":
{...}}`, the same form the command line uses, with `"partial": true` where a class waits for more arguments and
`{"function": "torch.nn.functional.gelu"}` for a function. Building from a description imports only from packages that
are trusted and calls only what is a class of layers, optimizers, data or metrics, so that a checkpoint cannot run code.
"""

import functools
import importlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from .errors import QuintetError

TRUSTED_PACKAGES = ("quintet", "torch", "torchvision", "torchmetrics", "timm", "lightning")
TRUSTED_FUNCTIONS = ("quintet", "torch.nn.functional", "torch.nn.init")


class Described:
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


def description_of(value: Any, where: str = "") -> Any:
    """Writes a value down as plain data; raises QuintetError naming the argument that cannot be written down."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [description_of(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): description_of(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Described):
        arguments = {
            key: description_of(item, f"{where}.{key}" if where else key)
            for key, item in value.constructor_arguments.items()
        }
        return {"class_path": _path(type(value)), "init_args": arguments}
    if isinstance(value, functools.partial):
        # jsonargparse hands a class over as an argument of its own instantiator.
        target = next((item for item in value.args if inspect.isclass(item)), value.func)
        arguments = {key: description_of(item, f"{where}.{key}") for key, item in value.keywords.items()}
        return {"class_path": _path(target), "init_args": arguments, "partial": True}
    if inspect.isclass(value):
        return {"class_path": _path(value), "init_args": {}, "partial": True}
    if inspect.isroutine(value) and "<" not in value.__qualname__:
        return {"function": _path(value)}
    if isinstance(value, nn.Module) and not any(True for _ in value.parameters()) and not value._modules:
        try:
            type(value)()
        except TypeError:
            pass
        else:
            return {"class_path": _path(type(value)), "init_args": {}}
    raise QuintetError(
        f"argument '{where}' is a {type(value).__name__}, which a checkpoint cannot describe; pass a class, a "
        "functools.partial, a registered name, or let its class inherit quintet.core.Described"
    )


def build(description: Any, trusted: Iterable[str] = ()) -> Any:
    """Builds what `description_of` wrote down. `trusted` adds packages to those whose classes may be constructed."""
    trusted = (*TRUSTED_PACKAGES, *trusted)
    if isinstance(description, list):
        return [build(item, trusted) for item in description]
    if not isinstance(description, Mapping):
        return description
    if set(description) == {"function"}:
        return _resolve(description["function"], trusted)
    if "class_path" not in description:
        return {key: build(item, trusted) for key, item in description.items()}
    target = _resolve(description["class_path"], trusted)
    arguments = {key: build(item, trusted) for key, item in description.get("init_args", {}).items()}
    return functools.partial(target, **arguments) if description.get("partial") else target(**arguments)


def check_trusted(description: Any, trusted: Iterable[str] = ()) -> None:
    """Raises QuintetError where a description names anything `build` would refuse; constructs nothing."""
    trusted = (*TRUSTED_PACKAGES, *trusted)
    if isinstance(description, list):
        for item in description:
            check_trusted(item, trusted)
    elif isinstance(description, Mapping):
        for key in ("class_path", "function"):
            if isinstance(description.get(key), str):
                _resolve(description[key], trusted)
        for item in description.values():
            check_trusted(item, trusted)


def _path(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _resolve(path: str, trusted: tuple[str, ...]) -> Any:
    """Imports the class or function at `path` if its package is trusted and it is of a kind worth constructing."""
    package = path.split(".")[0]
    if package not in trusted:
        raise QuintetError(
            f"the file asks for {path}, which is not part of quintet; if you trust that code, allow it with "
            f"trust={package}"
        )
    module_path, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_path), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise QuintetError(f"the file asks for {path}, which cannot be imported here: {error}") from None
    if inspect.isclass(found) and (issubclass(found, nn.Module | Optimizer | Described)):
        return found
    own = package not in TRUSTED_PACKAGES
    if inspect.isroutine(found) and (own or found.__name__ != "<lambda>" and path.startswith(TRUSTED_FUNCTIONS)):
        return found
    raise QuintetError(f"the file asks for {path}, which is not a layer, model, optimizer, task or data module")
