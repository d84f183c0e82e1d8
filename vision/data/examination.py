"""What was found in a folder of photographs."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ...core.data.faults import Fault
from .scan import ImageFacts
from .sources import Entry


@dataclass
class Examination:
    """What was found in a folder: usable images by part, facts of each file, what is wrong and what is remarkable."""

    parts: dict[str, list[Entry]]
    origins: dict[str, str]
    classes: list[str]
    facts: dict[Path, ImageFacts]
    faults: list[Fault]
    remarks: list[str]
    several: bool = False  # labels an image

    def counts(self, part: str) -> dict[str, int]:
        found = Counter(name for entry in self.parts[part] for name in entry.names)
        return {name: found[name] for name in self.classes}
