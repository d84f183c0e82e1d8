"""Edges held out for validation and test, whole pairs of nodes at a time, and pairs beside them that are no edges."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from ...core.errors import QuintetError
from .files.graph_tables import PARTS

LISTED = 2000  # nodes up to which all pairs that are no edges are listed to choose from

Pairs = Int[np.ndarray, "2 pairs"]


def names_of(ends: Int[np.ndarray, "2 edges"], nodes: int) -> Int[np.ndarray, " edges"]:
    """One number for each pair of nodes, whichever comes first: smaller * nodes + larger."""
    ends = ends.astype(np.int64)
    return ends.min(axis=0) * nodes + ends.max(axis=0)


def pairs_of(names: Int[np.ndarray, " pairs"], nodes: int) -> Pairs:
    """The pairs that numbers of `names_of` stand for."""
    return np.stack([names // nodes, names % nodes])


@dataclass(frozen=True)
class LinkParts:
    """Pairs of nodes that edges join, by part, and pairs that none joins.

    Args:
        joined: numbers of pairs (`names_of`) of "train", "val" and "test".
        apart: of "val" and "test", as many pairs that no edge joins in either direction.
    """

    joined: dict[str, np.ndarray]
    apart: dict[str, np.ndarray]


def link_parts(
    ends: Int[np.ndarray, "2 edges"],
    nodes: int,
    fractions: dict[str, float],
    seed: int,
    given: np.ndarray | None = None,
) -> LinkParts:
    """Parts of the edges. A pair is in one part alone: however often, and in whichever direction, it is joined.

    An edge from a node to itself is in none. What is drawn depends on the seed and the edges alone.

    Args:
        ends: of all edges.
        nodes: of the graph.
        fractions: shares of the pairs for "val" and "test".
        seed: of the draw.
        given: the part of each edge, None for training; None where the user gave none.

    Raises QuintetError where there are too few edges, or too few pairs that are none.
    """
    apart = ends[0] != ends[1]
    names, first = np.unique(names_of(ends[:, apart], nodes), return_index=True)
    random = np.random.default_rng(seed)
    if given is None:
        joined = _drawn(names, fractions, random)
    else:
        told = np.array([part or "train" for part in given[apart][first]], dtype=object)
        joined = {part: names[told == part] for part in PARTS}
    if not len(joined["train"]):
        raise QuintetError(f"of {len(names):,} pairs of nodes that edges join none is left to train on; hold out fewer")
    held = {part: len(joined[part]) for part in ("val", "test")}
    drawn = _pairs_apart(names, nodes, sum(held.values()), random)
    return LinkParts(joined, {"val": drawn[: held["val"]], "test": drawn[held["val"] :]})


def _drawn(names: np.ndarray, fractions: dict[str, float], random: np.random.Generator) -> dict[str, np.ndarray]:
    shuffled = random.permutation(names)
    counts = [int(len(names) * fractions[part] + 0.5) for part in ("val", "test")]
    val, test, train = np.split(shuffled, np.cumsum(counts))
    return {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}


def _pairs_apart(joined: np.ndarray, nodes: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Different pairs that no edge joins, each as likely as any other."""
    room = nodes * (nodes - 1) // 2 - len(joined)
    if count > room:
        raise QuintetError(f"{count:,} pairs that no edge joins are needed, and there are {room:,}; hold out fewer")
    if nodes <= LISTED or room < len(joined):
        first, second = np.triu_indices(nodes, 1)
        return random.permutation(np.setdiff1d(first * nodes + second, joined))[:count]
    found = np.zeros(0, dtype=np.int64)
    while len(found) < count:
        ends = random.integers(0, nodes, (2, 2 * (count - len(found)) + 16))
        drawn = names_of(ends[:, ends[0] != ends[1]], nodes)
        drawn = drawn[~np.isin(drawn, joined)]
        together = np.concatenate([found, drawn])
        # Each once, in the order in which they were drawn: the smallest are no likelier than others.
        found = together[np.sort(np.unique(together, return_index=True)[1])]
    return found[:count]


def conflicts(ends: Int[np.ndarray, "2 edges"], nodes: int, given: np.ndarray) -> list[tuple[int, int]]:
    """Edges whose part is another than that of an earlier edge between the same nodes: its number and the earlier's."""
    first: dict[int, int] = {}
    found = []
    for edge, name in enumerate(names_of(ends, nodes).tolist()):
        earlier = first.setdefault(name, edge)
        if (given[edge] or "train") != (given[earlier] or "train"):
            found.append((edge, earlier))
    return found
