"""What constructors take, and the trees of plain data that name them."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from .former import with_present_paths


def class_path_form(node: Any) -> Any:
    """Turns Hydra's `_target_` trees, and what checkpoints describe, into jsonargparse's class_path/init_args."""
    if isinstance(node, list | tuple):
        return [class_path_form(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "_target_" in node:
        arguments = {
            key: class_path_form(value)
            for key, value in node.items()
            if key not in ("_target_", "_partial_", "_convert_", "_recursive_")
        }
        return {"class_path": with_present_paths(node["_target_"]), "init_args": arguments}
    if "class_path" in node:
        return {"class_path": node["class_path"], "init_args": class_path_form(node.get("init_args", {}))}
    if set(node) == {"function"}:
        return node["function"]
    return {key: class_path_form(value) for key, value in node.items()}


def target_form(node: Any) -> Any:
    """What a checkpoint describes as Hydra's `_target_` trees; undoes `class_path_form` and keeps what is partial."""
    if isinstance(node, list | tuple):
        return [target_form(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "class_path" not in node:
        return {key: target_form(value) for key, value in node.items()}
    arguments = {key: target_form(value) for key, value in node.get("init_args", {}).items()}
    return {"_target_": node["class_path"], **({"_partial_": True} if node.get("partial") else {}), **arguments}


def parameters_of(target: Any) -> Iterator[inspect.Parameter]:
    """What a constructor takes, and its bases where it passes `**kwargs` on; a name once, as the class has it."""
    seen: set[str] = set()
    constructors = (
        [base.__init__ for base in target.__mro__ if "__init__" in base.__dict__]
        if inspect.isclass(target)
        else [target]
    )
    for constructor in filter(inspect.isroutine, constructors):
        parameters = inspect.signature(constructor).parameters.values()
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
        yield from (parameter for parameter in named if parameter.name not in seen)
        seen |= {parameter.name for parameter in named}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return
