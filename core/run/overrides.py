"""What is typed as key=value: read in Hydra's grammar, and taken as the plain text it is where that cannot read it.

`model.lr=1e-3` is a number, `data.id=[Region,State]` a list, `data.root=photos (1)` the name of a folder. Options that
are names and paths (`name`, `run_dir`, `ckpt_path`, `output`, ...) are text whatever they look like.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import QuintetError

NODES = ("model", "data", "trainer", "callbacks", "logger")  # what is built
GROUPS = ("experiment", *NODES)  # whose values are names of choices
TEXTS = ("name", "run_dir", "ckpt_path", "monitor", "monitor_mode", "output", "format")  # never numbers


def forced(override: str) -> str:
    """An override below one of `NODES` with `++` before it, so that a key the file does not list is taken too."""
    key = override.split("=", 1)[0]
    below = re.fullmatch(r"([\w-]+)(\.[\w-]+)+", key)
    return f"++{override}" if "=" in override and below and below[1] in NODES else override


def readable(override: str, sweeping: bool = False) -> str:
    """An override in a form that Hydra's grammar reads: as it was typed, or with its value in quotes as plain text.

    Plain text is what the grammar cannot read, what it would read as another name than that of a file which exists as
    it was typed, and the value of an option that is always text.

    Args:
        override: as typed.
        sweeping: several values with commas between them are wanted; otherwise they are one text or a mistake.

    Raises QuintetError where the key cannot be read, or there are several values without a sweep.
    """
    key, equals, text = override.partition("=")
    read = _read(override)
    if read is None:
        quoted = f"{key}={_quoted(text)}"
        if not equals or _read(quoted) is None:
            raise QuintetError(f"cannot read '{override}'; options are given as key=value, e.g. data.batch_size=8")
        return quoted
    if not equals:
        return override
    if read.is_sweep_override():
        if sweeping:
            return override
        if not os.path.lexists(text):
            raise QuintetError(f"{override} gives several values: try each with -m, or write {key}='{text}' for one")
        return f"{key}={_quoted(text)}"
    value = read.value()
    if isinstance(value, str):
        another = value != text and "${" not in text and os.path.lexists(text) and not os.path.lexists(value)
        return f"{key}={_quoted(text)}" if another else override
    always_text = (key in TEXTS and value is not None) or (key in GROUPS and not isinstance(value, list | dict))
    return f"{key}={_quoted(text)}" if always_text else override


def parsed(override: str, sweeping: bool = False) -> Override:
    """An override as Hydra reads it. Raises QuintetError where it cannot be read."""
    return OverridesParser.create().parse_override(readable(override, sweeping))


def value_of(override: str) -> Any:
    """The value of an override, interpolated. Raises QuintetError where it cannot be read."""
    value = parsed(override).value()
    try:
        return OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=True)["value"]
    except OmegaConfBaseException as error:
        raise QuintetError(f"cannot read '{override}': {str(error).splitlines()[0]}") from error


def keep_texts(parameters: Mapping[str, Any], values: dict[str, Any], typed: Mapping[str, str]) -> None:
    """Puts back as text, in place, what was read as something that its parameter does not take: a folder named 2020.

    Args:
        parameters: annotation of each parameter.
        values: of the parameters.
        typed: what was typed for some of them.
    """
    for name, text in typed.items():
        if name in values and name in parameters and _only_as_text(parameters[name], values[name]):
            values[name] = text


def typed_below(overrides: Sequence[str], node: str) -> dict[str, str]:
    """What was typed for the options right below a node, by their names: {"root": "2020"} of `data.root=2020`."""
    typed = {}
    for override in overrides:
        key, equals, text = override.lstrip("+").partition("=")
        if equals and "${" not in text and key.startswith(f"{node}.") and key.count(".") == 1:
            typed[key.removeprefix(f"{node}.")] = text
    return typed


def literal(text: str) -> str:
    """Text in quotes as Hydra's grammar reads it, with nothing in it interpolated."""
    return QuotedString(re.sub(r"(\\*)\$\{", r"\1\1\\${", text), Quote.single).with_quotes()


def in_grammar(value: Any) -> str:
    """A number, text, null or list of them as Hydra's grammar reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(in_grammar, value))}]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _read(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except (HydraException, RecursionError):
        return None


def _quoted(text: str) -> str:
    """Text in quotes; `${` stays an interpolation only where it is a whole one."""
    try:
        OmegaConf.create({"value": text})
    except OmegaConfBaseException:
        return literal(text)
    return QuotedString(text, Quote.single).with_quotes()


def _only_as_text(annotation: Any, value: Any) -> bool:
    """Whether a parameter takes text, and nothing of the kind that a value which is no text has."""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = {get_origin(member) or member for member in members}
    if str not in kinds or isinstance(value, str):
        return False
    if isinstance(value, list | dict):
        return "class_path" not in value and not kinds & {list, tuple, dict, set, Sequence, Mapping}
    return type(value) not in kinds and not (isinstance(value, int) and float in kinds)
