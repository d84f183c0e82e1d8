"""The one base class of every domain's task: optimization, metrics, checkpoints that describe themselves.

A task is built in two steps. The constructor takes what the user chose; `adopt(description)` builds what depends on the
data (the head's classes, the input's channels). Training takes the description from the data module, a checkpoint
brings its own, so `load_task(path)` needs nothing but the file.
"""

import dataclasses
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, MetricCollection

from .data import DataModule
from .described import Described, build, description_of
from .errors import QuintetError, nearest
from .optim.parameter_groups import parameter_groups
from .pretrained import read_checkpoint

RECORD = "quintet"  # the key of a checkpoint under which a task describes itself


@dataclasses.dataclass
class StepResult:
    """What one batch gave: the loss to minimise, and predictions beside targets for the metrics."""

    loss: Tensor
    predictions: Tensor
    targets: Tensor


def command(method: Callable) -> Callable:
    """Marks a task's method as a command: `quintet <name> ckpt_path=... <option>=<value>`.

    It is called as `method(data, trainer, folder, **options)` with the checkpoint's weights loaded, and returns the
    paths of the files it wrote. Options are its keyword arguments, checked against their types.
    """
    method.is_command = True
    return method


def commands_of(task_type: type) -> list[str]:
    """Names of the commands a task has."""
    return [name for name in dir(task_type) if getattr(getattr(task_type, name, None), "is_command", False)]


