"""Which data module reads a path of the user's, for `quintet inspect`."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from omegaconf import OmegaConf

from ..data.module import DataModule
from ..errors import QuintetError
from . import composition
from .own_code import let_in_own_code
from .parsers import argument_parser


def build_data(path: str, overrides: Sequence[str], config_dir: str | None = None) -> DataModule:
    """The data module for a path of the user's: the one `data=GROUP` names, else the first that recognises the path.

    Raises QuintetError where none does: with the reason of the one whose format it is, if it knows one.
    """
    if not Path(path).is_file() and not Path(path).is_dir():
        if Path(path).exists():
            raise QuintetError(f"{path} is no regular file and no folder; copy what it gives into a file")
        raise QuintetError(f"no file or folder {path}")
    chosen = [item.split("=", 1)[1] for item in overrides if item.startswith("data=")]
    rest, values = composition.split_values([item for item in overrides if not item.startswith("data=")], ("data",))
    if rest:
        raise QuintetError(f"quintet inspect does not understand '{rest[0]}'; it takes data=GROUP and data.key=value")
    options = {key.split(".")[1] for key in values}
    group = chosen[0] if chosen else _group_of(Path(path), options, config_dir)
    config = composition.compose([f"data={group}"], config_dir)
    data_type = composition.import_class(config.data._target_, "data")
    given = {f"data.{data_type.files or 'root'}": path, **values}
    for key in OmegaConf.missing_keys(config) & given.keys():
        OmegaConf.update(config, key, "given")
    node = composition.class_path_form(composition.plain(config)["data"])
    for key, value in given.items():  # afterwards: nothing in them is interpolated
        composition.set_value({"data": node}, key, composition.class_path_form(value))
    composition.check_options(node, "data")
    composition.keep_typed({"data": node}, overrides)
    parser = argument_parser()
    parser.add_subclass_arguments(DataModule, "data")
    return parser.instantiate(parser.parse_object({"data": node})).data


def _group_of(path: Path, options: set[str], config_dir: str | None) -> str:
    """The data group whose module recognises a path, or else one that reads its format and takes the options."""
    groups = composition.config_names("data", config_dir)
    recognised: list[str] = []
    reading: list[str] = []
    reason: QuintetError | None = None
    for group in groups:
        config = composition.compose([f"data={group}"], config_dir)
        let_in_own_code(str(config.data._target_))
        if not _could_hold(str(config.data._target_), path):
            continue
        data_type = composition.import_class(config.data._target_, "data")
        taken = options <= set(inspect.signature(data_type.__init__).parameters)
        try:
            if data_type.recognises(path):
                if taken:
                    return group
                recognised.append(group)
        except QuintetError as error:
            reason = reason or error
        if data_type.reads(path) and taken:
            reading.append(group)
    if recognised or (options and reading):
        return [*recognised, *reading][0]
    if reason is not None:
        raise reason
    named = f"; it could be {' or '.join(reading)}" if reading else ""
    raise QuintetError(f"no data module recognises {path}{named}; name one with data=GROUP: {', '.join(groups)}")


def _could_hold(target: str, path: Path) -> bool:
    """False where the package of a data module says so by its `could_hold`, before the module is imported."""
    if "." not in target:
        return True
    try:
        package = import_module(target.rpartition(".")[0])
    except ImportError:
        return True  # which importing the class says in a line
    return getattr(package, "could_hold", lambda _: True)(path)
