"""What a person reads of their data before training: sections one below the other."""

from rich.console import RenderableType
from rich.table import Table


def stacked(*sections: RenderableType | None) -> Table:
    """Sections in one column, a blank line below each; None is no section."""
    page = Table.grid()
    for section in sections:
        if section is not None:
            page.add_row(section)
            page.add_row()
    return page
