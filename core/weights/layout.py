"""How another project names the tensors of a network, and under which terms it published them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import QuintetError

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Terms:
    """A licence that restricts what one may do with weights, so that it has to be accepted before they are used."""

    licence: str
    restricts: str

    def check(self, origin: str | Path, accepted: bool) -> None:
        """Raises QuintetError naming the licence and what it restricts, unless it is accepted."""
        if not accepted:
            raise QuintetError(
                f"{origin} is under the {self.licence}, which restricts its use ({self.restricts}); if you accept it, "
                "say so with accept_license=true (in a run: model.accept_license=true)"
            )


@dataclass(frozen=True)
class Layout:
    """Another project's names for the same tensors.

    Args:
        name: whose names these are.
        marker: regular expression that some key of such a file matches and no key of ours does.
        renames: (pattern, replacement) pairs, applied in order to every key; an empty result drops the tensor.
        convert: further changes to the renamed tensors that names alone cannot express.
        terms: under which all weights in this layout are published, where they restrict their use.
    """

    name: str
    marker: str
    renames: tuple[tuple[str, str], ...]
    convert: Callable[[StateDict], StateDict] | None = None
    terms: Terms | None = None

    def matches(self, keys: Mapping[str, Tensor]) -> bool:
        return any(re.search(self.marker, key) for key in keys)

    def apply(self, state: StateDict) -> StateDict:
        renamed = {}
        for key, value in state.items():
            for pattern, replacement in self.renames:
                key = re.sub(pattern, replacement, key)
            if key:
                renamed[key] = value
        return self.convert(renamed) if self.convert else renamed


def of_one_kind(one: Tensor, other: Tensor) -> bool:
    """Whether both hold real numbers, both complex ones, or both whole ones: of other kinds torch copies what is left.

    Truth values in place of weights would load without a word, and so would the real parts of complex numbers.
    """
    return one.is_complex() == other.is_complex() and one.is_floating_point() == other.is_floating_point()
