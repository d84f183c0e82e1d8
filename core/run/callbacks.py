"""Callbacks every run has: checkpoints in the run folder, pictures, and what the data looks like before training."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from torch import Tensor

from ..attention.feature_maps.positive_random import PositiveRandomFeatures
from ..data.module import DataModule
from ..errors import QuintetError, one_line
from ..learning.task import Task
from ..pictures.charts import learning_curves
from ..weights.registry import count_parameters
from ..writing.console import Console
from ..writing.files import written_whole
from .metrics_file import read_metrics


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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Of what the state says only the score is taken, and only for this callback's own file: Lightning would delete
        # whatever file or folder stands there as the best of before, and the run folder may have been moved.
        own = Path(self.dirpath or "") / f"{self.filename}.ckpt"
        score = state_dict.get("best_model_score")
        if not self.dirpath or not own.is_file():
            return
        if self.monitor is not None:
            if not isinstance(score, Tensor) or score.shape or not score.isfinite():
                return
            self.best_model_score = self.kth_value = score
            self.best_k_models = {str(own): score}
            self.kth_best_model_path = str(own)
        self.best_model_path = str(own)

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        # Lightning would take an epoch whose metric is NaN for the best so far, if there was none before.
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)


class WeightAverage(WeightAveraging):
    """Exponential moving average of the weights, which is what is validated, tested and saved.

    After n steps the average keeps min(decay, (1 + n) / (10 + n)) of itself: without the second, the first random
    weights would be most of the average in a run of fewer than 1 / (1 - decay) steps.

    Args:
        decay: share of the average that stays at each step, in the long run.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise QuintetError(f"callbacks.average.decay is {decay}; it lies between 0 and 1")

        def average(averages: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
            kept = ((1 + steps) / (10 + steps)).clamp(max=decay)
            for mean, weight in zip(averages, weights):
                if mean.is_floating_point():
                    mean.lerp_(weight, (1 - kept).to(mean.dtype))
                else:  # counters
                    mean.copy_(weight)

        super().__init__(multi_avg_fn=average)
        self._buffers: list[Tensor] = []

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin_with_buffers_of(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._begin_with_buffers_of(pl_module)

    def _begin_with_buffers_of(self, pl_module: L.LightningModule) -> None:
        """Before the first step the average has the buffers of the task, which may have learned some since it was made:
        trees and the like, that were empty then."""
        if self._average_model is None or self._average_model.n_averaged:
            return
        for mean, own in zip(self._average_model.module.modules(), pl_module.modules()):
            for name, buffer in own._buffers.items():
                mean._buffers[name] = None if buffer is None else buffer.clone()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._buffers = [buffer.clone() for buffer in pl_module.buffers()]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing yet: the task may still write down what it learned from validating the average."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._average_model is None:
            return
        measured = [
            (buffer.clone(), not buffer.equal(before)) for buffer, before in zip(pl_module.buffers(), self._buffers)
        ]
        self._swap_models(pl_module)
        # Thresholds and the like belong to both: later steps would average them with older ones.
        for buffer, (value, written) in zip(pl_module.buffers(), measured):
            if written:
                buffer.copy_(value)

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
    """Writes pictures into `<run folder>/pictures/` and the loggers: the first batch, the test, the learning curves.

    A picture that cannot be drawn or written is said and left out: a run does not fail for it.
    """

    @rank_zero_only
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 0 and batch_idx == 0 and isinstance(pl_module, Task):
            _draw(trainer, "train", lambda: pl_module.batch_pictures(batch))

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, Task):
            return
        _draw(trainer, "test", pl_module.pictures)
        rows = read_metrics(Path(trainer.default_root_dir) / "metrics.csv")
        # A test alone has trained nothing.
        if any(name.startswith(("train/", "val/")) for row in rows for name in row):
            _draw(trainer, "test", lambda: [("learning_curves", learning_curves(rows))])


def _draw(trainer: L.Trainer, stage: str, figures: Callable[[], Iterable[tuple[str, Figure]]]) -> None:
    """Writes each figure as it is drawn; those from the first that fails are left out, with one line that says why."""
    try:
        for name, figure in figures():
            _write(trainer, stage, name, figure)
    except Exception as error:
        if os.environ.get("QUINTET_DEBUG") == "1":
            raise
        said = f"warning: a picture of the {stage} part is left out: {one_line(error)}"
        Console(markup=False, stderr=True, soft_wrap=True).print(said, highlight=False)


def _write(trainer: L.Trainer, stage: str, name: str, figure: Figure) -> None:
    """A figure as a file of the run folder, and to each logger that shows pictures."""
    path = Path(trainer.default_root_dir) / "pictures" / f"{name}.png"
    with written_whole(path, replace=True, remedy="free space") as partial:
        figure.savefig(partial, dpi=120)
    for logger in trainer.loggers:
        _show(logger, f"{stage}/{name}", figure, path, trainer.global_step)


def _show(logger: Any, name: str, figure: Any, path: Path, step: int) -> None:
    """Hands a picture to a logger that can show one; metrics.csv cannot."""
    kind = type(logger).__name__
    if kind == "TensorBoardLogger":
        logger.experiment.add_figure(name, figure, step)
    elif kind == "WandbLogger":
        logger.log_image(key=name, images=[str(path)], step=step)
    elif kind == "MLFlowLogger":
        logger.experiment.log_artifact(logger.run_id, str(path), "pictures")


class RedrawFeatures(Callback):
    """Draws the random features of all `PositiveRandomFeatures` anew every so many optimizer steps of training.

    The draw of a step is the same in every process and in a run that is continued. Validation uses the last one, which
    checkpoints hold.

    Args:
        every: steps between two draws, at least 1.
    """

    def __init__(self, every: int = 1000) -> None:
        if every < 1:
            raise QuintetError(f"features are drawn anew every so many steps, at least 1; got {every}")
        self.every = every

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == 0 or step % self.every:
            return
        generator = torch.Generator().manual_seed(step)
        for module in pl_module.modules():
            if isinstance(module, PositiveRandomFeatures):
                module.redraw(generator)
