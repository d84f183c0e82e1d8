"""Rows of the user's input, read or not: what a table of predictions says of each."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """A row of the input.

    Args:
        number: its place, from 0.
        text: what a molecule was read from, such as its SMILES.
        named: the user's own columns that say which row it is.
        reason: why it could not be read; None where it was.
    """

    number: int
    text: str = ""
    named: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
