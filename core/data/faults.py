"""What is wrong with the user's data, and the error that stops a run for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import QuintetError


@dataclass(frozen=True)
class Fault:
    """Something wrong with the user's data: where it is, what it is, and what to do about it."""

    where: str
    what: str
    remedy: str


def refusal(faults: Sequence[Fault], inspected: str = "") -> QuintetError:
    """The first fault as an error, with how many there are, and what lists them all: `inspected`, a command."""
    first = faults[0]
    where = f": {inspected}" if inspected else ""
    others = f" ({len(faults)} faults in all{where})" if len(faults) > 1 else ""
    # Cells of a table may hold the ends of lines.
    return QuintetError(" ".join(f"{first.where} {first.what}; {first.remedy}{others}".splitlines()))
