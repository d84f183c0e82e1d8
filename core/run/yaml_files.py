"""YAML that a user gives, read within bounds: text of a sensible size, no tags, aliases that do not multiply."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_loader

from ..errors import QuintetError
from ..weights.former import with_present_paths

BYTES = 300_000  # of one file
VALUES = 10_000  # in all, aliases counted as what they stand for
DEPTH = 100  # of lists and mappings in one another
PLAIN = "tag:yaml.org,2002:"  # how the tags of YAML's own types begin
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_text(path: str | Path) -> str:
    """The text of a configuration file. Raises QuintetError where it is no file, too large, or no text in UTF-8."""
    path = Path(path)
    if not path.is_file():
        raise QuintetError(f"{path} is {'a folder' if path.is_dir() else 'no file'}; give a configuration in YAML")
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except OSError as error:
        raise QuintetError(f"cannot read {path} ({error.strerror})") from error
    if len(content) > BYTES:
        raise QuintetError(f"{path} has more than {BYTES:,} bytes; give a configuration in YAML")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise QuintetError(f"{path}, line {line}: not text in UTF-8; give a configuration in YAML") from error


def check_file(path: str | Path) -> None:
    """Raises QuintetError where a file is not YAML that is read within bounds."""
    text = read_text(path)
    try:
        check_text(text, str(path))
    except yaml.YAMLError as error:
        raise QuintetError(f"{path}{place_of(error)}") from error


def check_configurations(arguments: Sequence[str]) -> None:
    """Checks the files that `--config` names in the Lightning CLI's grammar."""
    for before, argument in zip(["", *arguments], arguments):
        if before in ("--config", "-c") or argument.startswith("--config="):
            path = argument.removeprefix("--config=")
            check_file(path)
            node = yaml.compose(read_text(path), Loader=Loader)
            if not isinstance(node, yaml.MappingNode):
                raise QuintetError(f"{path} holds no options; give one such as a run's config.yaml")


def check_text(text: str, where: str) -> None:
    """Raises QuintetError where YAML has tags, is nested deeper than `DEPTH`, or stands for more than `VALUES` values.

    What an alias stands for is counted, not built: ten lines of aliases of aliases can stand for billions.
    """
    sizes: dict[str, int] = {}  # of what each anchor names
    parents: list[tuple[str | None, int]] = []  # anchors of the open lists and mappings, values counted before them
    count = 0
    for event in yaml.parse(text, Loader=Loader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in parents):
                raise QuintetError(f"{where}, line {line}: *{event.anchor} stands within what it names")
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.NodeEvent):
            count += 1
        tag = getattr(event, "tag", None) or "!"
        if tag != "!" and not (tag.startswith(PLAIN) and "python" not in tag):
            raise QuintetError(f"{where}, line {line}: the tag {tag} is not read here; write plain values")
        if isinstance(event, yaml.CollectionStartEvent):
            parents.append((event.anchor, count - 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = parents.pop()
            if anchor:
                sizes[anchor] = count - before
        if len(parents) > DEPTH:
            raise QuintetError(f"{where}, line {line}: nested more than {DEPTH} deep")
        if count > VALUES:
            raise QuintetError(f"{where}, line {line}: stands for more than {VALUES:,} values; are its aliases meant?")


def place_of(error: yaml.YAMLError) -> str:
    """Where and what a mistake in YAML is: ", line 3: found character that cannot start any token"."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    remedy = "; indent with spaces, not tabs" if "cannot start any token" in problem else ""
    return f"{f', line {mark.line + 1}' if mark else ''}: {problem}{remedy}"


def bound_jsonargparse() -> None:
    """Lets jsonargparse read YAML within the same bounds, and find in it what has moved since a run wrote it."""
    from jsonargparse._loaders_dumpers import yaml_load

    def load(text: str) -> Any:
        check_text(text, "the configuration")
        return with_present_paths(yaml_load(text))

    set_loader("yaml", load, exceptions=(yaml.YAMLError,))
