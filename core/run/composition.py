"""From what was typed to what is built: Hydra composes, `_target_` becomes class_path/init_args, options are checked.

Hydra's grammar is kept whole, with one kindness: `model.label_smoothing=0.1` needs no `+` where the file does not
list the argument, because every name is checked against the constructor it goes to.
"""

import copy
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from jsonargparse import Namespace
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ..catalogue import listed_mixers
from ..errors import QuintetError, import_class, nearest
from ..weights.constructors import class_path_form, parameters_of, target_form
from .overrides import forced, in_grammar, keep_texts, readable, typed_below, value_of
from .run_options import check_seed, packages
from .yaml_files import check_file, place_of, read_text

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "configs"
RUN = "{folder of this run}"  # stands for it until it is known; nobody calls a file so


def compose(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """Composes config.yaml with overrides in Hydra's grammar. Raises QuintetError in one or two lines.

    Args:
        overrides: `experiment=vision/digits`, `model.lr=1e-3`, `trainer=gpu`, ...
        config_dir: the user's own folder of groups, searched before the packaged ones.
    """
    overrides = [*_of_chosen_trainer(overrides, config_dir), *(forced(readable(override)) for override in overrides)]
    offer_words()
    outer = GlobalHydra.instance().hydra  # set while a sweep runs
    GlobalHydra.instance().clear()
    try:
        with search_first(config_dir), initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
            return hydra_compose("config", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise QuintetError(_readable(error, config_dir)) from error
    except RecursionError as error:
        raise QuintetError("a configuration includes itself: look at the `defaults` of the chosen ones") from error
    except yaml.YAMLError as error:
        raise QuintetError(f"a file of --config-dir{place_of(error)}") from error
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:  # for files of another shape
        if config_dir is None:
            raise
        raise QuintetError(f"--config-dir: a file chosen there is no configuration ({error}); give mappings") from error
    finally:
        GlobalHydra.instance().hydra = outer


def _of_chosen_trainer(overrides: Sequence[str], config_dir: str | None) -> Iterator[str]:
    """What a trainer that is typed (`trainer=debug`) sets beyond its defaults: it wins over what an experiment sets."""
    for choice in (override.removeprefix("trainer=") for override in overrides if override.startswith("trainer=")):
        folders = filter(None, (config_dir and Path(config_dir).expanduser(), CONFIG_FOLDER))
        paths = (folder / "trainer" / f"{choice}.yaml" for folder in folders)
        path = next((path for path in paths if path.is_file()), None)
        content = {}
        if path is not None:
            check_file(path)
            content = yaml.safe_load(read_text(path))
        if isinstance(content, dict) and "defaults" in content:
            for key, value in content.items():
                if key != "defaults" and not isinstance(value, dict):
                    yield f"++trainer.{key}={in_grammar(value)}"


class UserFiles(FileConfigSource):
    """The user's own folder of configurations, of which each file is read within bounds."""

    @staticmethod
    def scheme() -> str:
        return "user"

    def load_config(self, config_path: str) -> ConfigResult:
        check_file(Path(self.path) / self._normalize_file_name(config_path))
        return super().load_config(config_path)


class UserFolder(SearchPathPlugin):
    """Puts the user's own folder of configurations before the packaged one."""

    folder: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder:
            search_path.prepend("user", f"{UserFiles.scheme()}://{self.folder}")


@contextmanager
def search_first(config_dir: str | None) -> Iterator[None]:
    """While it lasts, Hydra looks in the user's folder first. Raises QuintetError where there is no such folder."""
    folder = Path(config_dir).expanduser().resolve() if config_dir else None
    if folder and not folder.is_dir():
        raise QuintetError(f"--config-dir: no folder {config_dir}")
    SourcesRegistry.instance().register(UserFiles)
    Plugins.instance().register(UserFolder)
    before, UserFolder.folder = UserFolder.folder, folder
    try:
        yield
    finally:
        UserFolder.folder = before


def settled(config: DictConfig, complete: bool = True, name: str = "run") -> tuple[dict[str, Any], str | None]:
    """The composed configuration as plain data with `RUN` for the run folder, and the folder that was asked for.

    Without `complete`, values that are still missing are "???". A run without a name is called `name`, by loggers too.

    Raises QuintetError for a value still missing, for one that no run is without, and for a seed that is none.
    """
    with _in_words():
        for key in ("name", "run_dir", "ckpt_path", "trust", "seed"):
            if key not in config:
                raise QuintetError(f"{key} cannot be removed; leave it out, or give {key}=VALUE")
        run_dir, config.run_dir = config.run_dir, RUN
        config.name = name if config.name is None else config.name
    tree = plain(config, complete)
    tree["trust"] = packages(tree["trust"])
    check_seed(tree["seed"])
    for key in ("callbacks", "logger"):
        if not isinstance(tree.get(key) or {}, Mapping):
            raise QuintetError(f"{key} is {tree[key]!r}, not a group of them; add {key}=default or {key}.NAME...")
    if not isinstance(tree.get("trainer"), Mapping) or "_target_" not in tree["trainer"]:
        raise QuintetError("no trainer is chosen: add trainer=default or trainer=cpu")
    return tree, None if run_dir is None else str(run_dir)


def plain(config: DictConfig, complete: bool = True) -> dict[str, Any]:
    """The composed configuration as plain data, interpolated. Raises QuintetError for a value still missing."""
    with _in_words():
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=complete)


@contextmanager
def _in_words(config_dir: str | None = None) -> Iterator[None]:
    """While it lasts, an error of OmegaConf is said in one line."""
    try:
        yield
    except MissingMandatoryValue as error:
        key = error.full_key or str(error).split("\n")[0].rsplit(" ", 1)[-1]
        raise QuintetError(f"{key} is needed: add {key}=VALUE") from error
    except OmegaConfBaseException as error:
        place = f"{error.full_key}: " if error.full_key else ""
        raise QuintetError(f"{place}{_readable(error, config_dir)}") from error


def split_values(overrides: Sequence[str], nodes: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes the value overrides of `nodes` ("model.lr=...", "data.root=...") out of a list: the rest, and them."""
    rest, values = [], {}
    for override in overrides:
        key = override.lstrip("+").split("=", 1)[0]
        if "=" in override and key.split(".")[0] in nodes and "." in key:
            values[key] = value_of(override)
        else:
            rest.append(override)
    return rest, values


def split_options(overrides: Sequence[str], config_dir: str | None = None) -> tuple[list[str], dict[str, Any]]:
    """Takes what config.yaml does not know ("horizon=48") out of a list: the rest, and the options of a command."""
    # Groups of domains lie in folders: experiment=vision/features.
    groups = group_names(config_dir)
    known = {*groups, *(name.split("/")[0] for name in groups), *OmegaConf.load(CONFIG_FOLDER / "config.yaml")}
    rest, options = [], {}
    for override in overrides:
        key = override.split("=", 1)[0]
        if "=" in override and key.isidentifier() and key not in known:
            options[key] = value_of(override)
        else:
            rest.append(override)
    return rest, options


def typed_options(
    owner: type, method: str, options: Mapping[str, Any], verb: str, also: Iterable[str] = (), skip: Iterable[str] = ()
) -> dict[str, Any]:
    """Options checked against the names and types of a method's keyword arguments; `also` are known to the verb."""
    accepted = set(inspect.signature(getattr(owner, method)).parameters) - {"self", *skip}
    for name in options:
        if name not in accepted:
            raise QuintetError(f"{verb} has no option '{name}'; {nearest(name, {*accepted, *also})}")
    if not accepted:
        return {}
    from .parsers import argument_parser  # imports torch, which listing names does without

    parser = argument_parser()
    parser.add_method_arguments(owner, method, skip=set(skip))
    return parser.parse_object(dict(options)).as_dict()


def keep_typed(nodes: dict[str, Any], overrides: Sequence[str]) -> None:
    """Takes as text, in place, what was typed for arguments that take text and not what Hydra's grammar read."""
    for key, node in nodes.items():
        typed = typed_below(overrides, key) if key in ("model", "data") else {}
        target = import_class(node["class_path"], key) if typed else None
        if target is not None:
            annotations = {parameter.name: parameter.annotation for parameter in parameters_of(target)}
            keep_texts(annotations, node["init_args"], typed)


def replaced_arguments(
    part: str, target: type, node: Mapping[str, Any], given: Mapping[str, Any], typed: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint's node with the user's plain values set inside of its arguments, and whole arguments of the user's.

    Args:
        part: "model" or "data", for messages.
        target: the class of the node.
        node: class_path and init_args; stays as it is.
        given: values by option, `root` or `backbone.dim`.
        typed: the text of some of them, for arguments that take text and not what Hydra's grammar read.
    """
    from ..weights.records import arguments_of  # imports torch, which listing names does without
    from .parsers import argument_parser

    parser, whole, tree = argument_parser(), {}, {part: copy.deepcopy(dict(node))}
    types, _ = arguments_of(target)
    for option, value in given.items():
        name = option.split(".")[0]
        check_arguments(target, {name: class_path_form(value)}, part)
        if name == option:
            parser.add_argument(f"--{part}.{name}", type=types.get(name, Any), sub_configs=False)
            whole[name] = class_path_form(value)
        else:
            set_value(tree, f"{part}.{option}", value)
    if not whole:
        return tree[part], {}
    keep_texts(types, whole, typed)
    built = parser.instantiate_classes(parser.parse_object({part: whole}))
    return tree[part], {name: built[f"{part}.{name}"] for name in whole}


def set_value(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets `model.backbone.dim` in a class_path/init_args tree."""
    node = config
    *parents, name = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise QuintetError(f"{key}: {parent} is {node!r}, which has no options")
        if "class_path" in node:
            node = node.setdefault("init_args", {})
    node[name] = value


def substitute_run(node: Any, run: Path) -> Any:
    """Puts the run folder where a parsed configuration says `RUN`."""
    if isinstance(node, str):
        return node.replace(RUN, str(run))
    if isinstance(node, Namespace):
        return Namespace(**{key: substitute_run(value, run) for key, value in vars(node).items()})
    if isinstance(node, dict):
        return {key: substitute_run(value, run) for key, value in node.items()}
    if isinstance(node, list):
        return [substitute_run(value, run) for value in node]
    return node


def check_options(node: Any, path: str) -> None:
    """Raises QuintetError for a class that does not exist or an argument its constructor does not take."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            check_options(item, f"{path}[{index}]")
    elif isinstance(node, Mapping) and "class_path" in node:
        check_arguments(import_class(node["class_path"], path), node.get("init_args", {}), path)
    elif isinstance(node, Mapping):
        for key, value in node.items():
            check_options(value, f"{path}.{key}")


def check_arguments(target: Any, arguments: Mapping[str, Any], path: str) -> None:
    """Raises QuintetError for an argument that the constructor of `target`, or of a class below, does not take."""
    parameters = {} if target is None else {parameter.name: parameter for parameter in parameters_of(target)}
    accepted = set(parameters)
    for name, value in arguments.items():
        if accepted and name not in accepted:
            raise QuintetError(f"{path}.{name}: {target.__name__} has no option '{name}'; {nearest(name, accepted)}")
        if value is None and _needs_value(parameters.get(name)):
            remedy = "add monitor=val/loss" if name == "monitor" else "give it a value"
            raise QuintetError(f"{path}.{name} is null, which {target.__name__} does not take; {remedy}")
        check_options(value, f"{path}.{name}")


def config_names(group: str, config_dir: str | None = None) -> list[str]:
    """Choices of a configuration group, e.g. `experiment`: packaged ones and those of the user's folder."""
    names = set()
    for folder in filter(None, (CONFIG_FOLDER, config_dir and Path(config_dir))):
        root = Path(folder) / group
        names |= {str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml")}
    return sorted(names | {row.name for row in listed_mixers()} if group == "model/mixer" else names)


def offer_words() -> None:
    """Makes every registered mixer a choice of `model/mixer` by its word; files of the same name are found first."""
    for row in listed_mixers():
        node = target_form(json.loads(row.node))
        ConfigStore.instance().store(row.name, node, group="model/mixer", package="model.mixer", provider="quintet")


def config_summary(group: str, name: str, config_dir: str | None = None) -> str:
    """The first comment of a configuration file that is not Hydra's, which says what it is."""
    for folder in filter(None, (config_dir and Path(config_dir), CONFIG_FOLDER)):
        path = Path(folder) / group / f"{name}.yaml"
        if path.is_file():
            comments = [
                line[1:].strip()
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
                if line.startswith("#")
            ]
            return next((comment for comment in comments if not comment.startswith("@")), "")
    return ""


def group_names(config_dir: str | None = None) -> list[str]:
    """Every group that an override can choose from, e.g. `trainer`, `model/mixer`."""
    folders = filter(None, (CONFIG_FOLDER, config_dir and Path(config_dir)))
    return sorted(
        {str(path.parent.relative_to(folder)) for folder in folders for path in Path(folder).rglob("*.yaml")} - {"."}
    )


def with_own_defaults(node: Any, replaced: Any = None) -> Any:
    """Where a class stands in for another that an argument has by default, writes its own defaults into its init_args.

    jsonargparse keeps what the replaced one has under the same names: SwiGLU in place of Mlp would get Mlp's ratio.
    """
    if isinstance(node, list):
        return [with_own_defaults(item, replaced) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "class_path" not in node:
        return {key: with_own_defaults(value) for key, value in node.items()}
    target = import_class(node["class_path"], "")
    defaults = {parameter.name: parameter.default for parameter in parameters_of(target)}
    arguments = {key: with_own_defaults(value, defaults.get(key)) for key, value in node.get("init_args", {}).items()}
    if inspect.isclass(replaced):
        shared = {parameter.name for parameter in parameters_of(replaced)} & defaults.keys()
        own = {name: defaults[name] for name in shared if defaults[name] is not inspect.Parameter.empty}
        arguments = {name: value for name, value in own.items() if not callable(value)} | arguments
    return {"class_path": node["class_path"], "init_args": arguments}


def _needs_value(parameter: inspect.Parameter | None) -> bool:
    """Whether null cannot be what a parameter takes, which jsonargparse does not ask."""
    if parameter is None or parameter.default is None:
        return False
    return parameter.annotation in (bool, int, float, str)


def _readable(error: Exception, config_dir: str | None) -> str:
    """The one line of a Hydra or OmegaConf error that matters, with the nearest valid choices."""
    text = str(error)
    if not text.strip() and error.__cause__ is not None:
        return _readable(error.__cause__, config_dir)
    if found := re.search(r"In '.*': Could not find '([^']+)'|Could not find '([^']+)'", text):
        missing = (found[1] or found[2]).removesuffix(".yaml")
        group = max((name for name in group_names(config_dir) if missing.startswith(f"{name}/")), key=len, default="")
        group = group.split("/")[0] if group.split("/")[0] in ("experiment", "data") else group
        if group:
            choice = missing.removeprefix(f"{group}/")
            return f"no {group} is called '{choice}'; {nearest(choice, config_names(group, config_dir))}"
        top = missing.split("/")[0]
        choice = missing.split("/", 1)[-1]
        return f"no {top} is called '{choice}'; {nearest(choice, config_names(top, config_dir))}"
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1].split("@")[0]
        if "No match in the defaults list" in text and "/" in key and key in group_names(config_dir):
            return f"{key} cannot be chosen here: nothing in this experiment uses it"
        if key in group_names(config_dir):
            return f"{key} cannot be chosen here: {text.splitlines()[0]}"
        known = [*group_names(config_dir), "name", "run_dir", "ckpt_path", "trust", "seed", "monitor", "monitor_mode"]
        return f"no option is called '{key}'; {nearest(key.split('.')[0], known)}"
    lines = [
        line.strip()
        for line in text.splitlines()
        if line.strip() and not line.strip().startswith(("full_key", "object_type", "See "))
    ]
    return " ".join(lines[:2]) or type(error).__name__
