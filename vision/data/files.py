"""Files of the user's as they are read: whole, of regular files alone, and named in messages short enough to read."""

import os
import stat
from functools import cache
from pathlib import Path

from PIL import Image

from ...core.errors import QuintetError

# Registered with Pillow, but documents, videos or scientific containers it cannot or should not open as a photograph.
NOT_PHOTOGRAPHS = {
    ".pdf",
    ".ps",
    ".eps",
    ".mpg",
    ".mpeg",
    ".h5",
    ".hdf",
    ".bufr",
    ".grib",
    ".wmf",
    ".emf",
    ".fit",
    ".fits",
}

ARRAYS = frozenset({".npy"})

NOT_OPENED = {"EPS", "PDF", "MPEG", "HDF5", "BUFR", "GRIB", "WMF", "FITS"}
MOST_BYTES = 2**33  # of a file that is read as a whole


def is_file(path: Path) -> bool:
    """Whether a path is a file that can be read to its end, of whatever name: no pipe, device or folder."""
    return os.path.isfile(path)  # pathlib's own raises for names that are too long


def content_of(path: str | Path) -> bytes:
    """The bytes of a file. Raises QuintetError, whose message begins with the path, where it cannot be read."""
    try:
        return bytes_of(Path(path))
    except QuintetError as error:
        raise QuintetError(f"{path} {error}") from None


def bytes_of(path: Path) -> bytes:
    """The bytes of a file. Raises QuintetError, whose message lacks only the path, where it cannot be read.

    What is no file is not opened: a pipe would wait for someone to write into it, a device never end.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise QuintetError("is no file but a folder, pipe, socket or device")
        if status.st_size > MOST_BYTES:
            raise QuintetError(f"is too large to be read ({status.st_size / 2**30:,.0f} GiB)")
        # Files of the system that only seem to be some have no size, and may wait as pipes do.
        return path.read_bytes() if status.st_size else b""
    except FileNotFoundError:
        raise QuintetError("does not exist") from None
    except (OSError, ValueError) as error:
        raise QuintetError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None


@cache
def image_suffixes() -> frozenset[str]:
    """Endings of the files that are taken for images."""
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return frozenset(known - NOT_PHOTOGRAPHS) | ARRAYS


@cache
def image_formats() -> tuple[str, ...]:
    """Formats of the files that Pillow opens for us, whatever they are called.

    Others would be opened by their content alone, and PostScript is handed to another program, which runs it.
    """
    kinds = Image.registered_extensions()
    return tuple(sorted({kinds[suffix] for suffix in image_suffixes() if suffix in kinds} - NOT_OPENED))


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
