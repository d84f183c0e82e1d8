"""What ends a run from outside: Ctrl-C, SIGTERM, processes that are killed; each said, each with its exit status."""

import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment

ENDING = ("SIGTERM", "SIGHUP")  # the second where a terminal is closed; Windows has none


class Ended(KeyboardInterrupt):
    """A signal that ends processes arrived; Lightning cleans up after it as after Ctrl-C."""


class Signals:
    """While it lasts, signals that end processes raise `Ended` in the main thread, and Ctrl-C works again afterwards.

    Attributes:
        received: number of the first signal, None where none came.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            # Lightning ignores further Ctrl-C while it shuts down, and for ever after.
            self._before = {signal.SIGINT: signal.getsignal(signal.SIGINT)}
            self.install()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # what was not set from Python cannot be set again
                signal.signal(number, handler)

    def install(self) -> None:
        """Takes the signals over, but for those that are ignored on purpose (nohup)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ENDING:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before = signal.signal(number, self._arrived)
                self._before.setdefault(number, before)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        # A second one would only cut the cleaning up short.
        if self.received is None:
            self.received = number
            raise Ended(signal.Signals(number).name)

    @property
    def status(self) -> int:
        """Exit status of the command: that of Ctrl-C, or of the signal that came."""
        return 128 + (self.received or signal.SIGINT)


class OwnSignals(Callback):
    """Puts `signals` before Lightning's own handlers, which note SIGTERM and act on it between batches, or never.

    Under SLURM, where Lightning queues a job again by signals, they stay as they are.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not SLURMEnvironment.detect():
            self.signals.install()


class DeathNotice(logging.Handler):
    """Says in our words what Lightning's observer of processes notes, right before it kills them all by SIGKILL.

    Where the others wait for the dead one (NCCL does), nobody else gets to say anything.

    Args:
        remedy: what to do next.
    """

    LOGGER = "lightning.fabric.strategies.launchers.subprocess_script"

    def __init__(self, remedy: Callable[[], str]) -> None:
        super().__init__(logging.INFO)
        self.remedy = remedy

    def __enter__(self) -> None:
        logger = logging.getLogger(self.LOGGER)
        self._before = logger.level, logger.propagate
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False

    def __exit__(self, *error: object) -> None:
        logger = logging.getLogger(self.LOGGER)
        logger.removeHandler(self)
        logger.level, logger.propagate = self._before

    def emit(self, record: logging.LogRecord) -> None:
        if found := re.search(r"PID (\d+) terminated with code (-?\d+)", record.getMessage()):
            lines = (f"error: a process of this run (pid {found[1]}) {_status(int(found[2]))}", self.remedy())
            print(*filter(None, lines), sep="\n", file=sys.stderr, flush=True)


def killed_process(error: BaseException, trainer: L.Trainer | None) -> str | None:
    """Which process of a run was killed and why, where an error comes of that; None for other errors."""
    if found := re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error)):
        return (
            f"a process that reads data (pid {found[1]}) {_ended(error)}; often memory ran out: lower "
            "data.num_workers or data.batch_size"
        )
    return _dead_rank(trainer) if trainer is not None else None


def _ended(error: BaseException | None) -> str:
    """How a reading process ended, of what torch says along the chain of causes."""
    while error is not None:
        if by := re.search(r"killed by signal: ([\w ]+?)\.", str(error)):
            return f"was killed ({by[1]})"
        error = error.__cause__ or error.__context__
    return "ended unexpectedly"


def _dead_rank(trainer: L.Trainer) -> str | None:
    """What ended a process of a distributed run that this one started; None where all live."""
    processes = getattr(trainer.strategy.launcher, "procs", [])
    for _ in range(10 if processes else 0):  # its neighbour sees the broken connection first
        for rank, process in enumerate(processes, start=1):
            if status := process.poll():
                return f"process {rank} of 0 to {len(processes)} (pid {process.pid}) {_status(status)}"
        time.sleep(0.2)
    return None


def _status(status: int) -> str:
    """How a process ended, of its return code."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
