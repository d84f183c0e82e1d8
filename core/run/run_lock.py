"""One run a folder: a lock that is made by exclusive creation, and that a killed run does not leave for ever."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ..errors import QuintetError

FILE = ".running"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While it lasts, no other run writes into `folder`.

    Raises QuintetError where another run does, or where nothing can be written there.
    """
    path = Path(folder) / FILE
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
    try:
        while not _created(path, owner):
            other = _owner(path)
            if other is not None and not _gone(other):
                raise QuintetError(
                    f"{folder} is written by another run (process {other.get('pid')} on {other.get('host')}): wait for "
                    f"it, or choose another run_dir=FOLDER; if nothing runs there any more, remove {path}"
                )
            _put_away(path, other)
    except OSError as error:
        raise QuintetError(
            f"cannot write in {folder} ({error.strerror}); copy the run elsewhere, or start one with run_dir=FOLDER"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _owner(path) == owner:
                path.unlink()


def _created(path: Path, owner: dict[str, object]) -> bool:
    """Whether the lock is ours: it appears with its content, or not at all."""
    own = path.with_name(f"{path.name}.{owner['host']}.{owner['pid']}")
    try:
        own.write_text(json.dumps(owner), encoding="utf-8")
        try:
            os.link(own, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with path.open("x", encoding="utf-8") as file:
                    json.dump(owner, file)
            except FileExistsError:
                return False
        return True
    finally:
        own.unlink(missing_ok=True)


def _owner(path: Path) -> dict[str, object] | None:
    """Who holds the lock, None where nobody does (any more); {} where the file does not say."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _gone(owner: dict[str, object]) -> bool:
    """Whether the process that made a lock has certainly ended; of another machine's nobody knows."""
    pid = owner.get("pid")
    if owner.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # it lives, and is another user's
    # Numbers of processes are given again.
    return _started(pid) != owner.get("started")


def _started(pid: int) -> str | None:
    """When a running process started, as its system counts; None where it has ended, or the system does not say."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]  # ended, but nobody has asked for its status


def _put_away(path: Path, stale: dict[str, object] | None) -> None:
    """Removes a stale lock, but not one that another run has just put in its place."""
    aside = path.with_name(f"{path.name}.stale.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, aside)
        if _owner(aside) != stale:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
