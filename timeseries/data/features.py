"""Covariates as features: numbers scaled by what the training rows say, words as one 0/1 feature a category."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .examine import Series

MOST = 100  # categories of a column; more are names or numbers read as words


@dataclass
class Covariate:
    """How a column that is not forecast becomes features: one of scaled numbers, or one of 0 and 1 for each category.

    Args:
        name: of the column.
        mean: subtracted from its numbers, of the training rows.
        std: by which they are then divided, of the training rows.
        categories: what the training rows show, in order; empty for a column of numbers.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    categories: list[str] = field(default_factory=list)

    @property
    def features(self) -> int:
        """How many features the column becomes."""
        return len(self.categories) or 1


def fitted(name: str, training: np.ndarray, words: Sequence[str] | None) -> Covariate:
    """How a column becomes features, by its training rows alone.

    Args:
        name: of the column.
        training: its training rows; numbers of categories where it holds words.
        words: of the categories; None of a column of numbers.
    """
    observed = training[~np.isnan(training)]
    if words is None:
        std = float(observed.std())
        # A flag that no training row raises is no reason to refuse the data: it stays at 0 until it is raised.
        return Covariate(name, float(observed.mean()), std if std > 1e-12 * max(1.0, abs(observed[0])) else 1.0)
    return Covariate(name, categories=[words[int(code)] for code in np.unique(observed)])


def unfit(training: np.ndarray, words: Sequence[str] | None) -> str | None:
    """What stands in the way of a column becoming features; None where nothing does."""
    observed = training[~np.isnan(training)]
    if not len(observed):
        return "has no value in the training rows"
    if words is not None and (count := len(np.unique(observed))) > MOST:
        return f"has {count} categories in the training rows, and at most {MOST} are read"
    return None


def encoded(column: np.ndarray, covariate: Covariate, words: Sequence[str]) -> np.ndarray:
    """A column as (rows, features); NaN where nothing was observed, and for a category that no training row shows.

    Args:
        column: rows; numbers of categories where the covariate has any.
        covariate: how it becomes features.
        words: of the categories of this file.
    """
    if not covariate.categories:
        return ((column - covariate.mean) / covariate.std)[:, None].astype(np.float32)
    places = {word: at for at, word in enumerate(covariate.categories)}
    # One row more, of NaN, for what is not known.
    table = np.full((len(words) + 1, len(covariate.categories)), np.nan, dtype=np.float32)
    for code, word in enumerate(words):
        if word in places:
            table[code] = 0.0
            table[code, places[word]] = 1.0
    return table[np.where(np.isnan(column), len(words), column).astype(np.int64)]


def unseen(covariate: Covariate, words: Sequence[str]) -> list[str]:
    """The categories of a file that no training row shows."""
    return [word for word in words if word not in covariate.categories] if covariate.categories else []


def features_of(
    series: Sequence[Series],
    role: str,
    columns: Sequence[Covariate],
    categories: Mapping[str, Sequence[str]],
    beyond: int,
) -> Float[Tensor, "rows features"] | None:
    """Features of a role, all series one after the other; None without columns.

    Args:
        series: with what their columns say.
        role: past, future, or static, of which each series is one row.
        columns: of the role, and how they become features.
        categories: of the columns that hold words in this file.
        beyond: rows added after the last of each series; what is known of them is in future columns.
    """
    if not columns:
        return None
    blocks = []
    for one in series:
        rows = 1 if role == "static" else len(one.values) + beyond
        parts = [
            encoded(one.columns[column.name][:rows], column, categories.get(column.name, [])) for column in columns
        ]
        block = np.full((rows, sum(part.shape[1] for part in parts)), np.nan, dtype=np.float32)
        block[: len(parts[0])] = np.concatenate(parts, axis=1)
        blocks.append(block)
    return torch.from_numpy(np.concatenate(blocks))
