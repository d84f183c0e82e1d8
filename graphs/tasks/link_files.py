"""Pairs of nodes that are asked for, and the table of their scores."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core.errors import QuintetError
from ...core.writing.cells import text_cell, write_table
from ..data.files.tables import read_sheet, text_column

Score = Callable[[Int[Tensor, "2 pairs"]], Float[Tensor, " pairs"]]
ENDS = ("source", "target")
ROWS = 256  # nodes whose partners are scored at once, divided by how many there are


class AskedPair(NamedTuple):
    """A pair as it was written, the numbers of its nodes, and why these are not known; empty where they are."""

    source: str
    target: str
    nodes: tuple[int, int] | None
    problem: str = ""


def read_pairs(path: Path, names: Sequence[str]) -> list[AskedPair]:
    """The pairs of a table, a row each. Raises QuintetError where it has no columns `source` and `target`.

    Args:
        path: of the table.
        names: of the nodes.
    """
    frame = read_sheet(path).frame
    if missing := [end for end in ENDS if end not in frame]:
        raise QuintetError(
            f"{path} has no column '{missing[0]}'; name the nodes of each pair in columns source and target"
        )
    numbers = {name: number for number, name in enumerate(names)}
    columns = [text_column(frame[end]) for end in ENDS]
    return [_asked(first, second, numbers) for first, second in zip(*columns, strict=True)]


def _asked(first: object, second: object, numbers: dict[str, int]) -> AskedPair:
    source, target = (cell if isinstance(cell, str) else "" for cell in (first, second))  # empty cells are no text
    for name in (source, target):
        if name not in numbers:
            return AskedPair(source, target, None, f"no node is called '{name}'" if name else "an end is empty")
    if source == target:
        return AskedPair(source, target, None, "a node is not linked with itself")
    return AskedPair(source, target, (numbers[source], numbers[target]))


def top_candidates(score: Score, edges: Int[Tensor, "2 edges"], names: Sequence[str], top: int) -> list[AskedPair]:
    """For each node in turn the pairs with those others that score highest, edges that are known left out.

    Args:
        score: of pairs.
        edges: that are known.
        names: of the nodes.
        top: pairs of each node.
    """
    count, asked = len(names), []
    for rows in torch.arange(count).split(max(1, ROWS * ROWS // max(1, count))):
        pairs = torch.stack([rows.repeat_interleave(count), torch.arange(count).repeat(len(rows))])
        scores = score(pairs).view(len(rows), count)
        for ends in (edges, edges.flip(0)):
            inside = (ends[0] >= rows[0]) & (ends[0] <= rows[-1])
            scores[ends[0, inside] - rows[0], ends[1, inside]] = -1.0
        scores[torch.arange(len(rows)), rows] = -1.0
        best = scores.topk(min(top, count), 1)
        for row, values, others in zip(rows.tolist(), best.values.tolist(), best.indices.tolist(), strict=True):
            asked += [
                AskedPair(names[row], names[other], (row, other)) for value, other in zip(values, others) if value >= 0
            ]
    return asked


def write_links(asked: Sequence[AskedPair], score: Score, folder: Path) -> Path:
    """Writes predictions.csv: source, target, probability, problem; a row for each pair, in their order.

    Raises QuintetError where it exists already.
    """
    known = [pair.nodes for pair in asked if pair.nodes is not None]
    values = iter(score(torch.tensor(known, dtype=torch.long).reshape(-1, 2).T).tolist())
    rows = (
        [
            text_cell(pair.source),
            text_cell(pair.target),
            "" if pair.nodes is None else f"{next(values):.6f}",
            text_cell(pair.problem),
        ]
        for pair in asked
    )
    path = Path(folder) / "predictions.csv"
    write_table(path, [*ENDS, "probability", "problem"], rows)
    return path
