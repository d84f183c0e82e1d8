"""What a person reads before training: parts, classes, sizes, modes and problems of a folder of photographs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from rich.table import Table
from rich.text import Text

from ...core.data.problems import SHOWN, problems_table
from ...core.data.report import stacked
from .examination import Examination
from .scan import ImageFacts


def report(root: Path, found: Examination, image_size: Sequence[int], skipped: bool = False) -> Table:
    """The findings of an examination as tables in one column.

    Args:
        root: the user's folder.
        found: its examination.
        image_size: height and width the network sees.
        skipped: faults were left out rather than refused.
    """
    return stacked(
        Text(str(root), style="bold"),
        _parts(found),
        facts_table(list(found.facts.values()), image_size),
        _classes(found),
        problems_table(found.faults, [*found.remarks, *_remarks(found, image_size)], skipped),
    )


def _parts(found: Examination) -> Table:
    table = Table("part", box=None, pad_edge=False, header_style="bold")
    for column in ("images", "classes", "images a class"):
        table.add_column(column, justify="right")
    table.add_column("where from")
    for part in found.parts:
        counts = [count for count in found.counts(part).values() if count]
        spread = f"{min(counts)} to {max(counts)}" if counts else "-"
        table.add_row(part, f"{len(found.parts[part]):,}", str(len(counts)), spread, found.origins[part])
    return table


def facts_table(facts: list[ImageFacts], image_size: Sequence[int]) -> Table:
    """Sizes and modes of images."""
    table = Table.grid(padding=(0, 2))
    if facts:
        smallest, largest = (pick(facts, key=lambda fact: fact.width * fact.height) for pick in (min, max))
        middle = f"{median(f.width for f in facts):.0f} x {median(f.height for f in facts):.0f}"
        extremes = " to ".join(f"{fact.width} x {fact.height}" for fact in (smallest, largest))
        table.add_row("width x height", f"{middle} in the middle, {extremes}")
        table.add_row(
            "modes", ", ".join(f"{name} {count:,}" for name, count in Counter(f.mode for f in facts).most_common())
        )
        if deep := [fact.brightest for fact in facts if fact.brightest is not None]:
            table.add_row("beyond 8 bits", f"{len(deep):,} images, values up to {max(deep)}")
        table.add_row("network sees", f"{image_size[1]} x {image_size[0]}")
    return table


def _classes(found: Examination) -> Table:
    table = Table("class", box=None, pad_edge=False, header_style="bold")
    for part in found.parts:
        table.add_column(part, justify="right")
    counts = {part: found.counts(part) for part in found.parts}
    totals = {name: sum(counts[part][name] for part in counts) for name in found.classes}
    most = max(totals.values(), default=0)
    for name in found.classes[:SHOWN]:
        bar = Text("█" * round(24 * totals[name] / most) if most else "", style="blue")
        table.add_row(Text(name), *(f"{counts[part][name]:,}" for part in counts), bar)
    if len(found.classes) > SHOWN:
        table.add_row(f"and {len(found.classes) - SHOWN} more")
    return table


def _remarks(found: Examination, image_size: Sequence[int]) -> Iterable[str]:
    """What the numbers themselves say."""
    height, width = image_size
    facts = found.facts.values()
    if small := sum(fact.width < width or fact.height < height for fact in facts):
        yield f"{small:,} of {len(facts):,} images are smaller than {width} x {height} and are enlarged"
    if several := sum(fact.frames > 1 for fact in facts):
        yield f"{several:,} files hold several frames; the first is taken"
    if found.several:
        entries = [entry for part in found.parts.values() for entry in part]
        bare = sum(not entry.names for entry in entries)
        mean = sum(len(entry.names) for entry in entries) / max(1, len(entries))
        yield f"images have several labels, {mean:.1f} on average; {bare:,} of {len(entries):,} have none"
    train = found.counts("train")
    present = [count for count in train.values() if count]
    if present and max(present) >= 5 * min(present):
        rare = min((name for name in train if train[name]), key=train.__getitem__)
        yield f"uneven classes: {rare} has {train[rare]} training images, others up to {max(present)} (class_weights)"
    for part, origin in found.origins.items():
        counts = found.counts(part)
        absent = [name for name, count in counts.items() if not count]
        if absent and len(absent) < len(counts):
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            yield f"{part} ({origin}) has no image of {', '.join(absent[:5])}{more}"
