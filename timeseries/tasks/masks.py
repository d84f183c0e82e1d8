"""Which cells of a window are hidden, so that a network learns, or is tested, to give them back."""

from collections.abc import Sequence
from typing import Literal
from zlib import crc32

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

Pattern = Literal["points", "blocks", "rows", "mixed"]
PATTERNS: tuple[Pattern, ...] = ("points", "blocks", "rows")


def hidden_cells(
    observed: Bool[Tensor, "batch time channels"],
    share: float,
    block: int,
    pattern: Pattern,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "batch time channels"]:
    """Cells to hide, all of them observed; in the mean the given share of all.

    Args:
        observed: cells that hold a number.
        share: of the cells.
        block: rows of a block.
        pattern: "points" hides each cell by itself, "blocks" stretches of rows of one channel, "rows" stretches of rows
            of all channels at once; "mixed" takes one of the three for each window.
        generator: of the randomness, on the CPU; None takes the global one.
    """
    batch, length, channels = observed.shape
    kinds = PATTERNS if pattern == "mixed" else (pattern,)
    found = []
    for kind in kinds:
        if kind == "points":
            cells = torch.rand(batch, length, channels, generator=generator) < share
        else:
            cells = _blocks(batch, length, 1 if kind == "rows" else channels, share, block, generator)
        found.append(cells.expand(batch, length, channels))
    if len(found) == 1:
        chosen = found[0]
    else:
        drawn = torch.randint(len(found), (batch, 1, 1), generator=generator)
        chosen = torch.stack(found).gather(0, drawn[None].expand(1, batch, length, channels)).squeeze(0)
    return chosen.to(observed.device) & observed


def _blocks(
    batch: int, length: int, channels: int, share: float, block: int, generator: torch.Generator | None
) -> Tensor:
    """Stretches of `block` rows that begin anywhere, also before the window, until `share` of the cells is hidden."""
    begins = 1 - (1 - share) ** (
        1 / block
    )  # so that a cell escapes all blocks that reach it with probability 1 - share
    starts = torch.rand(batch, channels, length + block - 1, generator=generator) < begins
    return F.max_pool1d(starts.float(), block, 1).transpose(1, 2) > 0


def repeatable_cells(
    observed: Bool[Tensor, "batch time channels"],
    names: Sequence[tuple[int, ...]],
    share: float,
    block: int,
    pattern: Pattern,
) -> Bool[Tensor, "batch time channels"]:
    """`hidden_cells` of each window by its own seed: the same for every model, batch size and run.

    Args:
        observed: cells that hold a number.
        names: what seeds each window: the numbers of its series and of its first row.
        share: of the cells.
        block: rows of a block.
        pattern: see `hidden_cells`.
    """
    windows = []
    for one, name in zip(observed.cpu(), names, strict=True):
        generator = torch.Generator().manual_seed(crc32(repr(tuple(name)).encode()))
        windows.append(hidden_cells(one[None], share, block, pattern, generator))
    return torch.cat(windows).to(observed.device)