class Task(Described, L.LightningModule):
    """Loss, metrics, optimizer, schedule, freezing, compilation and checkpoints of a domain task.

    The learning rate rises linearly over the first `warmup` share of all steps and falls by a half cosine to
    `final_lr` times its peak. Biases, norms and other vectors are not decayed; with `layer_decay` d, layer l of L
    learns at lr * d^(L - l) (BEiT: BERT Pre-Training of Image Transformers, arXiv 2106.08254).

    A domain's task implements `make`, `step`, `metrics`, and where they make sense `predict_step`, `initialise`,
    `layer_groups`, `pictures` and `write_predictions`.

    Args:
        lr: peak learning rate.
        weight_decay: decay of matrices and convolutions.
        layer_decay: factor between the learning rates of neighbouring layers, None for one rate.
        warmup: share of all steps in which the rate rises.
        final_lr: the last learning rate as a share of the peak.
        optimizer: called with parameter groups, `lr` and `weight_decay`, which win over values of its own.
        freeze: wildcards of parameter names that do not learn, e.g. "backbone.*".
        unfreeze_epoch: epoch at which frozen parameters start to learn; None for never.
        compile: run the network through torch.compile.
    """

    description_type: ClassVar[type]

    def __init__(
        self,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        layer_decay: float | None = None,
        warmup: float = 0.05,
        final_lr: float = 0.01,
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        freeze: list[str] | None = None,
        unfreeze_epoch: int | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        for name, value, low, high in (
            ("lr", lr, 0, math.inf),
            ("weight_decay", weight_decay, 0, math.inf),
            ("warmup", warmup, 0, 1),
            ("final_lr", final_lr, 0, 1),
            ("layer_decay", layer_decay, 0, 1),
        ):
            if value is not None and not low <= value <= high:
                raise QuintetError(f"model.{name} is {value}; it lies between {low} and {high}")
        self.lr = lr
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        self.warmup = warmup
        self.final_lr = final_lr
        self.optimizer = optimizer
        self.freeze_patterns = list(freeze or [])
        self.unfreeze_epoch = unfreeze_epoch
        self.compile_network = compile
        self.description: Any = None

    # What a domain implements

    def make(self, description: Any) -> None:
        """Creates the parts that depend on the data: the network with its head."""
        raise NotImplementedError

    def initialise(self) -> None:
        """Gives the network its first weights where they are not random: pretrained ones. Skipped on restoring."""

    def step(self, batch: Any) -> StepResult:
        """Loss, predictions and targets of one batch."""
        raise NotImplementedError

    def metrics(self) -> MetricCollection:
        """What is measured on validation and test data."""
        raise NotImplementedError

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names from the first layer to the last; the rest (the head) learns at full rate."""
        return []

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        """Named figures of the last test, for the run folder and the logger."""
        yield from ()

    def batch_pictures(self, batch: Any) -> Iterator[tuple[str, Figure]]:
        """Named figures of the first training batch, drawn before it is learned from: what augmentation makes."""
        yield from ()

    def write_predictions(self, results: list[Any], folder: Path) -> list[Path]:
        """Writes what `predict_step` returned as files people open; returns their paths."""
        raise QuintetError(f"{type(self).__name__} cannot write predictions")

    @command
    def predict(self, data: DataModule, trainer: L.Trainer, folder: Path) -> list[Path]:
        """Predicts for the files `data` names and writes the predictions into `folder`."""
        return self.write_predictions(trainer.predict(self, datamodule=data), folder)

    # Building

    def adopt(self, description: Any, restoring: bool = False) -> None:
        """Builds what depends on the data; `restoring` says that weights follow from a checkpoint."""
        if self.description is not None:
            return
        self.description = description
        self.make(description)
        self.val_metrics = self.metrics().clone(prefix="val/")
        self.test_metrics = self.metrics().clone(prefix="test/")
        # Lightning's own mean over processes is wrong where they see different numbers of samples.
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        if not restoring:
            self.initialise()
        self._set_frozen(True)
        if self.compile_network:
            for network in self.children():
                if any(True for _ in network.parameters()):
                    network.compile()

    def configure_model(self) -> None:
        if self.description is None:
            data = self.trainer.datamodule
            if not isinstance(data, DataModule):
                raise QuintetError(f"{type(self).__name__} learns its sizes from a quintet data module; got {data!r}")
            self.adopt(data.description())

    # Training

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        result = self.step(batch)
        size = result.targets.shape[0]
        self.log(
            "train/loss", result.loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=size, sync_dist=True
        )
        return result.loss

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: Any, batch_index: int) -> None:
        self.evaluate(batch, "test")

    def evaluate(self, batch: Any, stage: Literal["val", "test"]) -> StepResult:
        """One step without learning, measured: what `validation_step` and `test_step` do."""
        result = self.step(batch)
        self.measure(result, stage)
        return result

    def measure(self, result: StepResult, stage: Literal["val", "test"]) -> None:
        """Takes what a step gave into the metrics of a stage."""
        metrics, loss = (self.val_metrics, self.val_loss) if stage == "val" else (self.test_metrics, self.test_loss)
        size = result.targets.shape[0]
        metrics.update(result.predictions, result.targets)
        loss.update(result.loss, size)
        measured = {f"{stage}/loss": loss, **metrics}
        self.log_dict(measured, prog_bar=stage == "val", on_step=False, on_epoch=True, batch_size=size)

    def on_fit_start(self) -> None:
        if self.unfreeze_epoch is not None and self.trainer.world_size > 1:
            # DDP fixes at its start which gradients it exchanges.
            raise QuintetError("model.unfreeze_epoch needs a single process; freeze in one run, continue in a second")
        self.record()  # what a checkpoint cannot describe is refused now, not after an epoch

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        # Dropout and drop path draw from (seed, epoch, batch, process), so a resumed run draws what a whole one does.
        if seed := os.environ.get("PL_GLOBAL_SEED"):
            draw = (int(seed), self.current_epoch, batch_index, self.global_rank)
            torch.manual_seed(zlib.crc32(repr(draw).encode()))
        if batch_index == 0 and self.freeze_patterns:
            self._set_frozen(self.unfreeze_epoch is None or self.current_epoch < self.unfreeze_epoch)

    def on_train_epoch_end(self) -> None:
        self.log("train/lr", max(group["lr"] for group in self.optimizers().param_groups), sync_dist=True)

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self, self.lr, self.weight_decay, self.layer_groups(), self.layer_decay)
        optimizer = self.optimizer(groups, lr=self.lr, weight_decay=self.weight_decay)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        rising = round(self.warmup * total)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            progress = min(1.0, (step - rising) / max(1, total - rising))
            return self.final_lr + (1 - self.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def _set_frozen(self, frozen: bool) -> None:
        names = dict(self.named_parameters())
        for pattern in self.freeze_patterns:
            matches = [name for name in names if fnmatch(name, pattern)]
            if not matches:
                tops = {f"{name.split('.')[0]}.*" for name in names}
                raise QuintetError(f"model.freeze: no parameter matches '{pattern}'; {nearest(pattern, tops)}")
            for name in matches:
                names[name].requires_grad_(not frozen)
        for module in self.modules():
            # Frozen normalization layers keep their statistics too.
            own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
            if own and self.training and self.freeze_patterns:
                module.train(any(own))

    # Checkpoints

    def record(self) -> dict[str, Any]:
        """What a checkpoint says of itself: how to build the task and its data module, and the data's description."""
        from .. import __version__

        record = {
            "version": __version__,
            "task": description_of(self),
            "description": description_of(dataclasses.asdict(self.description), "description"),
        }
        data = self.trainer.datamodule if self._trainer is not None else None
        if isinstance(data, DataModule):
            record["data"] = description_of(data)
        return record

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[RECORD] = self.record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record = record_of(checkpoint, "this checkpoint")
        name = record["task"]["class_path"].rsplit(".", 1)[-1]
        if name != type(self).__name__:
            raise QuintetError(f"the checkpoint is of a {name}, this run builds a {type(self).__name__}")
        trained = restore_description(type(self), record)
        if self.description not in (None, trained):
            known, found = dataclasses.asdict(trained), dataclasses.asdict(self.description)
            differing = [name for name in known if known[name] != found[name]]
            raise QuintetError(
                f"the checkpoint was trained on other data: {', '.join(differing)} differ; start a new run, "
                "or from its weights with model.pretrained=FILE"
            )
        self.adopt(trained, restoring=True)

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        own = self.state_dict()
        differing = [key for key in own if key not in state_dict or state_dict[key].shape != own[key].shape]
        surplus = [key for key in state_dict if key not in own]
        if strict and (differing or surplus):
            first = (differing + surplus)[0]
            raise QuintetError(
                f"the checkpoint is of another model: {len(differing)} tensors missing or of another shape, "
                f"{len(surplus)} unexpected (first: {first}); give the model it was trained with, or leave `model` out"
            )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


def record_of(checkpoint: dict[str, Any], where: str | Path) -> dict[str, Any]:
    """The part of a checkpoint in which a task describes itself. Raises QuintetError where there is none."""
    if RECORD not in checkpoint:
        raise QuintetError(f"{where} was not written by quintet; load its weights with model.pretrained=FILE instead")
    return checkpoint[RECORD]


def restore_description(task_type: type[Task], record: dict[str, Any]) -> Any:
    """The description of the data a task was trained on, as the dataclass its type expects."""
    return task_type.description_type(**record["description"])


def load_task(path: str | Path, trusted: Iterable[str] = ()) -> Task:
    """Builds the task a checkpoint describes, with its weights, ready to predict; needs nothing but the file.

    `trusted` names packages outside quintet whose classes the file may ask for. Raises QuintetError for a file that is
    damaged, unsafe or not quintet's.
    """
    checkpoint = read_checkpoint(path)
    record = record_of(checkpoint, path)
    task = build(record["task"], trusted)
    if not isinstance(task, Task):
        raise QuintetError(f"{path} describes a {type(task).__name__}, not a task")
    task.adopt(restore_description(type(task), record), restoring=True)
    task.load_state_dict(checkpoint["state_dict"])
    return task.eval()


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, learned or frozen."""
    return sum(parameter.numel() for parameter in module.parameters())
