"""From what a user has in plain Python (a table, SMILES, a path) to the data module that a model was trained with."""

from pathlib import Path
from typing import Any

import pandas as pd

from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ...core.learning.task import Task


def data_for(task: Task, what: Any) -> DataModule:
    """Data ready to be predicted, read as the model's training data were.

    Args:
        task: a trained task.
        what: a data module, the path of a file or folder, a table (pandas), or a list of SMILES.

    Raises QuintetError for anything else, and what the data module raises.
    """
    data = what if isinstance(what, DataModule) else _module(task, what)
    data.adopt(task.description)
    data.prepare(("predict",))
    return data


def _module(task: Task, what: Any) -> DataModule:
    """A data module of the kind the model was trained with."""
    texts = isinstance(what, list | tuple) and all(isinstance(text, str) for text in what)
    if task.description.source == "molecules" and (texts or isinstance(what, str | Path | pd.DataFrame)):
        from ..data.molecules import Molecules

        return Molecules(path=list(what) if isinstance(what, tuple) else what)
    if isinstance(what, str | Path):
        from .. import GraphFiles

        return GraphFiles(root=what)
    taken = "a table (pandas), a list of SMILES, a path" if task.description.source == "molecules" else "a path"
    raise QuintetError(f"predict takes {taken} or a data module; got a {type(what).__name__}")
