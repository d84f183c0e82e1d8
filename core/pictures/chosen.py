"""Which of all that a test sees are kept to be shown: few, chosen as they come by, whatever their number."""

from typing import Generic, TypeVar

import torch

Item = TypeVar("Item")


class UniformSample(Generic[Item]):
    """A uniform sample without replacement of all that is offered: those with the smallest random keys.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: list[tuple[float, Item]] = []
        # Its own generator: choosing what to show must not shift the randomness of anything else.
        self._generator = torch.Generator().manual_seed(0)

    def keys(self, count: int) -> list[float]:
        """Random keys of the next `count` that are offered."""
        return torch.rand(count, generator=self._generator).tolist()

    def admits(self, key: float) -> bool:
        """Whether something of this key is kept for now; others need not be made."""
        return len(self._kept) < self.size or key < self._kept[-1][0]

    def offer(self, key: float, item: Item) -> None:
        if self.admits(key):
            self._kept = sorted([*self._kept, (key, item)], key=lambda pair: pair[0])[: self.size]

    @property
    def items(self) -> list[Item]:
        """In the order of their keys."""
        return [item for _, item in self._kept]


class Highest(Generic[Item]):
    """Those of the highest scores, highest first; of equal ones those that came first.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: list[tuple[float, Item]] = []

    def admits(self, score: float) -> bool:
        """Whether something of this score is kept for now; others need not be made. NaN never is."""
        return score == score and (len(self._kept) < self.size or score > self._kept[-1][0])

    def offer(self, score: float, item: Item) -> None:
        if self.admits(score):
            self._kept = sorted([*self._kept, (score, item)], key=lambda pair: -pair[0])[: self.size]

    @property
    def items(self) -> list[Item]:
        return [item for _, item in self._kept]
