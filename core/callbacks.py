"""Callbacks every run has: checkpoints in the run folder, pictures, and what the data looks like before training."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from .console import Console
from .data import DataModule
from .metrics_file import read_metrics
from .pictures import learning_curves
from .registry import count_parameters
from .task import Task


class Checkpoint(ModelCheckpoint):
    """Keeps one checkpoint, `<run folder>/checkpoints/<name>.ckpt`, written at the end of an epoch.

    Args:
        name: of the file; `best` and `last` are what the commands look for.
        monitor: metric that decides whether an epoch is the best so far, e.g. "val/accuracy"; None writes every time.
        mode: whether "min" or "max" of it is best.
        every_n_epochs: how often to look.
    """

    def __init__(
        self, name: str, monitor: str | None = None, mode: Literal["min", "max"] = "min", every_n_epochs: int = 1
    ) -> None:
        super().__init__(
            filename=name,
            monitor=monitor,
            mode=mode,
            every_n_epochs=every_n_epochs,
            enable_version_counter=False,
            # After validation and after the epoch is counted: a resumed run starts with the next one.
            save_on_train_epoch_end=True,
        )

    @property
    def state_key(self) -> str:
        # By the file too: two that write every time are otherwise the same to Lightning.
        return self._generate_state_key(name=self.filename, monitor=self.monitor, mode=self.mode)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)


class WeightAverage(EMAWeightAveraging):
    """Exponential moving average of the weights, which is what is validated, tested and saved.

    Args:
        decay: share of the average that stays at each step.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(decay=decay)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # Lightning brings back the weights that were being averaged, which is right only where training goes on.
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class Introduction(Callback):
    """Says before training what was understood of the data and how large the model is."""

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        console = Console(markup=False)
        if isinstance(trainer.datamodule, DataModule):
            console.print(trainer.datamodule.table())
        console.print(f"{type(pl_module).__name__}: {count_parameters(pl_module) / 1e6:.2f} M parameters")


class Pictures(Callback):
    """Writes pictures into `<run folder>/pictures/` and the loggers: the first batch, the test, the learning curves."""

    @rank_zero_only
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 0 and batch_idx == 0 and isinstance(pl_module, Task):
            _write(trainer, "train", dict(pl_module.batch_pictures(batch)))

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, Task):
            return
        figures = dict(pl_module.pictures())
        rows = read_metrics(Path(trainer.default_root_dir) / "metrics.csv")
        # A test alone has trained nothing.
        if any(name.startswith(("train/", "val/")) for row in rows for name in row):
            figures |= {"learning_curves": learning_curves(rows)}
        _write(trainer, "test", figures)


def _write(trainer: L.Trainer, stage: str, figures: dict[str, Figure]) -> None:
    """Figures as files of the run folder, and to each logger that shows pictures."""
    folder = Path(trainer.default_root_dir) / "pictures"
    for name, figure in figures.items():
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=120)
        for logger in trainer.loggers:
            _show(logger, f"{stage}/{name}", figure, folder / f"{name}.png", trainer.global_step)


def _show(logger: Any, name: str, figure: Any, path: Path, step: int) -> None:
    """Hands a picture to a logger that can show one; metrics.csv cannot."""
    kind = type(logger).__name__
    if kind == "TensorBoardLogger":
        logger.experiment.add_figure(name, figure, step)
    elif kind == "WandbLogger":
        logger.log_image(key=name, images=[str(path)], step=step)
    elif kind == "MLFlowLogger":
        logger.experiment.log_artifact(logger.run_id, str(path), "pictures")
