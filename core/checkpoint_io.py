"""Checkpoints that are either whole or not there: written beside their target, flushed, then renamed."""

import contextlib
import os
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from .errors import QuintetError
from .pretrained import read_checkpoint
from .records import RECORD
from .sealing import digest_of


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint atomically and reads it with `weights_only=True`.

    A full disk or a kill in the middle of writing leaves the previous file of that name as it was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage_options")
        path = Path(path)
        if RECORD in checkpoint:
            # Here and not earlier: callbacks put other weights (an average of them) into what is saved.
            checkpoint[RECORD]["digest"] = digest_of(checkpoint[RECORD], checkpoint["state_dict"])
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder: a rename is atomic only within one file system. What a kill leaves is written over.
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            if isinstance(error, Exception) and (reason := _os_error(error)):
                kept = f"; the previous {path.name} is intact" if path.exists() else ""
                raise QuintetError(
                    f"cannot write {path} ({reason}){kept}; free space and resume with ckpt_path=last"
                ) from error
            raise

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> dict:
        # What `quintet export` writes has no version of Lightning's, which Lightning asks every file for.
        return {"pytorch-lightning_version": lightning.__version__} | read_checkpoint(path)


def _os_error(error: BaseException | None) -> str | None:
    """What the operating system said, along the chain of causes; None where it was not asked.

    torch reports a failed write as a RuntimeError of its zip writer, raised while the OSError is handled.
    """
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        error = error.__cause__ or error.__context__
    return None
