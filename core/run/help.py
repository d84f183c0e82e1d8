"""What `quintet VERB --help` says of each verb, also of those that tasks bring along, and `--cfg` of all options."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import QuintetError, nearest
from ..learning.task import commands_of
from . import composition
from .own_code import let_in_own_code

OPTIONS = """
  experiment=NAME         what to train, on what (quintet list experiments); or model=NAME and data=NAME
  model.KEY=VALUE         an option of the model; data.KEY, trainer.KEY and callbacks.NAME.KEY likewise
  model/mixer=NAME        the layer that moves information between tokens (quintet list mixers)
  trainer=NAME            cpu, gpu, ddp, fsdp or debug
  callbacks=NAME          early_stopping, ema or redraw_features; logger=NAME: csv, tensorboard, wandb or mlflow
  seed=0                  of weights, order and augmentation
  monitor=val/loss        what decides which checkpoint is best; monitor_mode=min or max
  name=NAME run_dir=FOLDER
                          where the run is written; by default runs/NAME/TIME/
  ckpt_path=FILE          a checkpoint to go on from; `last` is the newest of this experiment
  trust=PACKAGE           a package of yours whose classes a checkpoint may ask for
  --config-dir FOLDER     your own folder of configurations, searched first
  --cfg                   prints every option with its value or default, and runs nothing"""

VERBS = {
    "fit": f"""quintet fit experiment=NAME [key=value] ...
quintet fit -m experiment=NAME key=value,value ...
quintet fit --config runs/.../config.yaml [--trainer.max_epochs 5] ...

Trains a model, tests its best checkpoint and writes a report. With -m every combination of values is one run.
{OPTIONS}""",
    "validate": f"""quintet validate ckpt_path=FILE [data.root=FOLDER] [key=value] ...

Measures a checkpoint on the validation part of its data.
{OPTIONS}""",
    "test": f"""quintet test ckpt_path=FILE [data.root=FOLDER] [key=value] ...

Measures a checkpoint on the test part of its data, and writes pictures and a report.
{OPTIONS}""",
    "list": """quintet list [models|mixers|experiments|data] [PATTERN] [--config-dir FOLDER]

Names of models, mixers, experiments or data modules, those that match a pattern such as 'vit_*'.""",
    "pull": """quintet pull NAME [TAG|FILE|HUB-ID] [accept_license=true]

Downloads a model's weights, or reads them from a file, loads them strictly, and says under which licence they are and
how to train them further. Weights whose terms restrict their use are loaded once these are accepted.""",
    "inspect": """quintet inspect PATH [data=NAME] [data.key=value] ... [output=FOLDER] [--config-dir FOLDER]

Prints what is understood of a folder or file of yours and every fault found in it, with its remedy; draws pictures.
The exit status is 1 where there is a fault.

  data=NAME               how to read it (quintet list data); without it the first that recognises the path
  data.key=value          an option of that: quintet fit data=NAME model=NAME --cfg prints them
  output=FOLDER           where pictures go; by default a new folder below inspect/""",
    "show": """quintet show ckpt_path=FILE

Prints what a checkpoint says of itself: its task, what it was trained on, what was measured, its licence.""",
    "export": """quintet export ckpt_path=FILE format=onnx|torch_export|safetensors [output=FILE] [trust=PACKAGE]

Writes the task of a checkpoint as one file that other programs run, and says how it was verified.""",
    "bench": """quintet bench kernels [operation ...] [dtype=bfloat16] [compile=false] [repeats=N] [output=FOLDER]

Times the kernels' operations against their floor, their reference, the compiler and installed peers.""",
}


def help_of(verb: str, config_dir: str | None = None) -> str:
    """What a verb does and takes. Raises QuintetError where neither the command nor a task has it."""
    if verb in VERBS:
        return VERBS[verb]
    tasks = list(_tasks_with(verb, config_dir))
    if not tasks:
        raise QuintetError(f"no command is called '{verb}'; {nearest(verb, _all_verbs(config_dir))}")
    parts = [f"quintet {verb} ckpt_path=FILE [data.root=FOLDER | data.path=FILE] [option=value] [key=value] ..."]
    for names, method in tasks:
        about = inspect.getdoc(method) or "Writes what the task predicts for the data."
        # The task gets these; nobody types them.
        about = re.sub(r"^ {4}(data|trainer|folder): .*\n", "", about, flags=re.MULTILINE)
        parts.append(f"{' and '.join(names)}: {about}")
        parts += [f"  {line}" for line in _options_of(method)]
    return "\n\n".join([*parts[:1], "\n".join(parts[1:]), f"And of every run:{OPTIONS}"])


def _tasks_with(verb: str, config_dir: str | None) -> Iterator[tuple[list[str], object]]:
    """The methods behind a task's command, each with the names of the tasks that have it."""
    methods: dict[object, list[str]] = {}
    for task in _tasks(config_dir):
        if verb in commands_of(task):
            methods.setdefault(getattr(task, verb), []).append(task.__name__)
    yield from ((names, method) for method, names in methods.items())


def _tasks(config_dir: str | None) -> Iterator[type]:
    """The tasks that a configuration group `model` names."""
    for name in composition.config_names("model", config_dir):
        if not name.startswith("mixer/"):
            model = composition.compose([f"model={name}"], config_dir).model
            let_in_own_code(str(model["_target_"]))
            yield composition.import_class(model["_target_"], f"model={name}")


def _all_verbs(config_dir: str | None) -> set[str]:
    return {*VERBS, *(verb for task in _tasks(config_dir) for verb in commands_of(task))}


def _options_of(method: object) -> Iterator[str]:
    """`horizon=24  (int | None)` of each keyword argument that a command takes."""
    for name, parameter in inspect.signature(method).parameters.items():
        if name not in ("self", "data", "trainer", "folder"):
            kind = getattr(parameter.annotation, "__name__", str(parameter.annotation))
            default = "" if parameter.default is inspect.Parameter.empty else parameter.default
            yield f"{name}={'null' if default is None else default}  ({kind})"


# --cfg


def every_option(node: Any) -> Any:
    """A class_path/init_args tree with every argument of every class: its default, or ??? where it has none."""
    if isinstance(node, list):
        return [every_option(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "class_path" not in node:
        return {key: every_option(value) for key, value in node.items()}
    return {
        "class_path": node["class_path"],
        "init_args": options_of(composition.import_class(node["class_path"], ""), node.get("init_args", {})),
    }


def options_of(target: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument of a constructor by name: as given, else its default, else ???."""
    defaults = (
        {}
        if target is None
        else {parameter.name: _shown(parameter.default) for parameter in composition.parameters_of(target)}
    )
    return defaults | {name: every_option(value) for name, value in given.items()}


def _shown(default: Any) -> Any:
    """A default as a configuration writes it; classes and functions by their dotted path."""
    if default is inspect.Parameter.empty:
        return "???"
    if isinstance(default, list | tuple | set | frozenset):
        return [_shown(item) for item in default]
    if default is None or isinstance(default, bool | int | float | str | dict):
        return default
    name = getattr(default, "__qualname__", None)
    return f"{default.__module__}.{name}" if name else str(default)
