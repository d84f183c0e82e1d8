"""The .ts format of the UCR and UEA archives: one labelled series a line, channels set apart by colons.

Reference: Löning et al., "sktime: A Unified Interface for Machine Learning with Time Series", arXiv 1909.07872.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.data.faults import Fault
from ...core.errors import QuintetError

MISSING = {"?", "", "NaN", "nan"}


@dataclass(eq=False)
class Case:
    """One series with its class.

    Args:
        name: what to call it in a table.
        values: (T, C), NaN where nothing was observed.
        label: its class, None where that is not known.
        split: the part the user put it into: train, val or test; None where they did not.
        group: what it belongs together with, None for nothing.
        where: file and place, for messages.
    """

    name: str
    values: np.ndarray
    label: str | None = None
    split: str | None = None
    group: str | None = None
    where: str = ""


def read_ts(path: Path, split: str | None = None) -> tuple[list[Case], list[Fault]]:
    """The series of a .ts file, and what is wrong with it. Raises QuintetError for a file without data.

    Args:
        path: of the file.
        split: the part its series belong to.
    """
    if not path.is_file():
        raise QuintetError(f"{path} is no regular file")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise QuintetError(f"{path} cannot be read: {error.strerror}") from None
    header, start = {}, None
    for number, line in enumerate(lines):
        key, _, rest = line.strip().partition(" ")
        if key.lower() == "@data":
            start = number + 1
            break
        if key.startswith("@"):
            header[key[1:].lower()] = rest.split()
    if start is None:
        raise QuintetError(f"{path} has no line @data; it is no .ts file")
    if header.get("timestamps", ["false"])[0].lower() == "true":
        raise QuintetError(f"{path} has stamps beside its values (@timeStamps true); write the values alone")
    if "targetlabel" in header and header["targetlabel"][0].lower() == "true":
        raise QuintetError(f"{path} has numbers to predict, not classes (@targetLabel); a classifier takes @classLabel")
    classes = header.get("classlabel", ["false"])
    labelled, known = classes[0].lower() == "true", set(classes[1:])
    cases, faults, channels = [], [], None
    for number, line in enumerate(lines[start:], start + 1):
        line = line.strip()
        if not line or line[0] in "#%":
            continue
        where = f"{path} line {number}"
        *parts, last = line.split(":")
        label = last.strip() if labelled else None
        parts = parts if labelled else [*parts, last]
        if labelled and known and label not in known:
            faults.append(Fault(where, f"has the class '{label}', which @classLabel does not name", "correct either"))
            continue
        try:
            values = [np.array([_number(text) for text in part.split(",")]) for part in parts]
        except ValueError as error:
            faults.append(
                Fault(where, f"has {str(error).split(': ')[-1]}, which is no number", "correct it, or write ?")
            )
            continue
        channels = channels or len(values)
        lengths = sorted({len(column) for column in values})
        if len(values) != channels or len(lengths) != 1:
            found = (
                f"{len(values)} channels" if len(values) != channels else f"channels of {lengths[0]} to {lengths[-1]}"
            )
            wanted = f"of {channels} like the first line" if len(values) != channels else "values of one length"
            faults.append(Fault(where, f"has {found} values, not {wanted}", "correct the line"))
            continue
        cases.append(Case(f"{path.stem} {len(cases) + 1}", np.stack(values, axis=1), label, split, where=where))
    if not cases and not faults:
        raise QuintetError(f"{path} has no series below @data")
    return cases, faults


def _number(text: str) -> float:
    text = text.strip()
    return float("nan") if text in MISSING else float(text)
