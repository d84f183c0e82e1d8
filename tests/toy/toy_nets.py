"""Another network of the user's, and callbacks that end a run from within."""

import os
import signal
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn


class OtherNet(nn.Module):
    """A linear map with a gain."""

    def __init__(self, dim: int, gain: float = 1.0) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.map(x)


class NoNet:
    """Not a network."""


class Interrupt(Callback):
    """Ends the run in the middle of an epoch: by a signal to the process, or as Ctrl-C does."""

    def __init__(self, epoch: int, batch: int = 0, by: str = "SIGKILL") -> None:
        self.epoch, self.batch, self.by = epoch, batch, by

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.current_epoch == self.epoch and args[-1] == self.batch:
            if self.by == "Ctrl-C":
                raise KeyboardInterrupt
            os.kill(os.getpid(), getattr(signal, self.by))
