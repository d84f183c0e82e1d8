"""The user's own modules: looked for where a command is typed, last of all, and only where the user names one."""

import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

DOTTED = re.compile(r"(?<![\w./\\])([A-Za-z_]\w*)\.([A-Za-z_]\w*)(?:\.[A-Za-z_]\w*)*")


def let_in_own_code(said: Any, names: Iterable[str] = ()) -> None:
    """Puts the current folder at the end of `sys.path` where a text names a module in it, as `my_nets.Small` does.

    A module of the folder that shares its name with an installed one stays hidden behind it, and without a word of the
    user's none is seen: what lies in a folder of data must not run because of its name.

    Args:
        said: what was typed and what files of the user's say is built: text, or lists and mappings of it.
        names: modules named as such.
    """
    here = Path.cwd()
    if str(here) in sys.path:
        return
    words = [(found[1], found[2]) for text in _texts(said) for found in DOTTED.finditer(text)]
    words += [(name, "") for name in names]
    if any(_is_here(here, *word) and not _is_installed(word[0]) for word in words):
        sys.path.append(str(here))


def _texts(said: Any) -> Iterator[str]:
    if isinstance(said, str):
        if not os.path.exists(said):  # photos.v2 is a folder of data
            yield said
    elif isinstance(said, Mapping):
        for item in said.values():
            yield from _texts(item)
    elif isinstance(said, list | tuple):
        for item in said:
            yield from _texts(item)


def _is_here(folder: Path, name: str, inside: str) -> bool:
    """Whether a folder has a module of this name, or a package."""
    package = folder / name
    return (
        (folder / f"{name}.py").is_file()
        or (package / "__init__.py").is_file()
        or bool(inside and ((package / f"{inside}.py").is_file() or (package / inside / "__init__.py").is_file()))
    )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return True  # loaded, and unlike any file here
