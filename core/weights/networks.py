"""From what a user writes for `backbone` to a network: a name, a name of another library, a class or a function.

Whatever it came from, it is built with arguments that follow from the data and with the user's own, and gets published
weights, in one way.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import QuintetError
from .libraries import library_of, prefixed
from .pretrained import LoadReport, load_pretrained
from .registry import ModelEntry, build_with, factory_target, model_entry, stored_arguments

Backbone = str | Callable[..., nn.Module]


@dataclass(frozen=True)
class Kind:
    """What networks of one kind have in common, for whoever looks one up or explains a mistake.

    Args:
        domain: whose libraries a prefix names.
        noun: what such a network is called, such as "a forecaster".
        example: a registered one that takes a mixer.
    """

    domain: str
    noun: str
    example: str


def build_network(backbone: Backbone, kind: Kind, own: Mapping[str, Any], arguments: Mapping[str, Any]) -> nn.Module:
    """The network with random weights.

    Args:
        backbone: a registered name, `library:name`, or what builds a network.
        kind: of network that is wanted.
        own: arguments that follow from the data.
        arguments: the user's.

    Raises QuintetError for an unknown name and for an argument the backbone does not take.
    """
    if found := library_of(backbone, kind.domain):
        library, name = found
        if "mixer" in arguments:
            raise QuintetError(f"{backbone} takes no mixer; give a registered backbone, such as {kind.example}")
        return library.build(name, own, arguments)
    for argument in own.keys() & arguments.keys():
        if arguments[argument] != own[argument]:
            given = f"model.backbone_arguments.{argument} is {arguments[argument]}"
            raise QuintetError(f"{given}, but the data say {own[argument]}; leave it out")
    called_with = f"{kind.noun} is called with {' and '.join(', '.join(own).rsplit(', ', 1))}"
    remedies = dict.fromkeys(own, called_with) | {"mixer": f"give a backbone that does, such as {kind.example}"}
    return build_with(builder_of(backbone, kind), name_of(backbone), {**arguments, **own}, remedies)


def load_network(
    network: nn.Module,
    backbone: Backbone,
    kind: Kind,
    which: bool | str,
    own: Mapping[str, Any],
    arguments: Mapping[str, Any],
    accept_license: bool = False,
) -> LoadReport:
    """Loads the default published weights (`which` True), a tag, a file or a hub id into what `build_network` made.

    Raises QuintetError where they cannot be had, do not fit, or are under terms that are not accepted.
    """
    if found := library_of(backbone, kind.domain):
        library, name = found
        return library.load(network, name, which, own, arguments)
    sources = entry_of(backbone, kind).pretrained if isinstance(backbone, str) else {}
    return load_pretrained(network, which, sources, name_of(backbone), accept_license)


def arguments_in(backbone: Backbone, kind: Kind, which: bool | str, accept_license: bool = False) -> dict[str, Any]:
    """Constructor arguments that a file of weights states; none where the network cannot read them from it."""
    if library_of(backbone, kind.domain):
        return {}
    sources = entry_of(backbone, kind).pretrained if isinstance(backbone, str) else {}
    build = factory_target(builder_of(backbone, kind))
    return stored_arguments(build, which, sources, name_of(backbone), accept_license)


def accepts(backbone: Backbone, kind: Kind, argument: str) -> bool:
    """Whether a backbone's constructor has an argument of this name."""
    if found := library_of(backbone, kind.domain):
        library, name = found
        return library.takes(name, argument)
    build = factory_target(builder_of(backbone, kind))
    signature = inspect.signature(build)
    if inspect.isclass(signature.return_annotation):  # a builder passes its arguments on to what it returns
        signature = inspect.signature(signature.return_annotation)
    return argument in signature.parameters


def builder_of(backbone: Backbone, kind: Kind) -> Callable[..., nn.Module]:
    """What builds a network, of a registered name or as it was given."""
    return entry_of(backbone, kind).build if isinstance(backbone, str) else backbone


def entry_of(name: str, kind: Kind) -> ModelEntry:
    """The entry of a registered model. Raises QuintetError for another name, with the library's where one has it."""
    try:
        return model_entry(name)
    except QuintetError:
        if (other := prefixed(name, kind.domain)) is None:
            raise
        raise QuintetError(f"no model of quintet is called '{name}'; {other.split(':')[0]}'s is {other}") from None


def name_of(backbone: Backbone) -> str:
    """What to call a backbone in a message."""
    if isinstance(backbone, str):
        return backbone
    target = factory_target(backbone)
    return getattr(target, "__name__", type(target).__name__)


def refuse_built(built: Any, option: str = "backbone") -> None:
    """Raises QuintetError for a built module where what builds one is meant: it waits for what the data say."""
    if isinstance(built, nn.Module):
        raise QuintetError(
            f"model.{option} is a built {type(built).__name__}, but its sizes come from the data; give the class or a "
            "registered name, or a partial of the class"
        )
