"""The one base class of every domain's task: optimization, metrics, checkpoints that describe themselves.

A task is built in two steps. The constructor takes what the user chose; `adopt(description)` builds what depends on the
data (the head's classes, the input's channels). Training takes the description from the data module, a checkpoint
brings its own, so `load_task(path)` needs nothing but the file.
"""

import dataclasses
import functools
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection

from ..adaptation.lora import adapt, named_weights
from ..aside import listening, told_within
from ..blocks.encoder import keep_inputs_only
from ..data.module import DataModule
from ..errors import QuintetError, nearest
from ..optim.parameter_groups import parameter_groups
from ..optim.schedule import rise_and_fall
from ..weights.described import Described, description_of, to_json
from ..weights.finite import not_finite, refuse_not_finite
from ..weights.layout import of_one_kind
from ..weights.pretrained import LoadReport, optional_keys, read_checkpoint
from ..weights.proportion import OutOfProportion, check_numbers, within
from ..weights.records import RECORD, build_node, record_of, restore_description, restore_origin, restored
from .deployable import Deployable
from .finite import TOGETHER, LossWatch, MeanLoss, failed
from .fixed_options import refuse_other
from .metrics import apart


@dataclasses.dataclass
class StepResult:
    """What one batch gave: the loss to minimise, and predictions beside targets for the metrics."""

    loss: Tensor
    predictions: Tensor
    targets: Tensor

    @property
    def further(self) -> dict[str, Any]:
        """What metrics are told besides."""
        return {}


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
    `final_lr` times its peak; in a run without a last step (trainer.max_epochs=-1) it rises over the first epoch and
    stays. Biases, norms and other vectors are not decayed; with `layer_decay` d, layer l of L
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
        freeze: wildcards of parameter names that do not learn, e.g. "backbone.*". Modules all of which is frozen are
            in evaluation mode: their statistics stay, and they drop nothing.
        unfreeze_epoch: epoch at which all frozen parameters start to learn; None for never.
        unfreeze: which of them start to learn earlier: wildcards of their names, by the epoch at which they do, e.g.
            {1: ["network.encoder.stages.3.*"], 3: ["network.encoder.*"]} (gradual unfreezing, arXiv 1801.06146).
        lora_rank: of low-rank adapters, which learn in place of the weights they are added to (LoRA); 0 for none.
        lora_alpha: adapters are scaled by lora_alpha / lora_rank; None means by 1.
        lora_targets: wildcards of names of weights to adapt, e.g. "network.encoder.*"; None adapts all that can be.
        lora_also: wildcards of parameters that learn beside adapters; None means the head (`head_keys` of a network).
        compile: run the network through torch.compile.
        gradient_checkpointing: in training keep only the inputs of blocks and compute the rest again going back: a
            third more time for a fraction of the memory.
    """

    description_type: ClassVar[type]
    needs_training: ClassVar[bool] = True
    """False for a task whose commands run without a checkpoint."""
    fixed: ClassVar[frozenset[str]] = frozenset(
        {"backbone", "backbone_arguments", "mixer", "lora_rank", "lora_alpha", "lora_targets"}
    )
    """Arguments that weights were trained with and mean nothing without: a checkpoint brings them; see `DataModule`."""

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
        unfreeze: dict[int, list[str]] | None = None,
        lora_rank: int = 0,
        lora_alpha: float | None = None,
        lora_targets: list[str] | None = None,
        lora_also: list[str] | None = None,
        compile: bool = False,
        gradient_checkpointing: bool = False,
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
        self.unfreeze_schedule = {int(epoch): list(patterns) for epoch, patterns in (unfreeze or {}).items()}
        if self.unfreeze_schedule and not self.freeze_patterns:
            raise QuintetError("model.unfreeze has nothing to free; say what is frozen first, as model.freeze")
        if lora_rank and (self.unfreeze_schedule or unfreeze_epoch is not None):
            raise QuintetError(
                "model.lora_rank learns adapters in place of weights, which model.unfreeze would free beside them; "
                "leave one of them out"
            )
        if lora_rank < 0 or (not lora_rank and not (lora_alpha is lora_targets is lora_also is None)):
            raise QuintetError(f"model.lora_rank is {lora_rank}; adapters have a rank of 1 or more, such as 8")
        self.lora_rank = lora_rank
        self.lora_arguments = (lora_alpha, lora_targets, lora_also)
        self.compile_network = compile
        self.keep_inputs_only = gradient_checkpointing
        self.description: Any = None
        self._frozen_for: int | None = None  # the epoch for which parameters were last frozen or freed
        self.origin: LoadReport | None = None  # of the first weights, where they were not random
        self._losses = LossWatch()
        self._tells_losses: bool | None = None  # whether a layer says losses aside; known at the first step
        self._chosen: list[dict[str, float]] = []  # rate and decay of each group of parameters, as they were given

    # What a domain implements

    def make(self, description: Any) -> None:
        """Creates the parts that depend on the data: the network with its head."""
        raise NotImplementedError

    def describe(self, data: DataModule) -> Any:
        """What the task learns of data that it is to be built for."""
        return data.description()

    def initialise(self) -> None:
        """Gives the network its first weights where they are not random: pretrained ones. Skipped on restoring."""

    def step(self, batch: Any) -> StepResult:
        """Loss, predictions and targets of one batch."""
        raise NotImplementedError

    def metrics(self) -> MetricCollection:
        """What is measured on validation and test data; quintet.core.learning.metrics.collection makes one."""
        raise NotImplementedError

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names from the first layer to the last; the rest (the head) learns at full rate."""
        return []

    def parameter_patterns(self, pattern: str) -> list[str]:
        """What a pattern of `freeze` or `unfreeze` stands for: itself, or what a domain means by a word of its own."""
        return [pattern]

    def head_patterns(self) -> list[str] | None:
        """Wildcards of the parameters that no published weights bring, and which learn beside adapters.

        None means what the parts of the task call their `head_keys`.
        """
        return None

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        """Named figures of the last test, for the run folder and the logger."""
        yield from ()

    def batch_pictures(self, batch: Any) -> Iterator[tuple[str, Figure]]:
        """Named figures of the first training batch, drawn before it is learned from: what augmentation makes."""
        yield from ()

    def write_predictions(self, results: list[Any], folder: Path) -> list[Path]:
        """Writes what `predict_step` returned as files people open; returns their paths."""
        raise QuintetError(f"{type(self).__name__} cannot write predictions")

    def deployable(self) -> Deployable:
        """What `quintet export` traces: a module from what users have to what they want, with examples of its inputs.

        Keyword arguments are options of the command.
        """
        raise QuintetError(f"{type(self).__name__} has no graph to export; format=safetensors takes its weights")

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
        self.val_metrics = apart(self.metrics()).clone(prefix="val/")
        self.test_metrics = apart(self.metrics()).clone(prefix="test/")
        # Lightning's own mean over processes is wrong where they see different numbers of samples.
        self.val_loss, self.test_loss, self.train_loss = MeanLoss(), MeanLoss(), MeanLoss()
        if not restoring:
            self.initialise()
        if self.lora_rank:
            alpha, targets, also = self.lora_arguments
            adapt(self, self.lora_rank, alpha, targets, self.head_patterns() if also is None else also)
        self._freeze(0)
        if self.keep_inputs_only:
            keep_inputs_only(self)
        if self.compile_network:
            for network in self.children():
                if any(True for _ in network.parameters()):
                    network.compile()

    def setup(self, stage: str) -> None:
        self.check_precision(self.trainer)

    def check_precision(self, trainer: L.Trainer) -> None:
        """Raises QuintetError for precisions in which a task is not right."""
        if (precision := str(trainer.precision)) in ("16-true", "bf16-true"):
            mixed = precision.replace("true", "mixed")
            raise QuintetError(
                f"trainer.precision={precision} would round targets and statistics too, and shift what is measured and "
                f"predicted; give trainer.precision={mixed}, which computes as fast and keeps them, or 32-true"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Task":
        # Statistics and sums of metrics are in float64 so as to be exact. They stay so whatever the weights become,
        # and stay on the CPU where a device has no float64 (Apple's).
        @functools.wraps(fn)
        def moved(tensor: Tensor) -> Tensor:
            if tensor.dtype != torch.float64 or isinstance(tensor, nn.Parameter):
                return fn(tensor)
            try:
                found = fn(tensor)
                return found if found.dtype == torch.float64 else tensor.to(found.device)
            except (TypeError, RuntimeError):
                fn(torch.zeros_like(tensor, dtype=torch.float32))  # raises what has nothing to do with float64
                return tensor

        return super()._apply(moved, recurse)

    def configure_model(self) -> None:
        if self.description is None:
            data = self.trainer.datamodule
            if not isinstance(data, DataModule):
                raise QuintetError(f"{type(self).__name__} learns its sizes from a quintet data module; got {data!r}")
            self.adopt(self.describe(data))

    # Training

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        result = self._step_with_told_losses(batch)
        # Lightning's log takes as long as a layer of a small network: the mean is kept here and logged once.
        self.train_loss.update(result.loss.detach(), result.targets.shape[0])
        self._losses.keep(self.trainer.global_step, result.loss)
        alone = self.device.type == "cpu" and self.trainer.world_size == 1
        if alone or len(self._losses) >= TOGETHER:
            self._losses.look(self)
        return result.loss

    def _step_with_told_losses(self, batch: Any) -> StepResult:
        """`step`, its loss and what layers said aside as "loss", such as how evenly a mixture uses its experts."""
        if self._tells_losses is None:
            self._tells_losses = "loss" in told_within(self)
        if not self._tells_losses:
            return self.step(batch)
        with listening(self, "loss") as heard:
            result = self.step(batch)
        result.loss = result.loss + sum(loss for losses in heard["loss"].values() for loss in losses)
        return result

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
        metrics.update(result.predictions, result.targets, **result.further)
        loss.update(result.loss, size)
        measured = {f"{stage}/loss": loss, **metrics}
        self.log_dict(measured, prog_bar=stage == "val", on_step=False, on_epoch=True, batch_size=size)

    def on_fit_start(self) -> None:
        if (self.unfreeze_epoch is not None or self.unfreeze_schedule) and self.trainer.world_size > 1:
            # DDP fixes at its start which gradients it exchanges.
            raise QuintetError("model.unfreeze needs a single process; freeze in one run, continue in a second")
        self._frozen_for = None
        self.record()  # what a checkpoint cannot describe is refused now, not after an epoch

    def on_train_start(self) -> None:
        # A resumed run learns at the rates it was given, not at those of the checkpoint.
        (schedule,) = self.trainer.lr_scheduler_configs[:1] or (None,)
        if schedule is None or not isinstance(schedule.scheduler, LambdaLR):
            return
        groups, factors = schedule.scheduler.optimizer.param_groups, schedule.scheduler.lr_lambdas
        if len(groups) == len(self._chosen):
            schedule.scheduler.base_lrs = [chosen["initial_lr"] for chosen in self._chosen]
            for group, chosen, factor in zip(groups, self._chosen, factors):
                group |= chosen | {"lr": chosen["initial_lr"] * factor(schedule.scheduler.last_epoch)}

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        # Dropout and drop path draw from (seed, epoch, batch, process), so a resumed run draws what a whole one does.
        if seed := os.environ.get("PL_GLOBAL_SEED"):
            draw = (int(seed), self.current_epoch, batch_index, self.global_rank)
            number = zlib.crc32(repr(draw).encode())
            # torch.manual_seed would turn to every kind of device, which on a plain machine takes half a millisecond.
            torch.default_generator.manual_seed(number)
            if self.device.type != "cpu":
                torch.get_device_module(self.device).manual_seed(number)
        # Where a run continues inside an epoch, the first batch it sees is not the epoch's first.
        if self._frozen_for != self.current_epoch:
            self._freeze(self.current_epoch)
            self._check_learning()
            self._frozen_for = self.current_epoch

    def on_validation_start(self) -> None:
        self._losses.look(self)

    def on_train_epoch_end(self) -> None:
        # Before checkpoints are written, none of which may be called the best after this.
        self._losses.look(self)
        value = self.trainer.callback_metrics.get("val/loss")
        if value is not None and not value.isfinite():
            failed(self, f"the loss on the validation data is {value.item()}, though in training it was a number")
        self.log("train/loss", self.train_loss, prog_bar=True)
        self.log("train/lr", max(group["lr"] for group in self.optimizers().param_groups), sync_dist=True)

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self, self.lr, self.weight_decay, self.layer_groups(), self.layer_decay)
        optimizer = self.optimizer(groups, lr=self.lr, weight_decay=self.weight_decay, **self._fused())
        total = max(1, self.trainer.estimated_stepping_batches)
        if math.isinf(total):
            self.trainer.fit_loop.setup_data()  # or nobody knows yet how many batches an epoch has
            rising = int(min(1000, self.trainer.num_training_batches / self.trainer.accumulate_grad_batches))
        else:
            rising = round(self.warmup * total)
        schedule = LambdaLR(optimizer, rise_and_fall(rising, total, self.final_lr))
        self._chosen = [
            {key: group[key] for key in ("initial_lr", "weight_decay") if key in group}
            for group in optimizer.param_groups
        ]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _fused(self) -> dict[str, bool]:
        """`fused=True` for AdamW on a CPU: the same steps without a loop over tensors, a tenth of a small network's.

        On GPUs torch takes tensors together by itself, and Lightning clips no gradients of fused optimizers there.
        """
        parameters = list(self.parameters())
        plain = all(one.device.type == "cpu" and one.is_floating_point() for one in parameters)
        return {"fused": True} if self.optimizer is AdamW and plain else {}

    def _freeze(self, epoch: int) -> None:
        """Freezes what does not learn in an epoch and frees what does, of the parameters that `freeze` names."""
        whole = self.unfreeze_epoch is not None and epoch >= self.unfreeze_epoch
        freed = {
            name
            for start, patterns in self.unfreeze_schedule.items()
            for name in self._matching(patterns, "unfreeze")
            if start <= epoch
        }
        for name, parameter in self._matching(self.freeze_patterns, "freeze").items():
            parameter.requires_grad_(whole or name in freed)
        if self.training and self.freeze_patterns:
            # Frozen normalization layers keep their statistics too, and frozen blocks drop nothing.
            _train_where_something_learns(self, True)

    def _check_learning(self) -> None:
        """Raises QuintetError where all parameters are frozen, before torch finds no way back from the loss."""
        if self.freeze_patterns and not any(parameter.requires_grad for parameter in self.parameters()):
            raise QuintetError(
                f"model.freeze={self.freeze_patterns} leaves no parameter to learn in epoch {self.current_epoch}; "
                "leave out what is to learn, such as the head"
            )

    def _matching(self, patterns: Iterable[str], option: str) -> dict[str, nn.Parameter]:
        """The parameters whose names match; raises QuintetError for a pattern that none does."""
        names, found = named_weights(self), {}
        for pattern in (known for given in patterns for known in self.parameter_patterns(given)):
            matches = [name for name in names if fnmatch(name, pattern)]
            if not matches:
                tops = {f"{name.split('.')[0]}.*" for name in names}
                raise QuintetError(f"model.{option}: no parameter matches '{pattern}'; {nearest(pattern, tops)}")
            found |= {name: names[name] for name in matches}
        return found

    # Checkpoints

    def record(self) -> dict[str, Any]:
        """What a checkpoint says of itself: how to build the task and its data module, and the data's description."""
        from ... import __version__

        record = {
            "version": __version__,
            "task": description_of(self),
            "description": description_of(dataclasses.asdict(self.description), "description"),
        }
        if self.origin is not None:
            record["origin"] = {"weights": self.origin.origin, "licence": self.origin.licence}
        data = self.trainer.datamodule if self._trainer is not None else None
        if isinstance(data, DataModule):
            record["data"] = description_of(data)
        return record

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A finite loss may have had gradients that were not.
        parameters = dict(self.named_parameters())
        if bad := not_finite(parameters | dict(self.named_buffers()), parameters):
            failed(self, f"{len(bad)} of the weights hold NaN or infinity (first: {bad[0]})")
        checkpoint[RECORD] = self.record() | {"training": self._training_so_far()}

    def _training_so_far(self) -> dict[str, Any]:
        """Where training stands, what was measured and on what machine, for whoever finds the checkpoint."""
        trainer, folder = self.trainer, Path(self.trainer.default_root_dir)
        measured = {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
        on_gpu = self.device.type == "cuda"
        return {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "metrics": dict(sorted(measured.items())),
            "folder": str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder),
            "device": torch.cuda.get_device_name(self.device) if on_gpu else self.device.type,
            "time": f"{datetime.now():%Y-%m-%d %H:%M}",
            "versions": {"torch": str(torch.__version__), "lightning": L.__version__},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record = record_of(checkpoint, "this checkpoint")
        name = record["task"]["class_path"].rsplit(".", 1)[-1]
        if name != type(self).__name__:
            raise QuintetError(f"the checkpoint is of a {name}, this run builds a {type(self).__name__}")
        refuse_other(self, record["task"], "model")
        trained = restore_description(type(self).description_type, record)
        if self.description is not None:
            refuse_other_data(self.description, trained)
        self.adopt(trained, restoring=True)
        self.origin = restore_origin(record)

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        if strict:
            self.check_fits(state_dict)
        refuse_not_finite(state_dict, dict(self.named_parameters()))
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:  # of what a file may hold or not, whose shape only the part itself knows
            said = str(error).strip().splitlines()[-1].strip()
            raise QuintetError(f"the checkpoint is damaged or of another model: {said}") from None

    def check_fits(self, state_dict: Mapping[str, Tensor]) -> None:
        """Raises QuintetError where weights have other names, shapes or kinds of numbers than this task's."""
        own, optional = self.state_dict(), optional_keys(self)
        shapes = {key: value.shape for key, value in own.items() if key not in optional}
        differing = [key for key in shapes if key not in state_dict or state_dict[key].shape != shapes[key]]
        if recast := [key for key in own if key in state_dict and not of_one_kind(state_dict[key], own[key])]:
            found, expected = (str(state[recast[0]].dtype).removeprefix("torch.") for state in (state_dict, own))
            raise QuintetError(
                f"the checkpoint is damaged: {len(recast)} of its tensors hold another kind of number (first: "
                f"{recast[0]} of {found}, not {expected}); copy it again, or take an earlier one"
            )
        surplus = [key for key in state_dict if key not in own and key not in optional]
        if differing or surplus:
            first = (differing + surplus)[0]
            raise QuintetError(
                f"the checkpoint is of another model: {len(differing)} tensors missing or of another shape, "
                f"{len(surplus)} unexpected (first: {first}); give the model it was trained with, or leave `model` out"
            )


def _train_where_something_learns(module: nn.Module, above: bool) -> None:
    """Training mode for modules below which some parameter learns, for those without any as the module `above` them."""
    learning = [parameter.requires_grad for parameter in module.parameters()]
    module.training = any(learning) if learning else above
    for child in module.children():
        _train_where_something_learns(child, module.training)


def refuse_other_data(found: Any, trained: Any) -> None:
    """Raises QuintetError where a description of data differs from the one a checkpoint was trained with."""
    found, trained = (description_of(dataclasses.asdict(item), "description") for item in (found, trained))
    # As text, where NaN equals NaN.
    if differing := [name for name in trained if to_json(found[name]) != to_json(trained[name])]:
        raise QuintetError(
            f"the checkpoint was trained on other data: {', '.join(differing)} differ; start a new run, "
            "or from its weights with model.pretrained=FILE"
        )


def load_task(path: str | Path, trusted: Iterable[str] = ()) -> Task:
    """Builds the task a checkpoint describes, with its weights, ready to predict; needs nothing but the file.

    `trusted` names packages outside quintet whose classes the file may ask for. Raises QuintetError for a file that is
    damaged, unsafe or not quintet's.
    """
    checkpoint = read_checkpoint(path)
    return restored_task(checkpoint, path, trusted=trusted).eval()


def restored_task(
    checkpoint: Mapping[str, Any],
    where: str | Path,
    overrides: Mapping[str, Any] | None = None,
    trusted: Iterable[str] = (),
) -> Task:
    """The task that the content of a checkpoint describes, with its weights; `overrides` replace its arguments.

    Raises QuintetError for a record that is damaged, asks for what is not trusted, or does not fit its weights.
    """
    record, trusted = record_of(checkpoint, where), tuple(trusted)
    check_numbers(record["task"], where)

    def make() -> Task:
        with within(checkpoint["state_dict"], where):
            return described()

    def described() -> Task:
        # Compiling writes files and starts programs: whoever reads a checkpoint says so, never the file.
        compiled = record["task"].get("init_args", {}).get("compile", False)
        chosen = ({} if compiled is False else {"compile": False}) | dict(overrides or {})
        task = build_node(record["task"], Task, chosen, where, trusted)
        task.adopt(restore_description(type(task).description_type, record, where), restoring=True)
        return task

    # On paper first: sizes that a damaged record asks for could take all memory before they were seen not to fit.
    try:
        with torch.device("meta"):
            paper = make()
    except OutOfProportion:
        raise
    except Exception:  # some networks are built from tables of numbers; what is wrong with others is said below
        paper = None
    if paper is not None:
        paper.check_fits(checkpoint["state_dict"])
    task = restored(make, where, record)
    task.origin = restore_origin(record)
    task.load_state_dict(checkpoint["state_dict"])
    return task
