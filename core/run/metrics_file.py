"""metrics.csv: one row a step at which something was measured, kept whole across interruptions."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ..errors import QuintetError
from ..writing.console import Console
from ..writing.files import written_whole
from .run_folder import REMEDY


class MetricsFile(Logger):
    """Logger that writes `<save_dir>/metrics.csv`; a resumed run continues the file of the interrupted one.

    Everything measured at one step stands in one row. Rows after the step a run resumes from are dropped: they were
    measured by steps that are done again.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._rows: list[dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml beside the file holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float | int], step: int | None = None) -> None:
        step = 0 if step is None else step
        if self._rows is None:
            self._rows = [row for row in read_metrics(self.path) if row["step"] < step]
        if not self._rows or self._rows[-1]["step"] != step:
            self._rows.append({"step": step})
        self._rows[-1].update(metrics)

    @rank_zero_only
    def save(self) -> None:
        if not self._rows:
            return
        columns = ["epoch", "step", *sorted({key for row in self._rows for key in row} - {"epoch", "step"})]
        with (
            written_whole(self.path, replace=True, remedy=REMEDY) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        try:
            self.save()
        except QuintetError as error:
            if status == "success":
                raise
            # What ended the run is what must be read first; this comes on top.
            Console(markup=False, stderr=True).print(f"warning: {error}", highlight=False, soft_wrap=True)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a metrics.csv with numbers as numbers and empty cells left out; no rows where there is no file."""
    if not Path(path).is_file():
        return []
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [row | {key: int(row[key]) for key in ("epoch", "step") if key in row} for row in rows]
