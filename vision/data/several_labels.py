"""Images with several labels: written in one column with a separator (cat;dog), or one column of 0 and 1 a class."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import QuintetError
from .files import shortened
from .tables import first_row, header_of

NOT_CLASSES = ("path", "label", "split", "group")  # columns of a CSV that say something else


@dataclass(frozen=True)
class Labels:
    """How the rows of a CSV say which classes an image has.

    Args:
        columns: of 0 and 1, by the lower-case name under which a row has them; None where one column holds names.
        separator: between the names in that column.
    """

    columns: Mapping[str, str] | None = None
    separator: str = ";"

    def of(self, row: Mapping[str, str]) -> tuple[str, ...]:
        """Names of the classes of a row, each once; raises QuintetError whose message lacks only where the row is."""
        if self.columns is None:
            names = [name.strip() for name in row["label"].split(self.separator)]
            return tuple(dict.fromkeys(name for name in names if name))
        for column, name in self.columns.items():
            if row[column] not in ("0", "1"):
                raise QuintetError(f"has '{shortened(row[column])}' in the column {name}")
        return tuple(name for column, name in self.columns.items() if row[column] == "1")


def labels_of(path: Path, separator: str | None, group: str) -> Labels | None:
    """How a CSV gives its images several labels, None where it gives them one.

    A separator says so; a CSV without a column `label` has one column a class, if the first row of it holds 0 and 1.
    """
    names = header_of(path)
    header = [name.lower() for name in names]
    if "label" in header:
        return None if separator is None else Labels(None, separator)
    columns = {name.lower(): name for name in names if name and name.lower() not in (*NOT_CLASSES, group)}
    first = first_row(path)
    told = [first.get(column) for column in columns]
    # A wrong value further down is a fault of its row; text in the first one means that the columns say something else.
    return Labels(columns) if "path" in header and columns and all(value in ("0", "1") for value in told) else None


def rarest(entries: Iterable) -> Callable[[object], str]:
    """From an entry to the one of its labels that fewest of all entries have: what parts are stratified by.

    A part that gets its share of the rare classes gets about its share of the frequent ones.
    """
    counts = Counter(name for entry in entries for name in entry.names)
    return lambda entry: min(entry.names, key=lambda name: (counts[name], name), default="")
