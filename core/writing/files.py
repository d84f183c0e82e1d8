"""Files that are written: whole or not at all, inside their own folder, and onto nothing that was there.

Every verb writes through these: `written_whole` gives a file its name once it is complete, `OutputNames` gives names
that come from data (paths of images, ids of a table) places below one folder, `OutputNames.path("../a.jpg", ".png")`.
"""

import contextlib
import glob
import hashlib
import os
import shutil
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from ..errors import QuintetError

LONGEST = 120  # bytes of one part of a name: file systems take 255, and what is added must fit too
ATTEMPTS, PAUSE = 20, 0.05  # seconds between them


@contextlib.contextmanager
def written_whole(
    path: Path, made: bool = False, replace: bool = False, remedy: str = "give another output=FILE"
) -> Iterator[Path]:
    """A file or folder beside `path` to write; it gets its name when all went well, and nothing is left otherwise.

    Args:
        path: where the file is to be.
        made: the folder was made for this file, and goes with it.
        replace: what is at `path` may be replaced; without it the file must be new.
        remedy: what to do where it cannot be written.

    Raises QuintetError where `path` exists and is not to be replaced, or cannot be written (a full disk, whatever
    exception the writing library makes of it).
    """
    path = Path(path)
    # The ending stays: torch.export, safetensors and pictures go by it. Processes of one run may write the same file.
    partial = path.with_name(f".partial.{os.getpid()}.{path.name}")
    made = made or not path.parent.exists()
    done = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(path)
        yield partial
        if not replace:
            refuse_existing(path)
        _reach_disk(partial)
        os.replace(partial, path)
        done = True
    except Exception as error:
        if isinstance(error, QuintetError) or (reason := system_error(error)) is None:
            raise
        raise QuintetError(f"cannot write {path} ({reason}); {remedy}") from error
    finally:
        _remove(partial)
        if made and not done:
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # empty where the file was not kept


def _remove_left_behind(path: Path) -> None:
    """Removes what processes that were killed while they wrote the same file have left beside it."""
    for partial in path.parent.glob(f".partial.*.{glob.escape(path.name)}"):
        number = partial.name.split(".")[2]
        if number.isdigit() and not _is_running(int(number)):
            _remove(partial)


def _remove(partial: Path) -> None:
    """Removes a file, or a folder to which threads of a library may still be writing when one of them has failed."""
    for _ in range(ATTEMPTS):
        if not partial.exists():
            return
        with contextlib.suppress(OSError):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
            continue
        time.sleep(PAUSE)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _reach_disk(path: Path) -> None:
    """Waits until a file, or every file of a folder, is on the disk."""
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())


def refuse_existing(path: Path, option: str = "output=FILE") -> None:
    """Raises QuintetError where something is at `path` already."""
    if os.path.lexists(path):
        raise QuintetError(f"{path} exists and is not overwritten; give another {option} or remove it")


def system_error(error: BaseException | None) -> str | None:
    """What the operating system said, along the chain of causes; None where it said nothing.

    torch reports a failed write as a RuntimeError of its zip writer, raised while the OSError is handled; safetensors
    and HDF5 put the words of the system into messages of their own.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.strerror or str(error)
        for number in _WRITE_ERRORS:
            if f"os error {number}" in str(error) or f"errno = {number}" in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


_WRITE_ERRORS = (13, 28, 30, 122)  # no permission, no space, read-only, over quota


class OutputNames:
    """Places below one folder for names that come from data: none leaves the folder, no two meet.

    Parts that lead upwards, roots and drives are dropped, characters that file systems or terminals refuse become `_`,
    and names that would be equal (also where letters' case does not count) get a number behind them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._given: set[str] = set()

    def path(self, name: str | Path, ending: str) -> Path:
        """The place for what belongs to `name`, with `ending` in place of its own.

        Raises QuintetError where a link in the folder leads out of it.
        """
        # Windows paths are names too, whatever system reads them.
        parts = [part for part in str(name).replace("\\", "/").split("/") if part not in ("", ".", "..")]
        parts = [_harmless(part) for part in parts]
        *above, last = parts or ["_"]
        stem = last.rsplit(".", 1)[0] or last
        number, candidate = 1, "/".join([*above, stem])
        while unicodedata.normalize("NFC", f"{candidate}{ending}").casefold() in self._given:
            number += 1
            candidate = "/".join([*above, f"{stem}_{number}"])
        self._given.add(unicodedata.normalize("NFC", f"{candidate}{ending}").casefold())
        path = self.folder / f"{candidate}{ending}"
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise QuintetError(f"{path} leads out of {self.folder} by a link; remove the link or choose another folder")
        return path


def _harmless(part: str) -> str:
    """One part of a path without characters that systems refuse, short enough for all of them."""
    text = "".join(
        "_" if ord(c) < 32 or c in '<>:"|?*' or unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in part
    )
    text = text.strip(" ").rstrip(".") or "_"
    raw = text.encode("utf-8")
    if len(raw) <= LONGEST:
        return text
    digest = hashlib.sha256(raw).hexdigest()[:8]
    head, dot, tail = text.rpartition(".")
    tail = f".{tail}" if dot and len(tail) <= 8 else ""
    head = (head if tail else text).encode("utf-8")[: LONGEST - 9 - len(tail.encode())].decode("utf-8", "ignore")
    return f"{head}-{digest}{tail}"
