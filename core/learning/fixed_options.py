"""Options that a trained model decides on (`fixed` of tasks and data modules): what they are held against.

Weights of equal shapes can mean other things: the levels of quantiles, how attention is split into heads, a threshold.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import QuintetError, import_class
from ..weights.constructors import class_path_form, parameters_of
from ..weights.described import Described, description_of


def refuse_changed(given: Mapping[str, Any], target: Any, recorded: Mapping[str, Any] | None, part: str) -> None:
    """Raises QuintetError where an option was typed that a trained model decides on, with another value.

    Args:
        given: values by option, `data.image_size`, as they were typed.
        target: the class that is built, which lists such options as `fixed`.
        recorded: the node that the model was trained with.
        part: "model" or "data", of which the node is.
    """
    if not recorded or recorded["class_path"].rsplit(".", 1)[-1] != target.__name__:
        return
    defaults = _defaults_of(target)
    trained_with = defaults | dict(recorded.get("init_args", {}))
    for option, value in given.items():
        name, *below = option.removeprefix(f"{part}.").split(".")
        if name not in getattr(target, "fixed", ()) or not option.startswith(f"{part}."):
            continue
        trained = trained_with.get(name)
        for key in below:
            trained = trained.get("init_args", trained).get(key) if isinstance(trained, Mapping) else None
        if isinstance(trained, Mapping) and isinstance(value, Mapping) and trained_with.get("pretrained"):
            trained = {key: trained.get(key) for key in value}  # sizes that the weights brought were never typed
        if not _means_the_same(class_path_form(value), trained):
            raise QuintetError(
                f"{option}={value}: the model was trained with {option}={trained}, which its checkpoint keeps; "
                "leave the option out, or train with it"
            )


def refuse_other(built: Described, recorded: Mapping[str, Any] | None, part: str) -> None:
    """Raises QuintetError where a task or data module is to go on from a checkpoint of one with other fixed options.

    Args:
        built: the task or data module.
        recorded: the node that the checkpoint has of it.
        part: "model" or "data", for messages.
    """
    target = type(built)
    if not recorded or recorded["class_path"].rsplit(".", 1)[-1] != target.__name__:
        return
    defaults, trained_with = _defaults_of(target), dict(recorded.get("init_args", {}))
    own = defaults | built.constructor_arguments
    for name in sorted(getattr(target, "fixed", frozenset())):
        here = description_of(own.get(name), name)
        trained = trained_with[name] if name in trained_with else description_of(defaults.get(name), name)
        if isinstance(trained, Mapping) and trained_with.get("pretrained"):
            trained = {key: trained[key] for key in trained if key in (here or {})}  # the weights brought the others
        if not _means_the_same(here or None, trained or None):
            raise QuintetError(
                f"{part}.{name} is {_shown(here)}, but the checkpoint was trained with {_shown(trained)}; "
                "go on with that, or start a new run"
            )


def _shown(value: Any) -> str:
    """A described value in as many words as it takes: a class by its name."""
    named = isinstance(value, Mapping) and "class_path" in value
    text = str(value["class_path"]).rsplit(".", 1)[-1] if named else str(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _defaults_of(target: Any) -> dict[str, Any]:
    """What the constructor of a class takes where nothing is given; empty for None."""
    parameters = () if target is None else parameters_of(target)
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def _defaults_at(class_path: str) -> dict[str, Any]:
    """The same for the class at a dotted path of the user's; what cannot be imported is complained of elsewhere."""
    try:
        return _defaults_of(import_class(class_path, ""))
    except QuintetError:
        return {}


def _means_the_same(typed: Any, trained: Any) -> bool:
    """Whether a typed value is what a checkpoint describes: 32 is (32, 32), my_nets.Small the class of this name."""
    if isinstance(trained, Mapping) and "class_path" in trained:
        node = {"class_path": typed, "init_args": {}} if isinstance(typed, str) else typed
        if not isinstance(node, Mapping) or "class_path" not in node:
            return False
        # The same class has several paths: where it is defined, and where packages show it.
        names = (str(one["class_path"]).rsplit(".", 1)[-1] for one in (node, trained))
        defaults = _defaults_at(node["class_path"])
        arguments = (defaults | dict(one.get("init_args", {})) for one in (node, trained))
        return next(names) == next(names) and _means_the_same(*arguments)
    if isinstance(trained, Mapping) and isinstance(typed, Mapping):
        return typed.keys() == trained.keys() and all(_means_the_same(typed[key], trained[key]) for key in trained)
    return _spelled(typed) == _spelled(trained)


def _spelled(value: Any) -> Any:
    """A value in the one spelling of all that mean the same: 32 and (32, 32) of a size."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values[:1] if len(values) == 2 and values[0] == values[1] else values
