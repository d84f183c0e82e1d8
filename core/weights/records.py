"""From what a checkpoint says of itself to objects: one way, for every verb and for plain Python.

A record is plain data that somebody else may have written. It is read by the grammar below and nothing else ever
resolves it: what is not of the grammar is refused, strings stay strings, and only what `trusted.resolve` admits is
constructed. The values of a node are held against the types of its constructor before it is called.

    record   {version, task: node, description: mapping, data?: node, origin?, training?, digest?}
    node     {class_path: str, init_args: {name: value}, partial?: bool}  |  {function: str}
    value    node | list | tuple | mapping without reserved keys | str | int | float | bool | None
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_type_hints

from ..errors import QuintetError, nearest
from .admission import admits, type_name
from .pretrained import LoadReport
from .trusted import RESERVED, resolve

RECORD = "quintet"  # the key of a checkpoint under which a task describes itself
NEEDED = ("version", "task", "description")
OPTIONAL = ("data", "origin", "training", "digest")
PARTS = {
    "version": str,
    "description": dict[str, Any],
    "origin": dict[Literal["weights", "licence"], str],
    "digest": str,
}
TRAINING = {
    "epoch": int,
    "step": int,
    "metrics": dict[str, float],
    "folder": str,
    "device": str,
    "time": str,
    "versions": dict[str, str],
}
NODE = frozenset({"class_path", "init_args", "partial"})


def record_of(checkpoint: Mapping[str, Any], where: Any) -> dict[str, Any]:
    """The part of a checkpoint in which a task describes itself.

    Raises QuintetError where there is none, or it is not what this version of quintet reads.
    """
    if RECORD not in checkpoint:
        raise QuintetError(f"{where} was not written by quintet; load its weights with model.pretrained=FILE instead")
    record = checkpoint[RECORD]
    if not isinstance(record, dict):
        raise QuintetError(f"{where} is damaged: its record is a {type(record).__name__}")
    for key in NEEDED:
        if key not in record:
            raise QuintetError(f"{where} is damaged: its record has no {key}")
    for key in record:
        if key not in (*NEEDED, *OPTIONAL):
            raise QuintetError(f"{where} was written by {_writer(record)}: its record has an unknown part {key!r}")
    _check_parts(record, where)
    for key in ("task", "data"):
        if key == "task" or record.get(key) is not None:
            with _of_file(where, record):
                check_node(record[key])
    if not isinstance(checkpoint.get("state_dict"), Mapping):
        raise QuintetError(f"{where} is damaged: it has no weights")
    return record


def _check_parts(record: Mapping[str, Any], where: Any) -> None:
    """Raises QuintetError for a part of a record that is not of its type."""
    training = record.get("training", {})
    if not isinstance(training, dict):
        raise QuintetError(f"{where} is damaged: training in its record is {_short(training)}")
    if unknown := [name for name in training if name not in TRAINING]:
        raise QuintetError(f"{where} was written by {_writer(record)}: of training it records {unknown[0]!r}")
    for values, kinds in ((record, PARTS), (training, TRAINING)):
        for name, kind in kinds.items():
            if name in values and not admits(kind, values[name]):
                raise QuintetError(f"{where} is damaged: {name} in its record is {_short(values[name])}")


def build(description: Any, trusted: Iterable[str] = ()) -> Any:
    """The object that `described.description_of` wrote down.

    `trusted` adds packages of the user's to those whose classes may be constructed. Raises QuintetError for anything
    that is not of the grammar, not of a trusted kind, and for arguments a constructor does not take.
    """
    _check_value(description)
    return _built(description, tuple(trusted))


def build_node(node: Any, base: type, overrides: Mapping[str, Any], where: Any, trusted: Iterable[str] = ()) -> Any:
    """The object of a node of a record, which must be of class `base`.

    `overrides` replace arguments by values of the user's: they are objects already and are taken as they are.
    """
    check_node(node)
    target = resolve(node["class_path"], trusted)
    if not inspect.isclass(target) or not issubclass(target, base):
        raise QuintetError(f"{where} describes a {node['class_path']}, not a {base.__name__}")
    given = {name: value for name, value in node.get("init_args", {}).items() if name not in overrides}
    arguments = {name: _built(value, tuple(trusted)) for name, value in given.items()} | dict(overrides)
    _check_arguments(target, arguments, node["class_path"])
    return target(**arguments)


def restored(make: Callable[[], Any], where: Any, record: Mapping[str, Any]) -> Any:
    """What `make` builds from a record; whatever a constructor makes of values it was not written for is one line."""
    with _of_file(where, record):
        return make()


def restore_origin(record: Mapping[str, Any]) -> LoadReport | None:
    """Where the first weights of a task came from and under which licence, None where they were random."""
    origin = record.get("origin")
    return origin and LoadReport(str(origin.get("weights", "")), licence=str(origin.get("licence", "")))


def restore_description(description_type: type, record: Mapping[str, Any], where: Any = "the checkpoint") -> Any:
    """The description of the data a task was trained on, as the dataclass its task expects.

    Raises QuintetError for fields that are unknown, missing or of another type, and for lists of several lengths which
    the dataclass says belong `together`.
    """
    fields = {field.name: field for field in dataclasses.fields(description_type)}
    values = record["description"]
    for name, value in values.items():
        if name not in fields:
            raise QuintetError(f"{where} was written by {_writer(record)}: it knows of its data a field {name!r}")
        if not admits(hint := _hints(description_type).get(name, Any), value):
            raise QuintetError(f"{where} is damaged: {name} in it is {_short(value)}, not {type_name(hint)}")
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise QuintetError(f"{where} is damaged or was written by {_writer(record)}: it lacks {name!r} of its data")
    for names in getattr(description_type, "together", ()):
        lengths = {len(values[name]) for name in names if name in values}
        if len(lengths) > 1 or 0 in lengths:
            raise QuintetError(f"{where} is damaged: {', '.join(names)} of its data are not of one length")
    with _of_file(where, record):
        return description_type(**values)


def check_node(node: Any) -> None:
    """Raises QuintetError for what is no node of a record; imports nothing and builds nothing."""
    if not isinstance(node, Mapping):
        raise QuintetError(f"where the file should describe an object it has a {type(node).__name__}")
    if not isinstance(node.get("class_path"), str):
        raise QuintetError("an object in the file has no class_path, or one that is no text")
    if unknown := [key for key in node if key not in NODE]:
        raise QuintetError(f"an object in the file has the key {unknown[0]!r}, which no record has")
    if not isinstance(node.get("partial", False), bool):
        raise QuintetError("'partial' of an object in the file is neither true nor false")
    arguments = node.get("init_args", {})
    if not isinstance(arguments, Mapping):
        raise QuintetError(f"the arguments of {node['class_path']} in the file are a {type(arguments).__name__}")
    for name, value in arguments.items():
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise QuintetError(f"{node['class_path']} in the file has an argument called {name!r}")
        _check_value(value)


def _check_value(value: Any) -> None:
    if isinstance(value, list | tuple):
        for item in value:
            _check_value(item)
    elif isinstance(value, Mapping):
        if "class_path" in value:
            return check_node(value)
        if set(value) == {"function"} and isinstance(value["function"], str):
            return None
        for key, item in value.items():
            if isinstance(key, str) and key in RESERVED:
                raise QuintetError(f"a mapping in the file has the key {key!r}, which no record has")
            if not isinstance(key, str | int | float | bool | None):
                raise QuintetError(f"a mapping in the file has a key that is a {type(key).__name__}")
            _check_value(item)
    elif not isinstance(value, str | int | float | bool | None):
        raise QuintetError(f"the record holds a {type(value).__name__}, which is no plain data")
    return None


def _built(value: Any, trusted: tuple[str, ...]) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_built(item, trusted) for item in value)
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"function"}:
        return resolve(value["function"], trusted)
    if "class_path" not in value:
        return {key: _built(item, trusted) for key, item in value.items()}
    target, partial = resolve(value["class_path"], trusted), value.get("partial", False)
    if not inspect.isclass(target) and not partial:
        raise QuintetError(f"the file asks to call {value['class_path']}, which is not a class")
    arguments = {name: _built(item, trusted) for name, item in value.get("init_args", {}).items()}
    _check_arguments(target, arguments, value["class_path"])
    return functools.partial(target, **arguments) if partial else target(**arguments)


def _check_arguments(target: Any, arguments: Mapping[str, Any], path: str) -> None:
    """Raises QuintetError for an argument that is unknown or of another type than the constructor says."""
    hints, open_ended = arguments_of(target)
    for name, value in arguments.items():
        if name not in hints and not open_ended:
            raise QuintetError(f"{path} has no argument {name!r} here; {nearest(name, hints)}")
        if not admits(hints.get(name, Any), value):
            raise QuintetError(f"{path}: {name} is {_short(value)}, not {type_name(hints[name])}")


def arguments_of(target: Any) -> tuple[dict[str, Any], bool]:
    """Types of the named arguments of a class or function, by name, and whether it takes others too.

    Where a constructor passes `**kwargs` on, those of the bases count.
    """
    constructors = [target]
    if inspect.isclass(target):
        constructors = [base.__init__ for base in target.__mro__ if "__init__" in base.__dict__]
    hints: dict[str, Any] = {}
    for constructor in constructors:
        try:
            parameters = inspect.signature(constructor).parameters.values()
        except (ValueError, TypeError):  # written in C, and silent about what it takes
            return hints, True
        known = _hints(constructor)
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name != "self":
                hints.setdefault(parameter.name, known.get(parameter.name, Any))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return hints, False
    return hints, True


def _hints(owner: Any) -> dict[str, Any]:
    try:
        return get_type_hints(owner)
    except Exception:  # names that exist for type checkers alone
        return {}


@contextmanager
def _of_file(where: Any, record: Mapping[str, Any]) -> Iterator[None]:
    """While it lasts, any error is one line that names the file."""
    try:
        yield
    except QuintetError as error:
        text = str(error)
        raise QuintetError(text if str(where) in text else f"{where}: {text}") from error
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:160]
        raise QuintetError(
            f"{where} cannot be restored: it is damaged or was written by {_writer(record)} "
            f"({type(error).__name__}: {first})"
        ) from error


def _writer(record: Mapping[str, Any]) -> str:
    from ... import __version__

    version = record.get("version")
    return f"a newer quintet ({version if isinstance(version, str) else '?'}; this is {__version__})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
