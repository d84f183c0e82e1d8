"""Files of the user's as they are read: whole, of regular files alone, and named in messages short enough to read."""

import os
import stat
from pathlib import Path

from ...core.errors import QuintetError


def is_file(path: Path) -> bool:
    """Whether a path is a file that can be read to its end, of whatever name: no pipe, device or folder."""
    return os.path.isfile(path)  # pathlib's own raises for names that are too long


def content_of(path: str | Path) -> bytes:
    """The bytes of a file. Raises QuintetError, whose message begins with the path, where it cannot be read."""
    if problem := unreadable(Path(path)):
        raise QuintetError(f"{path} {problem}")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise QuintetError(f"{path} cannot be read ({error.strerror})") from None


def unreadable(path: Path) -> str | None:
    """Why a path is not opened: opening a pipe waits for someone to write into it. None for files."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return None if stat.S_ISREG(mode) else "is no file but a folder, pipe, socket or device"


def text_of(path: Path) -> str:
    """The text of a file of UTF-8. Raises QuintetError, naming the first line that is none, for others."""
    content = content_of(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise QuintetError(f"{path} row {row} is not UTF-8 text; save it as UTF-8") from None


def shortened(text: str, longest: int = 80) -> str:
    """Text from data as a message may hold it: one line, cut in the middle where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 4 :]}"
