"""The configuration of a verb: what was typed, composed and checked, and after `fit` what the checkpoint says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer

from ..data.module import DataModule
from ..errors import QuintetError, nearest
from ..learning.fixed_options import refuse_changed
from ..learning.task import Task, commands_of, restored_task
from ..weights.pretrained import read_checkpoint
from ..weights.records import RECORD, build_node, record_of, restored
from ..weights.trusted import resolve
from . import composition
from .overrides import typed_below
from .own_code import let_in_own_code
from .parsers import argument_parser
from .run_folder import last_checkpoint
from .run_options import check_trainer

VERBS = ("fit", "validate", "test")  # the Lightning CLI's; every other is a command of the task a checkpoint holds


def composed(
    verb: str, overrides: Sequence[str], config_dir: str | None = None, complete: bool = True
) -> dict[str, Any]:
    """The Lightning CLI's configuration for a verb, from overrides and, after `fit`, from the checkpoint itself.

    Without `complete`, values that the user has yet to give are "???" instead of an error.
    """
    typed, chosen = overrides, {override.split("=", 1)[0] for override in overrides}
    from_checkpoint = verb != "fit" and not chosen & {"experiment", "model", "data"}
    values: dict[str, Any] = {}
    if from_checkpoint:
        overrides, values = composition.split_values(overrides, ("model", "data"))
    config = composition.compose(overrides, config_dir)
    chosen_name = next((item.split("=", 1)[1] for item in overrides if item.startswith("experiment=")), "run")
    tree, run_dir = composition.settled(config, complete, chosen_name)
    name = str(tree["name"])
    if verb != "fit" and not tree["ckpt_path"] and _needs_training(verb, tree.get("model")):
        raise QuintetError(f"{verb} needs a checkpoint: add ckpt_path=runs/.../checkpoints/best.ckpt")
    let_in_own_code(tree, tree["trust"])
    objects: dict[str, Any] = {}
    if from_checkpoint:
        path = find_checkpoint(tree["ckpt_path"], name)
        objects = restored_objects(read_checkpoint(path), path, values, tree["trust"], typed)
        tree |= {"model": None, "data": None}
    elif verb != "fit" and tree["ckpt_path"]:
        path = find_checkpoint(tree["ckpt_path"], name)
        _, given = composition.split_values(overrides, ("model", "data"))
        record = record_of(read_checkpoint(path), path)
        for part, key in (("model", "task"), ("data", "data")):
            chosen_class = composition.import_class(tree[part]["_target_"], part) if tree.get(part) else None
            if chosen_class is not None:
                refuse_changed(given, chosen_class, record.get(key), part)
    nodes = {key: composition.class_path_form(tree.get(key)) for key in ("model", "data", "trainer")}
    nodes["trainer"] = nodes["trainer"]["init_args"]
    composition.check_arguments(Trainer, nodes["trainer"], "trainer")
    check_trainer(nodes["trainer"])
    for key in ("model", "data") if not objects else ():
        if not isinstance(nodes[key], Mapping) or "class_path" not in nodes[key]:
            raise QuintetError(f"no {key} is chosen: add experiment=NAME (quintet list experiments) or {key}=NAME")
        composition.check_options(nodes[key], key)
    if not objects:
        composition.keep_typed(nodes, typed)
        for key in ("model", "data"):
            nodes[key] = composition.with_own_defaults(nodes[key])
    for key in ("callbacks", "logger"):
        # `callbacks.progress=null` switches one off.
        named = {label: node for label, node in composition.class_path_form(tree.get(key) or {}).items() if node}
        if nodes["trainer"].get("enable_progress_bar") is False:
            named.pop("progress", None)
        elif key == "callbacks" and "progress" in (tree.get(key) or {}) and "progress" not in named:
            nodes["trainer"]["enable_progress_bar"] = False  # or Lightning would put one of its own in its place
        for label, node in named.items():
            if not isinstance(node, Mapping) or "class_path" not in node:
                known = [other for other in named if other != label]
                raise QuintetError(f"{key}.{label} is not configured here; {nearest(label, known)}")
        composition.check_options(named, key)
        nodes["trainer"][key] = list(named.values())
    return {
        "seed_everything": tree["seed"],
        **(nodes | objects),
        "ckpt_path": tree["ckpt_path"] and str(tree["ckpt_path"]),
        "name": name,
        "run_dir": run_dir,
        "trust": tree["trust"],
    }


def restored_objects(
    checkpoint: dict[str, Any], path: Path, values: Mapping[str, Any], trusted: Sequence[str], typed: Sequence[str] = ()
) -> dict[str, Any]:
    """The task and the data module that a checkpoint describes, with the user's `model.*` and `data.*` in place.

    They are built here and handed on as objects: nothing of a checkpoint is left for a library to resolve.
    """
    record = dict(record_of(checkpoint, path))
    if not record.get("data"):
        raise QuintetError(f"{path} was trained without a quintet data module: choose one with data=GROUP")
    given: dict[str, dict[str, Any]] = {"model": {}, "data": {}}
    for key, value in values.items():
        part, name = key.split(".", 1)
        given[part][name] = value
    whole = {}
    for part, key in (("model", "task"), ("data", "data")):
        target = resolve(record[key]["class_path"], trusted)
        refuse_changed(values, target, record[key], part)
        record[key], whole[part] = composition.replaced_arguments(
            part, target, record[key], given[part], typed_below(typed, part)
        )
    task = restored_task(checkpoint | {RECORD: record}, path, whole["model"], trusted)
    data = restored(lambda: build_node(record["data"], DataModule, whole["data"], path, trusted), path, record)
    data.inherited = frozenset(record["data"].get("init_args", {})) - frozenset(given["data"])
    return {"model": task, "data": data}


def _needs_training(verb: str, model: dict[str, Any] | None) -> bool:
    """Whether a verb waits for a checkpoint; the commands of a task that has nothing to learn do not."""
    task_type = composition.import_class(model["_target_"], "model") if model and verb not in VERBS else None
    if task_type is None:
        return True
    known = commands_of(task_type)
    if verb not in known:
        raise QuintetError(f"no command is called '{verb}'; {nearest(verb, [*VERBS, *known])}")
    return task_type.needs_training


def check_types(config: dict[str, Any]) -> None:
    """Raises what a run would for values of the wrong type, without building anything."""
    parser = argument_parser()
    parser.add_subclass_arguments(Task, "model")
    parser.add_subclass_arguments(DataModule, "data")
    parser.add_class_arguments(Trainer, "trainer", instantiate=False)
    parser.parse_object({key: config[key] for key in ("model", "data", "trainer")})


def find_checkpoint(given: str, name: str) -> Path:
    """Path of a checkpoint given as a path or as `last`. Raises QuintetError where there is none."""
    path = last_checkpoint(name) if str(given) == "last" else Path(given)
    if not path.is_file():
        raise QuintetError(f"ckpt_path: no file {path}")
    return path
