"""Whether a value is of an annotated type: what a file says is held against what a constructor takes.

Nothing is converted and nothing is imported. What cannot be decided (shapes of arrays, types that only checkers know)
is admitted; text is never admitted where something to call is wanted.
"""

import collections.abc
import dataclasses
import enum
import inspect
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

PLAIN = (str, int, float, bool, type(None))
ITEMS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def admits(annotation: Any, value: Any) -> bool:
    """Whether plain data, or an object built from it, is of a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(admits(choice, value) for choice in arguments)
    if origin is Annotated:
        return admits(arguments[0], value)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if annotation is None or annotation is type(None):
        return value is None
    kind = origin or annotation
    if kind in (collections.abc.Callable, type):
        return callable(value)
    if kind in ITEMS:
        return _admits_items(kind, arguments, value)
    if kind in MAPPINGS:
        return isinstance(value, Mapping) and (not arguments or _admits_pairs(arguments, value))
    return _admits_one(kind, value) if inspect.isclass(kind) else True


def type_name(annotation: Any) -> str:
    """A type as a person reads it."""
    return annotation.__name__ if inspect.isclass(annotation) and not get_args(annotation) else str(annotation)


def _admits_one(kind: type, value: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if kind in (Path, os.PathLike):
        return isinstance(value, str | os.PathLike)
    if kind in (str, bytes):
        return isinstance(value, kind)
    if issubclass(kind, enum.Enum):  # an enumeration of words is written down as the word
        return isinstance(value, (*PLAIN, kind))
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return value.keys() <= {field.name for field in dataclasses.fields(kind)}
    if getattr(kind, "_is_protocol", False):
        return not isinstance(value, (*PLAIN, list, tuple, dict))
    if kind in (object, Any) or kind.__module__.split(".")[0] == "jaxtyping" or isinstance(kind, TypeVar):
        return True
    return isinstance(value, kind)


def _admits_items(kind: Any, arguments: tuple[Any, ...], value: Any) -> bool:
    if not isinstance(value, list | tuple | set | frozenset):
        return False
    if not arguments:
        return True
    if kind is tuple and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(admits(item, one) for item, one in zip(arguments, value))
    return all(admits(arguments[0], one) for one in value)


def _admits_pairs(arguments: tuple[Any, ...], value: Mapping[Any, Any]) -> bool:
    return all(admits(arguments[0], key) and admits(arguments[1], item) for key, item in value.items())
