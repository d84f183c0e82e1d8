"""The console of every command: text that comes from data and files can neither move the cursor nor hide itself."""

import os
import unicodedata
from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment


def printable(text: str) -> str:
    r"""Text with control characters, escape sequences and marks that turn its direction written out, as `\x1b`."""
    return "".join(_written_out(character) for character in text)


def _written_out(character: str) -> str:
    if character in "\n\t" or character.isprintable() or character == "\u200d":  # the last joins parts of emoji
        return character
    category = unicodedata.category(character)
    if category in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character


WIDE = 1000  # columns where nobody looks at a window: in a pipe or a file nothing is cut


class Console(rich.console.Console):
    """A rich Console that writes control characters of what it is given out instead of sending them.

    In a pipe or a file it is as wide as its tables need, unless COLUMNS says otherwise.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not (self.is_terminal or self.is_jupyter or "width" in options or "COLUMNS" in os.environ):
            self.width = WIDE

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style, segment.control)
