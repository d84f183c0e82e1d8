"""Checkpoints that are either whole or not there: written beside their target, flushed, then renamed."""

import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from ..errors import QuintetWarning
from ..weights.pretrained import read_checkpoint
from ..weights.records import RECORD
from ..weights.sealing import digest_of
from ..writing.files import written_whole


def broke_while_restoring(error: BaseException) -> bool:
    """Whether an error was raised while Lightning took over the state of a checkpoint: its loops, callbacks, rates."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename.endswith("checkpoint_connector.py") and "restore" in code.co_name:
            return True
        trace = trace.tb_next
    return False


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint atomically and reads it with `weights_only=True`.

    A full disk or a kill in the middle of writing leaves the previous file of that name as it was.

    Args:
        folder: of the run; of what it did not write, nothing outside it is removed.
    """

    def __init__(self, folder: str | Path = ".") -> None:
        super().__init__()
        self.folder = Path(folder)
        self.written: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage_options")
        path = Path(path)
        if RECORD in checkpoint:
            # Here and not earlier: callbacks put other weights (an average of them) into what is saved.
            checkpoint[RECORD]["digest"] = digest_of(checkpoint[RECORD], checkpoint["state_dict"])
        remedy = "free space and start again"
        if path.exists():
            remedy = f"the previous {path.name} is intact; free space and resume with ckpt_path=last"
        # To a file and not to a path: torch's own writer ends the process where the disk is full (SIGABRT).
        with written_whole(path, replace=True, remedy=remedy) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)
        self.written.add(path.resolve())

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> dict:
        # What `quintet export` writes has no version of Lightning's, which Lightning asks every file for.
        return {"pytorch-lightning_version": lightning.__version__} | read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        # Lightning's own callback believes what a resumed checkpoint says was the best before: any file, folder or
        # address. What lies in the run folder or was written by this process may go.
        place = Path(path).resolve()
        inside = place.suffix == ".ckpt" and place.is_relative_to(self.folder.resolve())
        if not inside and place not in self.written:
            warnings.warn(f"{path} is not of this run and is not removed", QuintetWarning, stacklevel=2)
            return
        super().remove_checkpoint(place)
