"""What is known beside the series that are forecast: its columns, and the tensors a network is given of them."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

ROLES = ("past", "future", "static")


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


class Covariates(NamedTuple):
    """What is known beside the series themselves, scaled by training rows; NaN where nothing was observed.

    Fields: past (B, L, P); future (B, L + H, K); static (B, S). A role without columns has no features.
    """

    past: Tensor
    future: Tensor
    static: Tensor
