"""Runs one verb: the Lightning CLI with quintet's run folder, checkpoints and closing summary."""

import contextlib
import logging
import os
import shlex
import signal
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace, set_parsing_settings
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from rich.table import Table

from ..data.module import DataModule
from ..errors import QuintetError, first_line, nearest, told_of
from ..learning.fixed_options import refuse_other
from ..learning.task import Task, commands_of, refuse_other_data
from ..weights.described import Described, description_of, packages_of
from ..weights.pretrained import read_checkpoint
from ..weights.records import record_of, restore_description, restore_origin
from ..writing.console import Console
from ..writing.files import written_whole
from . import composition
from .checkpoint_io import AtomicCheckpointIO, broke_while_restoring
from .configuration import VERBS, composed, find_checkpoint
from .help import every_option, options_of
from .interruption import DeathNotice, Ended, OwnSignals, Signals, killed_process
from .parsers import CountOrShare
from .report import write_report
from .run_folder import (
    REMEDY,
    RUN_FOLDER,
    given_run_folder,
    new_output_folder,
    new_run_folder,
    refuse_links,
    run_folder_of,
    settings_of,
    write_summary,
)
from .run_lock import locked
from .run_options import check_seed
from .show import facts_of
from .yaml_files import bound_jsonargparse


def run_composed(
    verb: str, overrides: Sequence[str], config_dir: str | None = None, show: bool = False
) -> "Runner | None":
    """Composes overrides in Hydra's grammar and runs the verb; `show` prints the configuration instead."""
    options: dict[str, Any] = {}
    if verb not in VERBS:
        overrides, options = composition.split_options(overrides, config_dir)
    config = composed(verb, overrides, config_dir, complete=not show)
    if show:
        objects = {key: value for key, value in config.items() if isinstance(value, Described)}
        shown = every_option(config | {key: description_of(value) for key, value in objects.items()})
        shown["trainer"] = options_of(Trainer, config["trainer"])
        print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), end="")
        return None
    if verb in VERBS:
        return Runner({"subcommand": verb, verb: config})
    return Runner({"subcommand": "predict", "predict": config}, verb, options)


