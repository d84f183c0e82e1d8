"""Names for models and mixers: `create_model("vision/nat_tiny")`, `list_models("vit_*")`, `create_mixer("linear", 64)`.

A domain announces itself through the entry-point group `quintet.domains` (pyproject.toml), so that core imports none of
them and another package can add its own.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from ..errors import QuintetError, nearest
from ..mixer import Mixer
from .pretrained import Source, find_weights, load_pretrained
from .trusted import own_modules


@dataclass(frozen=True)
class ModelEntry:
    """A model known by name: how it is built and where its published weights are."""

    name: str
    build: Callable[..., nn.Module]
    pretrained: dict[str, Source] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        return (self.build.__doc__ or "").strip().split("\n")[0]


# What other libraries call what builders here take.
SYNONYMS = {"in_chans": "in_channels", "img_size": "image_size", "drop_path_rate": "drop_path"}

REGISTERS = re.compile(r"(?<!def )\bregister_mixer\(")

_models: dict[str, ModelEntry] = {}
_mixers: dict[str, Callable[..., Mixer]] = {}
_variants: dict[str, Mapping[str, Mapping[str, Any]]] = {}


def register_model(name: str, pretrained: dict[str, Source] | None = None) -> Callable:
    """Decorator: makes a builder function or class known as `domain/name`; the first source is the default."""

    def decorate(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if name in _models:
            raise QuintetError(f"two models want the name '{name}': {_models[name].build} and {build}")
        _models[name] = ModelEntry(name, build, pretrained or {})
        return build

    return decorate


def register_mixer(name: str, variants: Mapping[str, Mapping[str, Any]] | None = None) -> Callable:
    """Decorator: makes a mixer known by `name`; the property tests then run it.

    A class, or a partial of one that gives it a part, e.g. `partial(LinearAttention, feature_map=SomeMap)`: then
    `variants` are the further configurations to test, in place of those of the class.
    """

    def decorate(mixer: Callable[..., Mixer]) -> Callable[..., Mixer]:
        if name in _mixers:
            raise QuintetError(f"two mixers want the name '{name}': {_mixers[name]} and {mixer}")
        _mixers[name] = mixer
        _variants[name] = mixer.variants if inspect.isclass(mixer) else variants or {}
        return mixer

    return decorate


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell wildcard, e.g. `vision/nat_*`; without a slash in every domain."""
    _load_domains()
    return sorted(name for name in _models if fnmatch(name, pattern) or fnmatch(name.split("/")[-1], pattern))


def entries_so_far(pattern: str) -> list[ModelEntry]:
    """The models registered until now whose full names match a shell wildcard; imports no domain."""
    return [entry for name, entry in _models.items() if fnmatch(name, pattern)]


def model_entry(name: str) -> ModelEntry:
    """The entry of a model; the domain may be left out where only one has the name. Raises QuintetError otherwise."""
    _load_domains()
    if name in _models:
        return _models[name]
    found = [known for known in _models if known.split("/")[-1] == name]
    if len(found) == 1:
        return _models[found[0]]
    if found:
        raise QuintetError(f"'{name}' names several models: {', '.join(sorted(found))}; give one in full")
    raise QuintetError(f"no model is called '{name}'; {nearest(name, _models)}")


def create_model(
    name: str, pretrained: bool | str = False, accept_license: bool = False, **arguments: Any
) -> nn.Module:
    """Builds a model by name, with `pretrained=True` its default published weights, or those of a tag, file or hub id.

    Raises QuintetError for an unknown name, for weights that do not fit and for a restrictive licence of theirs that is
    not accepted.
    """
    entry = model_entry(name)
    if pretrained:
        arguments = stored_arguments(entry.build, pretrained, entry.pretrained, name, accept_license) | arguments
    model = build_with(entry.build, name, arguments)
    if pretrained:
        load_pretrained(model, pretrained, entry.pretrained, entry.name, accept_license)
    return model


