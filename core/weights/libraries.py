"""Networks of other libraries, by a prefix: `timm:resnet18` is timm's resnet18, in the domain that brings timm along.

A domain registers what it has of a library; the same prefix may mean one thing in one domain and another in the next
(`hf:` images here, series there). Adding a library takes one class with two methods, decorated with
`register_library`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import QuintetError
from .pretrained import LoadReport


class Library:
    """How networks of another library are built and get its weights."""

    def build(self, name: str, own: Mapping[str, Any], arguments: Mapping[str, Any]) -> nn.Module:
        """The network that the library calls `name`, with random weights; it answers as `weights.network` says.

        Args:
            name: without the prefix.
            own: arguments that follow from the data, by the names of the domain: num_classes, in_channels, ...
            arguments: the user's.

        Raises QuintetError for a name that the library does not have and for arguments that it does not take. Nothing
        may be read or fetched here: all of this can come from a checkpoint.
        """
        raise NotImplementedError

    def load(
        self, network: nn.Module, name: str, which: bool | str, own: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> LoadReport:
        """Loads the default weights (`which` True), a tag or a file into a network that `build` made.

        The report names the licence of the weights. Raises QuintetError where they cannot be had or do not fit.
        """
        raise NotImplementedError

    def has(self, name: str) -> bool:
        """Whether the library has a network of this name, for those who forget the prefix."""
        return False

    def takes(self, name: str, argument: str) -> bool:
        """Whether it takes an argument that follows from the data but that not all networks need, such as channels."""
        return False


_libraries: dict[tuple[str, str], Library] = {}


def register_library(domain: str, prefix: str) -> Callable[[type[Library]], type[Library]]:
    """Class decorator: in a domain, `prefix:name` is that library's network `name`."""

    def decorate(library: type[Library]) -> type[Library]:
        if (domain, prefix) in _libraries:
            raise QuintetError(f"two libraries of {domain} want the prefix '{prefix}:'")
        _libraries[domain, prefix] = library()
        return library

    return decorate


def library_of(backbone: Any, domain: str) -> tuple[Library, str] | None:
    """The library that a name with a prefix asks for, and the name in it; None for anything else.

    Raises QuintetError for a prefix that the domain does not have.
    """
    if not isinstance(backbone, str) or ":" not in backbone:
        return None
    prefix, name = backbone.split(":", 1)
    if (domain, prefix) not in _libraries:
        own = sorted(f"{known}:" for where, known in _libraries if where == domain)
        known = f"it has {', '.join(own)}" if own else "it has none"
        raise QuintetError(f"'{backbone}' asks for a library '{prefix}:', which {domain} does not have; {known}")
    return _libraries[domain, prefix], name


def prefixed(name: str, domain: str) -> str | None:
    """The name with the prefix of the domain's library that has it, None where none does."""
    found = (prefix for (where, prefix), library in _libraries.items() if where == domain and library.has(name))
    prefix = next(found, None)
    return prefix and f"{prefix}:{name}"