class Runner(LightningCLI):
    """The Lightning CLI, run in a run folder, with self-describing checkpoints and a test after training.

    A command of a task (`predict`, and what its domain adds) runs in place of the Lightning CLI's own `predict`.
    """

    def __init__(
        self, arguments: dict[str, Any] | list[str], command: str = "predict", options: dict[str, Any] | None = None
    ) -> None:
        _quieten_lightning()
        self.command, self.options = command, options or {}
        self.console = Console(soft_wrap=True, markup=False)  # a path may hold brackets
        # No value, be it a checkpoint's, may name what runs commands; jsonargparse knows a list of such names.
        set_parsing_settings(import_path_denylist=["quintet.cli"])
        bound_jsonargparse()
        quiet = {"exit_on_error": False}
        self.inherited = RUN_FOLDER in os.environ
        self.tested: Path | None = None  # by the test after training, once it runs
        try:
            with Signals() as self.signals, DeathNotice(self._how_to_go_on), contextlib.ExitStack() as self.held:
                super().__init__(
                    Task,
                    DataModule,
                    trainer_class=trainer_of,
                    save_config_callback=None,
                    seed_everything_default=0,
                    parser_kwargs=quiet | dict.fromkeys(self.subcommands(), quiet),
                    subclass_mode_model=True,
                    subclass_mode_data=True,
                    auto_configure_optimizers=False,
                    load_from_checkpoint_support=False,
                    args=arguments,
                )
            if self.signals.received:  # in a place that swallows exceptions
                raise Ended
        except (KeyboardInterrupt, SystemExit) as error:
            self._stopped(error)
        except QuintetError:
            raise
        except Exception as error:
            trainer = getattr(self, "trainer", None)
            if isinstance(error, RuntimeError) and (reason := killed_process(error, trainer)):
                raise QuintetError("\n".join(filter(None, (reason, self._how_to_go_on())))) from error
            if broke_while_restoring(error):
                raise QuintetError(
                    f"{self.config[self.subcommand].ckpt_path} cannot be continued: what it says of its training is "
                    f"damaged or of another Lightning ({type(error).__name__}: {first_line(error)})"
                ) from error
            raise
        finally:
            self._remove_empty_folder()
            if not self.inherited:  # the next command of this Python process has a folder of its own
                os.environ.pop(RUN_FOLDER, None)

    def _stopped(self, error: BaseException) -> NoReturn:
        """Says how to go on after Ctrl-C or a signal, and ends the command with their status."""
        # Lightning makes an exit of both.
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
            raise error
        by = signal.Signals(self.signals.received).name if self.signals.received else "Ctrl-C"
        self._say(f"stopped by {by}; {self._how_to_go_on()}".removesuffix("; "))
        if self.signals.received:
            raise SystemExit(self.signals.status) from None
        raise KeyboardInterrupt from None

    def _how_to_go_on(self) -> str:
        """What to type after a training or its test was cut short; empty where the same command is typed again."""
        if self.tested is not None:
            return f"training is done; test with: quintet test ckpt_path={_typed(self.tested)}{self._trusting()}"
        settings = getattr(self, "folder", Path()) / "config.yaml"
        if getattr(self, "subcommand", None) != "fit" or not settings.is_file():
            return ""
        command, last = f"quintet fit --config {_typed(settings)}", self.folder / "checkpoints" / "last.ckpt"
        if last.is_file():
            return f"continue with: {command} --ckpt_path {_typed(last)}"
        return f"no epoch was finished; start again with: {command}"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default="run", help="folder under runs/")
        parser.add_argument("--run_dir", type=str | None, default=None, help="the run folder itself")
        parser.add_argument(
            "--trust", type=list[str], default=[], help="packages whose classes a checkpoint may ask for"
        )

    def _parse_ckpt_path(self) -> None:
        """Nothing: what a checkpoint describes is read in `before_instantiate_classes`, with its own errors."""

    def _set_seed(self) -> None:
        check_seed(self._get(self.config, "seed_everything"))
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        self.record: dict[str, Any] | None = None
        if config.ckpt_path:
            path = find_checkpoint(config.ckpt_path, config.name)
            config.ckpt_path = str(path)
            self.record = record_of(read_checkpoint(path), path)
        self.folder = self._run_folder(config)
        if self.subcommand == "fit" and rank_zero_only.rank == 0 and not self.inherited:
            self.held.enter_context(locked(self.folder))
        self.typed_config = config
        self.config[self.subcommand] = composition.substitute_run(config, self.folder)

    def _remove_empty_folder(self) -> None:
        """Removes the folder where nothing was written in it: after a mistake, or where `output` named another."""
        folder = getattr(self, "folder", None)
        if folder is not None and rank_zero_only.rank == 0:
            with contextlib.suppress(OSError):  # what is not empty stays
                folder.rmdir()
                if self.subcommand != "fit":
                    folder.parent.rmdir()  # <run>/<command>/, of which this was the first

    def _run_folder(self, config: Namespace) -> Path:
        """The folder of this run: a resumed run keeps its own; validate, test and predict write into one beside it."""
        if inherited := os.environ.get(RUN_FOLDER):
            return Path(inherited)
        if rank_zero_only.rank != 0 and not config.run_dir:
            raise QuintetError("processes started one by one cannot agree on a new folder; add run_dir=FOLDER")
        run = run_folder_of(config.ckpt_path) if config.ckpt_path else None
        if config.run_dir:
            run = given_run_folder(config.run_dir)
            if self.subcommand == "fit" and not config.ckpt_path and (run / "checkpoints").exists():
                last = run / "checkpoints" / "last.ckpt"
                written = last if last.is_file() else next((run / "checkpoints").glob("*.ckpt"), last)
                raise QuintetError(
                    f"{run} already holds a run; resume it with ckpt_path={_typed(written)} or choose another"
                )
        run = run or new_run_folder(config.name)
        kind = self.subcommand if self.subcommand in VERBS else self.command
        if kind == "fit":
            refuse_links(run)
        folder = run if kind == "fit" else new_output_folder(run, {"predict": "predictions"}.get(kind, kind))
        os.environ[RUN_FOLDER] = str(folder.resolve())
        return folder.resolve()

    def _write_config(self, config: Namespace) -> None:
        stored = config.clone()
        stored.run_dir = None
        stored.ckpt_path = None
        text = self._parser(self.subcommand).dump(stored, skip_none=False, skip_validation=True)
        path = self.folder / "config.yaml"
        heading = "# quintet fit --config"
        if path.exists():
            if self.record is not None:
                return
            if not path.read_text(encoding="utf-8", errors="replace").startswith(heading):
                raise QuintetError(f"{path} is not of a run and is not overwritten; choose another run_dir=FOLDER")
        with written_whole(path, replace=True, remedy=REMEDY) as partial:
            partial.write_text(f"{heading} {_typed(path)}\n{text}", encoding="utf-8")

    def after_instantiate_classes(self) -> None:
        if self.record is not None:
            named = self.record["task"]["class_path"].rsplit(".", 1)[-1]
            if named != type(self.model).__name__:
                raise QuintetError(
                    f"the checkpoint is of a {named}, the configuration builds a {type(self.model).__name__}"
                )
            refuse_other(self.model, self.record["task"], "model")
            refuse_other(self.datamodule, self.record.get("data"), "data")
            description = restore_description(type(self.model).description_type, self.record)
            if self.subcommand == "fit":
                self.datamodule.setup("fit")
                refuse_other_data(self.model.describe(self.datamodule), description)
            else:
                self.datamodule.adopt(description)
            self.model.adopt(description, restoring=True)
            self.model.origin = restore_origin(self.record)
        if self.subcommand == "fit" and rank_zero_only.rank == 0:
            self._write_config(self.typed_config)

    def instantiate_trainer(self, **arguments: Any) -> Trainer:
        read = self._get(self.config_init, "trainer")
        plugins = read.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        with told_of("trainer"):
            trainer = super().instantiate_trainer(
                default_root_dir=str(self.folder), plugins=[*plugins, AtomicCheckpointIO(self.folder)], **arguments
            )
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
            raise QuintetError(
                f"trainer.devices is {trainer.num_devices}, but there are {cores} CPU cores: give at most as many"
            )
        trainer.callbacks.insert(0, OwnSignals(self.signals))
        return trainer

    def after_fit(self) -> None:
        self.datamodule.setup("test")
        checkpoint = self._trained_checkpoint()
        if checkpoint is None or "test" not in self.datamodule.datasets:
            reason = "no checkpoint was written" if checkpoint is None else "the data has no test part"
            self._say(f"not tested: {reason}")
            if checkpoint is not None and rank_zero_only.rank == 0:
                self._say(f"report: {_shown(self._report(checkpoint, {}, self._next(checkpoint)))}")
            self._say(f"folder: {_shown(self.folder)}")
            return
        self.tested = checkpoint
        self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=str(checkpoint), verbose=False)
        self._close(checkpoint)

    def _trained_checkpoint(self) -> Path | None:
        """The best checkpoint, else the last one, saying why; None where there is none."""
        callbacks = [item for item in self.trainer.checkpoint_callbacks if isinstance(item, ModelCheckpoint)]
        for callback in callbacks:
            if (path := Path(callback.best_model_path)).is_file():
                return path
            if callback.monitor:
                self._say(f"no epoch ended with a number as {callback.monitor}, so none is called the best")
        return None

    def after_test(self) -> None:
        self._close(Path(self.config[self.subcommand].ckpt_path))

    def _close(self, checkpoint: Path) -> None:
        metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items() if key.startswith("test/")}
        if rank_zero_only.rank != 0:
            return
        write_summary(self.folder, {"checkpoint": _shown(checkpoint), "metrics": metrics})
        table = Table(title=f"test of {_shown(checkpoint)}", title_justify="left", show_header=False)
        for key, value in sorted(metrics.items()):
            table.add_row(key, f"{value:.4f}")
        self.console.print(table)
        command = self._next(checkpoint)
        report = self._report(checkpoint, metrics, command)
        self._say(f"report: {_shown(report)}\nfolder: {_shown(self.folder)}\nnext:   {command}")

    def _next(self, checkpoint: Path) -> str:
        """The command that predicts with a checkpoint."""
        command = f"quintet predict ckpt_path={_typed(checkpoint)}"
        if argument := self.datamodule.files:
            command += f" data.{argument}={'FOLDER' if argument == 'root' else 'FILE'}"
        return command + self._trusting()

    def _trusting(self) -> str:
        own = sorted(packages_of(self.model.record()))
        return f" trust={own[0] if len(own) == 1 else '[' + ','.join(own) + ']'}" if own else ""

    def _report(self, checkpoint: Path, metrics: dict[str, float], predict: str) -> Path:
        """Writes report.html of this run, with what lies in its folder and what the checkpoint says of itself."""
        run = run_folder_of(checkpoint) or self.folder
        settings = run / "config.yaml"
        given = f"ckpt_path={_typed(checkpoint)}"
        commands = [("Predict for new files:", predict)]
        commands += [("One file for other programs:", f"quintet export {given} format=onnx{self._trusting()}")]
        if settings.is_file():
            last = run / "checkpoints" / "last.ckpt"
            again = f"quintet fit --config {_typed(settings)}"
            commands += [("Train again, with other values:", f"{again} --model.init_args.lr {self.model.lr / 2:g}")]
            if last.is_file():
                longer = 2 * (self.trainer.max_epochs or 1)
                commands += [
                    ("Train longer:", f"{again} --ckpt_path {_typed(last)} --trainer.max_epochs {max(2, longer)}")
                ]
        return write_report(
            self.folder,
            f"{type(self.model).__name__}: {_shown(self.folder)}",
            dict(sorted(metrics.items())),
            commands,
            facts_of(checkpoint),
            settings_of(run),
        )

    def predict(self, **arguments: Any) -> None:
        method = getattr(type(self.model), self.command, None)
        if not getattr(method, "is_command", False):
            known = commands_of(type(self.model))
            raise QuintetError(
                f"{type(self.model).__name__} has no command '{self.command}'; {nearest(self.command, known)}"
            )
        if self.trainer.world_size > 1:
            raise QuintetError(f"{self.command} runs in one process; add trainer.devices=1")
        if arguments["ckpt_path"]:
            self.model.load_state_dict(read_checkpoint(arguments["ckpt_path"])["state_dict"])
        else:
            description = self.model.describe(self.datamodule)
            self.model.adopt(description)
            self.datamodule.adopt(description)
        for path in method(self.model.eval(), self.datamodule, self.trainer, self.folder, **self._typed_options()):
            self._say(f"wrote {_shown(path)}")

    def _typed_options(self) -> dict[str, Any]:
        """The options of a command, checked against the names and types of its keyword arguments."""
        given = ("data", "trainer", "folder")
        return composition.typed_options(type(self.model), self.command, self.options, self.command, skip=given)

    def _say(self, text: str) -> None:
        if rank_zero_only.rank == 0:
            self.console.print(text, highlight=False)


