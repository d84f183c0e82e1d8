"""Edges that are listed once and lead both ways, and what is unusual about a list of edges."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

Ends = Int[np.ndarray, "2 edges"]


class BothWays(NamedTuple):
    """Edges of which each leads both ways: ends, the listed edge whose columns each has, how many were added."""

    ends: Ends
    origin: Int[np.ndarray, " all"]
    added: int


def occurrences(codes: Int[np.ndarray, " items"]) -> Int[np.ndarray, " items"]:
    """How many equal items stand before each one."""
    order = np.argsort(codes, kind="stable")
    ranked = codes[order]
    first = np.searchsorted(ranked, ranked, side="left")
    counts = np.empty(len(codes), dtype=np.int64)
    counts[order] = np.arange(len(codes)) - first
    return counts


def both_ways(ends: Ends, nodes: int) -> BothWays:
    """Adds the way back of every edge that is not listed in that direction too, next to none: those stand at the end.

    An edge listed m times one way and n <= m times the other gets m - n ways back; one from a node to itself none.
    """
    source, target = ends.astype(np.int64)
    rank = occurrences(source * nodes + target)
    most = int(rank.max(initial=0)) + 1
    there = (source * nodes + target) * most + rank
    back = (target * nodes + source) * most + rank
    alone = np.flatnonzero(~np.isin(back, there) & (source != target))
    origin = np.concatenate([np.arange(len(source)), alone])
    return BothWays(np.concatenate([ends, ends[::-1, alone]], axis=1), origin, len(alone))


def loops(ends: Ends) -> Int[np.ndarray, " loops"]:
    """Edges that lead from a node to itself."""
    return np.flatnonzero(ends[0] == ends[1])


def repeated(ends: Ends, nodes: int) -> Int[np.ndarray, " repeated"]:
    """Edges that are listed before in the same direction."""
    return np.flatnonzero(occurrences(ends[0].astype(np.int64) * nodes + ends[1]) > 0)
