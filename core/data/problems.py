"""What is wrong with data and what is worth knowing, as a person reads it before training."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from .faults import Fault

SHOWN = 20  # faults and remarks listed one by one


def problems_table(faults: Sequence[Fault], remarks: Sequence[str], skipped: bool = False) -> Table | None:
    """Faults with what to do about them, then remarks; None where there are none.

    Args:
        faults: what stands in the way.
        remarks: what does not, but is worth knowing.
        skipped: faults were left out rather than refused.
    """
    table = Table.grid(padding=(0, 1))
    rows = [f"{fault.where} {fault.what}; {'left out' if skipped else fault.remedy}" for fault in faults]
    for kind, style, lines in (("fault", "bold red", rows), ("note", "bold yellow", remarks)):
        for line in lines[:SHOWN]:
            table.add_row(Text(kind, style=style), Text(line))
        if len(lines) > SHOWN:
            table.add_row(Text(kind, style=style), f"and {len(lines) - SHOWN} more")
    return table if table.row_count else None
