"""What a table leaves open about its stamps and numbers, and what is asked or said of it."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ...core.data.faults import Fault
from .files import Source
from .stamps import DATE_NAMES

DATES = {"date", "datetime", "timestamp", "ds", "stamp"}  # of which each row of a long table has one, too
# Words in the names of columns that say when, though nobody can read how.
WHEN = {*DATE_NAMES, "quarter", "period", "season", "epoch", "jd", "mjd"}
FAR = 3  # times their range that a number of nines lies from all others where it stands for nothing observed


def unread_time(source: Source) -> Fault | None:
    """What to ask where no column holds stamps that can be read, but one is called as if it did.

    It holds numbers that rise from row to row, unless they count rows or seconds from 0 or 1, or words, none twice.
    """
    for name in source.frame.columns:
        column = source.frame[name]
        named = WHEN & set(re.split(r"[^a-z]+", str(name).lower()))
        if not named or len(column) < 3 or column.isna().any() or (column.duplicated().any() and not named & DATES):
            continue
        if pd.api.types.is_numeric_dtype(column):
            steps = np.diff(column.to_numpy(np.float64))
            if not (steps > 0).all() or (column.iloc[0] in (0, 1) and np.allclose(steps, steps[0])):
                continue
        elif _are_numbers(column):
            continue
        remedy = "write dates as 2024-12-31, or give their data.time_format, e.g. %d.%m.%Y; without dates name the "
        what = f"has '{column.iloc[0]}' in '{name}', which is read as no date"
        return Fault(source.row(0), what, remedy + "columns to forecast with data.target")
    return None


def _are_numbers(column: pd.Series) -> bool:
    return bool(pd.to_numeric(column, errors="coerce").notna().all())


def doubtful_numbers(name: str, column: pd.Series, values: np.ndarray) -> Iterable[str]:
    """Remarks on numbers that may stand for nothing observed, and on those that float64 cannot hold."""
    seen = values[np.isfinite(values)]
    for end in (seen.min(), seen.max()) if len(seen) else ():
        others, times = seen[seen != end], int((seen == end).sum())
        far = len(others) > times > 1 and np.abs(others - end).min() > FAR * np.ptp(others)
        if far and re.fullmatch(r"-?9+(\.0|\.9+)?", str(end)):
            said = f"column '{name}' is {end:g} in {times:,} rows, far from all others"
            yield f"{said}; leave those cells empty if nothing was observed"
    if column.dtype.kind in "iu" and np.abs(values).max(initial=0) > 2**53:
        yield f"column '{name}' holds whole numbers beyond 2^53, which are rounded"
