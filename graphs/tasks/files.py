"""From what a user has in plain Python (a table, SMILES, a path) to the data module that a model was trained with."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ...core.learning.task import Task


@contextmanager
def data_for(task: Task, what: Any) -> Iterator[DataModule]:
    """Data ready to be predicted, read as the model's training data were.

    Args:
        task: a trained task.
        what: a data module, the path of a file or folder, a table (pandas), or a list of SMILES.

    Raises QuintetError for anything else, and what the data module raises.
    """
    if isinstance(what, DataModule):
        yield _ready(task, what)
    elif isinstance(what, str | Path):
        yield _ready(task, _module(task, Path(what)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.csv"
            _as_table(task, what).to_csv(path, index=False)
            yield _ready(task, _module(task, path))


def _ready(task: Task, data: DataModule) -> DataModule:
    data.adopt(task.description)
    data.prepare(("predict",))
    return data


def _module(task: Task, path: Path) -> DataModule:
    """A data module of the kind the model was trained with, over a path."""
    from .. import GraphFiles, Molecules

    return Molecules(path=path) if task.description.source == "molecules" else GraphFiles(root=path)


def _as_table(task: Task, what: Any) -> pd.DataFrame:
    """A table as it is, or one of a list of SMILES."""
    if isinstance(what, pd.DataFrame):
        return what
    if task.description.source == "molecules" and isinstance(what, Sequence) and all(isinstance(s, str) for s in what):
        column = task.description.reading.get("smiles") or "smiles"
        return pd.DataFrame({str(column): list(what)})
    raise QuintetError(
        f"predict takes a table (pandas), a list of SMILES, a path or a data module; got a {type(what).__name__}"
    )
