"""Which classes and functions a file may name: those that compute, and none that read, write, fetch or start anything.

A file never decides what is imported. Only modules of layers, models, tasks and data are looked into, and what is found
there must be at home there: a name that a module merely imported for itself is not its own. `trust=PACKAGE`, which only
a person can say, adds the classes and functions of one package of theirs.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .errors import QuintetError

# Where classes may live: rooms of quintet, and of other libraries those whose constructors open and fetch nothing.
CLASS_MODULES = re.compile(
    r"quintet\.core(\.\w+)*|quintet\.\w+\.(models|data|tasks|metrics)(\.\w+)*"
    r"|torch\.nn(\.modules(\.\w+)*)?|torch\.optim(\.\w+)*"
    r"|torchvision\.(transforms|ops)(\.\w+)*|timm\.(layers|models)(\.\w+)*"
    r"|torchmetrics\.(classification|regression|segmentation|aggregation)(\.\w+)*"
)
# Where functions may live is narrower: what computes layers or builds models.
FUNCTION_MODULES = re.compile(
    r"quintet\.(kernels|core\.(attention|convolution|feedforward|norm|position|ssm)|\w+\.models)(\.\w+)*"
    r"|torch\.nn\.functional"
)
TORCH_FUNCTIONS = ("relu", "sigmoid", "tanh", "sin", "exp")
# Modules of quintet that run commands hold no layers.
WITHOUT_LAYERS = re.compile(r"quintet\.core\.(bench\w*|cli|composition|export|report|runner|sweep)")
LIBRARIES = ("torch", "torchvision", "torchmetrics", "timm", "lightning", "quintet")
# Keys by which quintet or a library it uses recognises an object to build; no plain mapping of a file has them.
RESERVED = frozenset(
    {"class_path", "init_args", "dict_kwargs"}
    | {"_target_", "_partial_", "_args_", "_convert_", "_recursive_", "_name_", "__path__", "__orig__"}
)


class Describable:
    """What a checkpoint may build besides layers and optimizers: all that says itself how it was constructed."""


def is_trusted(path: str) -> bool:
    """Whether a dotted path lies in a module that is looked into without being trusted by name."""
    module, _, name = path.rpartition(".")
    if WITHOUT_LAYERS.fullmatch(module) or name.startswith("_"):
        return False
    function = FUNCTION_MODULES.fullmatch(module) or (module == "torch" and name in TORCH_FUNCTIONS)
    return bool(CLASS_MODULES.fullmatch(module) or function)


def resolve(path: Any, trusted: Iterable[str] = ()) -> Any:
    """The class or function at `path`, imported only if its module may be looked into.

    Raises QuintetError where it may not, where nothing is found, and where what is found is of another kind or home.
    """
    trusted = tuple(trusted)
    if not isinstance(path, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", path):
        raise QuintetError(f"the file asks for {path!r}, which names no class")
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
    if is_trusted(path) and (_is_class(found) or _is_function(found, path)):
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


def _is_class(found: Any) -> bool:
    return (
        inspect.isclass(found)
        and issubclass(found, nn.Module | Optimizer | Describable)
        and not issubclass(
            found, torch.jit.ScriptModule | torch.fx.GraphModule
        )  # both compile source that they are given
        and CLASS_MODULES.fullmatch(_home(found)) is not None
    )


def _is_function(found: Any, path: str) -> bool:
    if not inspect.isroutine(found):
        return False
    home = _home(found)
    if path.startswith("torch."):
        return home in ("torch", "torch.nn.functional", "torch._C._nn")
    return FUNCTION_MODULES.fullmatch(home) is not None