def trainer_of(
    *,
    limit_train_batches: CountOrShare | None = None,
    limit_val_batches: CountOrShare | None = None,
    limit_test_batches: CountOrShare | None = None,
    limit_predict_batches: CountOrShare | None = None,
    overfit_batches: CountOrShare = 0.0,
    val_check_interval: CountOrShare | str | timedelta | dict[str, int] | None = None,
    gradient_clip_val: CountOrShare | None = None,
    **others: Any,
) -> Trainer:
    """Lightning's Trainer, to which 1 of an option that counts batches is one batch, and 1.0 are all."""
    return Trainer(
        limit_train_batches=limit_train_batches,
        limit_val_batches=limit_val_batches,
        limit_test_batches=limit_test_batches,
        limit_predict_batches=limit_predict_batches,
        overfit_batches=overfit_batches,
        val_check_interval=val_check_interval,
        gradient_clip_val=gradient_clip_val,
        **others,
    )


def _quieten_lightning() -> None:
    """Leaves of Lightning's messages those a user can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "LightningCLI's args parameter",  # sys.argv must stay as typed for processes that DDP starts
        "does not have many workers",
        "The number of training batches",
        "exists and is not empty",
        "treespec, LeafSpec",
        "instantiate_classes",
        "callbacks used to create the checkpoint",
        "Using `DistributedSampler` with the dataloaders",
        "WeightAveraging doesn't support sharding",
        "The dirpath has changed",
        "in eval mode at the start of training",  # frozen normalization is meant to be
    ):
        warnings.filterwarnings("ignore", message=f"(?s).*{message}.*")


def _typed(path: Path) -> str:
    """A path as it is typed in a shell."""
    return shlex.quote(_shown(path))


def _shown(path: Path) -> str:
    """A path as a person would type it: relative to where they are, if it lies below."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
