"""SDF: records one after the other, each a molecule and its properties; what cannot be read is kept with the reason."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rdkit import Chem, rdBase

from ....core.errors import QuintetError
from .smiles import complaint

SMILES, TITLE = "SMILES", "name"  # columns of what RDKit writes for a record, and of its first line
MOST_LINES = 100_000  # of a record: the largest molecules have a few thousand atoms
MOST_PROPERTIES = 2000
CUT = "is cut off: it has no 'M  END'"
UNFIT = "its fourth line counts other atoms and bonds than follow, or one of them cannot be read"


class Record(NamedTuple):
    """A record as text: the line it begins in, its connection table, its properties, whether others follow in it."""

    line: int
    block: str
    properties: dict[str, str]
    several: bool = False


@dataclass
class Records:
    """The records of a file as a table; see `MoleculeTable` for its fields."""

    frame: pd.DataFrame
    numbers: np.ndarray
    lines: np.ndarray
    smiles: str
    id: str | None
    faults: dict[int, str] = field(default_factory=dict)


def read_sdf(path: Path, lines: Iterator[str]) -> Records:
    """All records, molecules as canonical SMILES with their stereochemistry, properties as columns.

    Raises QuintetError for a file that is no SDF or has records beyond all measure.
    """
    columns: dict[str, dict[int, str]] = {}
    smiles, titles, begins, faults = [], [], [], {}
    for number, record in enumerate(records_of(path, lines)):
        text, fault = _smiles_of(record.block, record.several)
        if fault:
            faults[number] = fault
        smiles.append(text)
        titles.append(record.block.split("\n", 1)[0].strip())
        begins.append(record.line)
        for name, value in record.properties.items():
            columns.setdefault(name, {})[number] = value
        if len(columns) > MOST_PROPERTIES:
            raise QuintetError(f"{path} has more than {MOST_PROPERTIES:,} properties; is it an SDF?")
    if not begins:
        raise QuintetError(f"{path} holds no record")
    if [*faults.values()] == [CUT] * len(begins):
        raise QuintetError(f"{path} holds no record that ends in 'M  END'; is it an SDF?")
    named, table = any(titles), {}
    for name, values in ((TITLE, titles if named else None), (SMILES, smiles)):
        if values is not None:
            table[_free(name, columns)] = pd.array(values, "str")
    for name, values in columns.items():
        table[name] = pd.array([values.get(number, "") for number in range(len(begins))], "str")
    lines_of, numbers = np.array(begins, np.int64), np.arange(1, len(begins) + 1)
    titled = _free(TITLE, columns) if named else None
    return Records(pd.DataFrame(table), numbers, lines_of, _free(SMILES, columns), titled, faults)


def _free(name: str, taken: dict) -> str:
    """A name that no property has."""
    while name in taken:
        name = f"{name} (record)"
    return name


def records_of(path: Path, lines: Iterator[str]) -> Iterator[Record]:
    """Records as text, one in memory at a time."""
    begin, kept = 1, []
    for number, line in enumerate(lines, 1):
        if line.startswith("$$$$"):
            yield _record(begin, kept)
            begin, kept = number + 1, []
            continue
        kept.append(line.rstrip("\r\n"))
        if len(kept) > MOST_LINES:
            raise QuintetError(f"{path} line {begin}: a record has more than {MOST_LINES:,} lines; is it an SDF?")
    if any(line.strip() for line in kept):
        yield _record(begin, kept)


def _record(line: int, lines: list[str]) -> Record:
    end = next((at for at, text in enumerate(lines) if text.startswith("M  END")), None)
    body = len(lines) if end is None else end + 1
    properties, name = {}, None
    for text in lines[body:]:
        # A value may begin like a header does: '>10' is a bound.
        if text.startswith(">") and (not name or re.search("<.+>", text)):
            name = text[text.find("<") + 1 : text.rfind(">")].strip() if "<" in text else text[1:].strip()
            properties.setdefault(name, "")
        elif name and text.strip():
            properties[name] = f"{properties[name]} {text.strip()}".strip()
        elif not text.strip():
            name = None
    properties.pop("", None)
    several = any(text.startswith("M  END") for text in lines[body:])
    return Record(line, "\n".join(lines[:body]) + "\n", properties, several)


def _smiles_of(block: str, several: bool = False) -> tuple[str, str]:
    """The canonical SMILES of a connection table and "", or "" and why there is none."""
    if "M  END" not in block:
        return "", CUT
    if several:
        return "", "holds several molecules: a line of '$$$$' has to stand behind each"
    with rdBase.BlockLogs(), rdBase.CaptureErrorLog() as log:
        try:
            molecule = Chem.MolFromMolBlock(block)
        except RuntimeError as error:
            return "", f"is no molecule: {complaint(str(error))}"
    if molecule is None:
        return "", f"is no molecule: {complaint(log.messages, silence=UNFIT)}"
    if not molecule.GetNumAtoms():
        return "", "has a molecule without atoms"
    return Chem.MolToSmiles(molecule), ""
