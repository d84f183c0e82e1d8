"""Which classes and functions a file may name: those that compute, and none that read, write, fetch or start anything.

A file never decides what is imported. Only modules that quintet itself has, and rooms of layers of a few libraries, are
looked into, and what is found must be at home there or below: a name that a module merely imported for itself is not
its own. Classes must be layers, optimizers or Describable; functions must live among layers. `trust=PACKAGE`, which
only a person can say, adds the classes and functions of one package of theirs.
"""

import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import QuintetError
from .former import present_path

# Where classes of other libraries may live: rooms whose constructors open and fetch nothing.
CLASS_MODULES = re.compile(
    r"torch\.nn(\.modules(\.\w+)*)?|torch\.optim(\.\w+)*"
    r"|torchvision\.(transforms|ops)(\.\w+)*|timm\.(layers|models)(\.\w+)*"
    r"|torchmetrics\.(classification|regression|segmentation|aggregation)(\.\w+)*"
)
TORCH_FUNCTIONS = ("relu", "sigmoid", "tanh", "sin", "exp")
ROOT = __name__.split(".")[0]
# Rooms of quintet in which commands run, or pictures are drawn, hold nothing that a checkpoint is made of.
WITHOUT_LAYERS = re.compile(
    rf"{ROOT}\.(configs|core\.(run|bench|catalogue|writing|pictures)|\w+\.(pictures|pretrained))(\.\w+)*"
)
LIBRARIES = ("torch", "torchvision", "torchmetrics", "timm", "lightning", "quintet")
# Keys by which quintet or a library it uses recognises an object to build; no plain mapping of a file has them.
RESERVED = frozenset(
    {"class_path", "init_args", "dict_kwargs"}
    | {"_target_", "_partial_", "_args_", "_convert_", "_recursive_", "_name_", "__path__", "__orig__"}
)


class Describable:
    """What a checkpoint may build besides layers and optimizers: all that says itself how it was constructed."""


@functools.cache
def own_modules() -> dict[str, Path]:
    """Quintet's packages and the modules in them, by dotted name, and where each lies; found without importing any."""

    def below(package: str, folders: Iterable[str]) -> Iterator[tuple[str, Path]]:
        for item in pkgutil.iter_modules(folders):
            name, place = f"{package}.{item.name}", Path(item.module_finder.path, item.name)
            # Beside packages lie the command and, in a checkout, the script that builds the wheel.
            if item.ispkg or (package != ROOT and item.name != "__main__"):
                yield name, place / "__init__.py" if item.ispkg else place.with_suffix(".py")
            if item.ispkg:
                yield from below(name, [str(place)])

    found = below(ROOT, list(sys.modules[ROOT].__path__))
    return {name: place for name, place in found if not WITHOUT_LAYERS.fullmatch(name)}


def is_trusted(path: str) -> bool:
    """Whether a dotted path lies in a module that is looked into without being trusted by name."""
    module, _, name = present_path(path).rpartition(".")
    if name.startswith("_"):
        return False
    function = module == "torch.nn.functional" or (module == "torch" and name in TORCH_FUNCTIONS)
    return module in own_modules() or bool(CLASS_MODULES.fullmatch(module)) or function


def resolve(path: Any, trusted: Iterable[str] = ()) -> Any:
    """The class or function at `path`, imported only if its module may be looked into.

    Raises QuintetError where it may not, where nothing is found, and where what is found is of another kind or home.
    """
    trusted = tuple(trusted)
    if not isinstance(path, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", path):
        raise QuintetError(f"the file asks for {path!r}, which names no class")
    path = present_path(path)
    own = _is_below(path, trusted)
    if not own and not is_trusted(path):
        raise QuintetError(f"the file asks for {path}, which is not part of quintet{_remedy(path)}")
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise QuintetError(f"the file asks for {path}, which cannot be imported here: {error}") from None
    if own and _is_below(f"{_home(found)}.", trusted) and (inspect.isclass(found) or inspect.isroutine(found)):
        return found
    if is_trusted(path) and (_is_class(found, module) or _is_function(found, module)):
        return found
    raise QuintetError(f"the file asks for {path}, which is not a layer, model, optimizer, task or data module")


def check_trust(packages: Any) -> None:
    """Raises QuintetError where what is to be trusted is not a list of packages of the user's own."""
    for package in packages if isinstance(packages, list | tuple) else [packages]:
        if not isinstance(package, str) or not all(part.isidentifier() for part in package.split(".")):
            raise QuintetError(f"trust={package}: give the name of a package or module of yours, such as trust=my_nets")
        if package.split(".")[0] in (*sys.stdlib_module_names, *LIBRARIES):
            raise QuintetError(f"trust={package}: {package} is no code of yours; trust names your own packages")


def _is_below(path: str, packages: Iterable[str]) -> bool:
    return any(path.startswith(f"{package}.") for package in packages)


def _remedy(path: str) -> str:
    package = path.split(".")[0]
    if package in sys.stdlib_module_names or package in LIBRARIES:
        return "'s layers, models, tasks and data; no checkpoint of quintet's does"
    return f"; if that code is your own, allow it with trust={package}"


def _home(found: Any) -> str:
    """The module in which a class or function was defined; torch's C functions do not say."""
    return getattr(found, "__module__", None) or ""


def _is_class(found: Any, module: str) -> bool:
    return (
        inspect.isclass(found)
        and issubclass(found, nn.Module | Optimizer | Describable)
        and not issubclass(
            found, torch.jit.ScriptModule | torch.fx.GraphModule
        )  # both compile source that they are given
        and _is_below(f"{_home(found)}.", [module])
        and (_home(found) in own_modules() or CLASS_MODULES.fullmatch(_home(found)) is not None)
    )


def _is_function(found: Any, module: str) -> bool:
    if not inspect.isroutine(found):
        return False
    home = _home(found)
    if module.startswith("torch"):
        return home in ("torch", "torch.nn.functional", "torch._C._nn")
    if inspect.signature(found).return_annotation is None:
        return False  # what gives nothing back changes or registers something instead
    return home in own_modules() and _is_below(f"{home}.", [module]) and _computes(home)


def _computes(module: str) -> bool:
    """Whether functions of a module of quintet compute: operations, and what is at home in a room of layers."""
    if module.startswith(f"{ROOT}.kernels."):
        return not module.startswith(f"{ROOT}.kernels._")
    room = sys.modules[".".join(module.split(".")[:3])]
    return hasattr(room, "__path__") and any(map(_is_layer, vars(room).values()))


def _is_layer(item: Any) -> bool:
    """Whether something is a layer or network; tasks and metrics, which are modules too, have other bases."""
    return (
        inspect.isclass(item)
        and issubclass(item, nn.Module)
        and {base.__module__.split(".")[0] for base in item.__mro__} <= {ROOT, "torch", "builtins"}
    )
