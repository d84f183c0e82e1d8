"""What a person reads before training a segmenter: parts, sizes, classes by pixels, and problems."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ...core.data.faults import Fault
from ...core.data.problems import problems_table
from ...core.data.report import stacked
from .mask_sources import MaskEntry
from .masks import MaskFacts
from .report import facts_table
from .scan import ImageFacts

SHOWN = 30  # classes listed one by one


@dataclass
class MaskExamination:
    """What was found in a folder: usable pairs by part, the classes of their masks, facts of each file, problems."""

    parts: dict[str, list[MaskEntry]]
    origins: dict[str, str]
    classes: list[str]
    ids: list[int]
    ignored_ids: list[int]
    palette: list[list[int]]
    facts: dict[Path, ImageFacts]
    mask_facts: dict[Path, MaskFacts]
    faults: list[Fault]
    remarks: list[str]

    def pixels(self, part: str) -> Counter[int]:
        """Pixels of each id in the masks of a part."""
        found: Counter[int] = Counter()
        for entry in self.parts[part]:
            found.update(self.mask_facts[entry.mask].ids)
        return found

    def images(self, value: int) -> int:
        """How many masks hold an id."""
        return sum(value in self.mask_facts[entry.mask].ids for part in self.parts.values() for entry in part)


def report(root: Path, found: MaskExamination, image_size: Sequence[int], fit: str, skipped: bool = False) -> Table:
    """The findings of an examination as tables in one column.

    Args:
        root: the user's folder.
        found: its examination.
        image_size: height and width the network sees.
        fit: how images are brought to it.
        skipped: faults were left out rather than refused.
    """
    return stacked(
        Text(str(root), style="bold"),
        _parts(found),
        facts_table(list(found.facts.values()), image_size),
        _classes(found),
        problems_table(found.faults, [*found.remarks, *_remarks(found, image_size, fit)], skipped),
    )


def _parts(found: MaskExamination) -> Table:
    table = Table("part", box=None, pad_edge=False, header_style="bold")
    for column in ("images", "classes", "ignored"):
        table.add_column(column, justify="right")
    table.add_column("where from")
    for part, entries in found.parts.items():
        pixels = found.pixels(part)
        ignored = sum(pixels[value] for value in found.ignored_ids) / max(1, pixels.total())
        present = sum(pixels[value] > 0 for value in found.ids)
        table.add_row(part, f"{len(entries):,}", str(present), f"{ignored:.1%}", found.origins[part])
    return table


def _classes(found: MaskExamination) -> Table:
    table = Table("id", "class", box=None, pad_edge=False, header_style="bold")
    for part in found.parts:
        table.add_column(part, justify="right")
    table.add_column("images", justify="right")
    pixels = {part: found.pixels(part) for part in found.parts}
    totals = {part: max(1, sum(counts[value] for value in found.ids)) for part, counts in pixels.items()}
    shares = {value: pixels["train"][value] / totals["train"] for value in found.ids}
    most = max(shares.values(), default=0)
    for name, value, colour in list(zip(found.classes, found.ids, found.palette))[:SHOWN]:
        cells = (f"{pixels[part][value] / totals[part]:.2%}" for part in found.parts)
        bar = "█" * round(24 * shares[value] / most) if most else ""
        style = f"rgb({','.join(map(str, colour))})"
        # Black on black would show nothing.
        style = style if max(colour) > 60 else "bright_black"
        table.add_row(str(value), Text(name), *cells, f"{found.images(value):,}", Text(bar, style=style))
    if len(found.classes) > SHOWN:
        table.add_row("", f"and {len(found.classes) - SHOWN} more")
    return table


def _remarks(found: MaskExamination, image_size: Sequence[int], fit: str) -> Iterable[str]:
    """What the numbers themselves say."""
    height, width = image_size
    facts = found.facts.values()
    distorted = sum(not 0.8 < (fact.width / fact.height) / (width / height) < 1.25 for fact in facts)
    if fit == "stretch" and distorted:
        yield (
            f"{distorted:,} of {len(facts):,} images are distorted by resizing to {width} x {height}; "
            "data.image_size=[HEIGHT,WIDTH], or data.fit=window keeps their shape"
        )
    if several := sum(fact.frames > 1 for fact in facts):
        yield f"{several:,} files hold several frames; the first is taken"
    pixels = found.pixels("train")
    counts = {name: pixels[value] for name, value in zip(found.classes, found.ids)}
    present = [number for number in counts.values() if number]
    if present and max(present) >= 50 * min(present):
        rare = min((name for name in counts if counts[name]), key=counts.__getitem__)
        share = counts[rare] / sum(present)
        yield f"uneven classes: {rare} has {share:.2%} of the training pixels (model.class_weights=balanced)"
    for part, origin in found.origins.items():
        held = found.pixels(part)
        absent = [name for name, value in zip(found.classes, found.ids) if not held[value]]
        if found.parts[part] and absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            yield f"{part} ({origin}) has no pixel of {', '.join(absent[:5])}{more}"