def build_with(
    build: Callable[..., nn.Module], name: str, arguments: Mapping[str, Any], remedies: Mapping[str, str] | None = None
) -> nn.Module:
    """build(**arguments), where those that it does not take go by the names they have here (`SYNONYMS`).

    A mixer may be given by its name: `mixer="linear"`, or one a stage where the model takes a list.

    Raises QuintetError for an argument that `name`, as messages call it, does not take, with the remedy for it: of
    `remedies`, of those that the model's class states, or the nearest argument.
    """
    renamed = {}
    arguments = {key: named_mixers(value) if key == "mixer" else value for key, value in arguments.items()}
    while True:
        try:
            return build(**{renamed.get(argument, argument): value for argument, value in arguments.items()})
        except TypeError as error:
            # Only the complaint about an argument passed from here is the user's; others are mistakes in the code.
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            given = {renamed.get(argument, argument): argument for argument in arguments}
            if unknown is None or unknown[1] not in given:
                raise
        argument = given[unknown[1]]
        here = SYNONYMS.get(argument)
        if here is None or here in given:
            raise QuintetError(f"{name} takes no {argument}; {_remedy(build, unknown[1], remedies or {})}")
        renamed[argument] = here


def _remedy(build: Callable[..., nn.Module], argument: str, remedies: Mapping[str, str]) -> str:
    """What to do about an argument that a builder does not take."""
    target = factory_target(build)
    parameters = inspect.signature(target).parameters.values()
    result = target if inspect.isclass(target) else inspect.signature(target).return_annotation
    remedies = getattr(result, "remedies", {}) | remedies
    if argument in remedies:
        return remedies[argument]
    if inspect.isclass(result) and any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        parameters = inspect.signature(result).parameters.values()
    return nearest(argument, [parameter.name for parameter in parameters])


def factory_target(factory: Any) -> Any:
    """The class or function behind a partial; jsonargparse hands a class to a partial of its own instantiator."""
    passed = next((item for item in getattr(factory, "args", ()) if inspect.isclass(item)), None)
    return passed or getattr(factory, "func", factory)


def stored_arguments(
    build: Callable[..., nn.Module],
    pretrained: bool | str,
    sources: dict[str, Source],
    name: str = "",
    accept_license: bool = False,
) -> dict[str, Any]:
    """Constructor arguments that a file of weights states, for models whose `arguments_from(path)` can read them."""
    read = getattr(build, "arguments_from", None)
    return read(find_weights(pretrained, sources, name, accept_license)) if read else {}


def list_mixers(pattern: str = "*") -> list[str]:
    """Names of the registered mixers that match a shell wildcard."""
    _load_mixers()
    return sorted(name for name in _mixers if fnmatch(name, pattern))


def mixers_so_far() -> set[str]:
    """Names of the mixers registered until now; imports none."""
    return set(_mixers)


def mixer_factory(name: str) -> Callable[..., Mixer]:
    """The class of a registered mixer, or the partial of one with its part. Raises QuintetError for an unknown name."""
    _load_mixers()
    if name not in _mixers:
        raise QuintetError(f"no mixer is called '{name}'; {nearest(name, _mixers)}")
    return _mixers[name]


def mixer_class(name: str) -> type[Mixer]:
    """The class of a registered mixer, with whatever part. Raises QuintetError for an unknown name."""
    return factory_target(mixer_factory(name))


def mixer_variants(name: str) -> Mapping[str, Mapping[str, Any]]:
    """Constructor arguments of further configurations of a mixer that the property tests run."""
    mixer_factory(name)
    return _variants[name]


def mixer_part(name: str) -> type:
    """The class that makes a mixer what its name says: of the part that it is given, or its own."""
    factory = mixer_factory(name)
    parts = (factory_target(value) for value in getattr(factory, "keywords", {}).values())
    return next((part for part in parts if inspect.isclass(part)), factory_target(factory))


def mixer_summary(name: str) -> str:
    """What a mixer is, in one line: its title, or else the first line of its docstring."""
    part = mixer_part(name)
    return getattr(part, "title", "") or (part.__doc__ or "").strip().split("\n")[0]


def named_mixers(mixer: Any) -> Any:
    """`mixer` with registered ones in place of their names, however deep in lists; all else stays as it is."""
    if isinstance(mixer, str):
        return mixer_factory(mixer)
    return [named_mixers(item) for item in mixer] if isinstance(mixer, list | tuple) else mixer


def create_mixer(name: str, dim: int, **arguments: Any) -> Mixer:
    """Builds a registered mixer for tokens of width `dim`."""
    return mixer_factory(name)(dim, **arguments)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, learned or frozen."""
    return sum(parameter.numel() for parameter in module.parameters())


def _load_domains() -> None:
    for domain in entry_points(group="quintet.domains"):
        domain.load()


@functools.cache
def _load_mixers() -> None:
    # Which modules register one is read in their text, so that no others are imported.
    for name, place in own_modules().items():
        if name.startswith(f"{__name__.split('.')[0]}.core.") and REGISTERS.search(place.read_text("utf-8")):
            import_module(name)
