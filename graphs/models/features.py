"""What the columns of nodes and edges become: words are looked up, numbers are projected, and all is added up."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core.errors import QuintetError


class CategoryEmbedding(nn.Module):
    """y = sum over the columns c of W_c[code_c - 1], and nothing for code 0, a word that training never saw.

    The rows of all columns stand one after another in one `weight` (words, dim).

    Args:
        words: number of words of each column.
        dim: width of the result.
    """

    def __init__(self, words: Sequence[int], dim: int) -> None:
        super().__init__()
        self.words = list(words)
        self.weight = nn.Parameter(torch.randn(sum(words), dim) * len(self.words) ** -0.5)
        starts = torch.tensor([0, *self.words]).cumsum(0)[:-1]
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, codes: Int[Tensor, "rows columns"]) -> Float[Tensor, "rows dim"]:
        """Raises QuintetError for another number of columns."""
        if codes.shape[-1] != len(self.words):
            raise QuintetError(f"{len(self.words)} columns of words were meant; got {codes.shape[-1]}")
        # The row before the first is zero, and learns nothing.
        rows = torch.where(codes > 0, codes + self.starts, 0)
        return F.embedding(rows, F.pad(self.weight, (0, 0, 1, 0)), padding_idx=0).sum(-2)


class Features(nn.Module):
    """y = sum over columns of words of their embedding + W values + b; a learned vector for all where there are none.

    Args:
        what: "node" or "edge": the fields read are `{what}_categories` and `{what}_values`.
        categories: number of words of each column of words.
        values: number of columns of numbers.
        dim: width of the result.
    """

    def __init__(self, what: str, categories: Sequence[int], values: int, dim: int) -> None:
        super().__init__()
        self.what = what
        self.categories = CategoryEmbedding(categories, dim) if categories else None
        self.values = nn.Linear(values, dim) if values else None
        self.constant = None if categories or values else nn.Parameter(torch.randn(dim))

    @property
    def fields(self) -> list[str]:
        """Names of the fields of a batch that are read."""
        parts = {"categories": self.categories, "values": self.values}
        return [f"{self.what}_{name}" for name, part in parts.items() if part is not None]

    def forward(
        self,
        rows: int,
        categories: Int[Tensor, "rows columns"] | None = None,
        values: Float[Tensor, "rows numbers"] | None = None,
    ) -> Float[Tensor, "rows dim"]:
        """Of `rows` nodes or edges."""
        if self.constant is not None:
            return self.constant.expand(rows, -1)
        parts = []
        if self.categories is not None:
            parts.append(self.categories(categories))
        if self.values is not None:
            parts.append(self.values(values))
        return sum(parts[1:], parts[0])
