"""Attention within windows that tile the grid, as in Swin."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from ....kernels.bias_attention import bias_attention
from ...aside import listened_to, tell
from ...errors import QuintetError
from ...mixer import Mixer, mask_tokens, resolve_num_heads
from ...position.relative_bias import RelativePositionBias
from ...regularization.dropout import Dropout
from ...weights.registry import register_mixer
from ..weights import AttentionWeights, softmax_weights


def split_windows(
    x: Shaped[Tensor, "batch *grid dim"], window: tuple[int, ...]
) -> Shaped[Tensor, "windows tokens dim"]:
    """Cut a grid whose sides are multiples of the window's; the windows of a sample are neighbours, in raster order."""
    rank = len(window)
    sides = chain.from_iterable((length // size, size) for length, size in zip(x.shape[1:-1], window))
    x = x.reshape(len(x), *sides, x.shape[-1])
    x = x.permute(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1)
    return x.reshape(-1, prod(window), x.shape[-1])


def join_windows(
    x: Shaped[Tensor, "windows tokens dim"], window: tuple[int, ...], grid: tuple[int, ...]
) -> Shaped[Tensor, "batch *grid dim"]:
    """Undoes `split_windows`."""
    rank = len(window)
    x = x.reshape(-1, *(length // size for length, size in zip(grid, window)), *window, x.shape[-1])
    axes = chain.from_iterable((axis, axis + rank) for axis in range(1, rank + 1))
    return x.permute(0, *axes, 2 * rank + 1).reshape(-1, *grid, x.shape[-1])


@register_mixer("window")
class WindowAttention(Mixer):
    """y = softmax(q kᵀ / sqrt(head_dim) + bias[p_q - p_k]) v, projected, over the tokens of the window of each token.

    Windows tile the grid from its first corner on; the tokens that the last ones lack are no tokens to attend to. With
    a shift the windows start that many tokens later, and those before make windows of their own. Windows larger than
    the grid on an axis are cut to it, and not shifted on this axis. Paper: "Swin Transformer", arXiv 2103.14030.
    (Implementations that let padding take part, as torchvision's, differ where the grid is no multiple of the window.)

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        window_size: tokens along each axis, the same for every axis or one an axis.
        shift: tokens by which the windows are moved, the same for every axis or one an axis; Swin moves those of every
            other layer by window_size // 2.
        relative_bias: learn a bias for each offset within a window.
        qkv_bias: bias of the projection to queries, keys and values, whose rows are stacked in this order.
        projection_bias: bias of the output projection.
        projection_dropout: rate on the output.
        rank: number of grid axes: 1 sequences, 2 images, 3 volumes.

    Raises QuintetError for arguments that do not fit the rank, shifts that are not less than the window, and tokens of
    another rank.
    """

    title = "Window attention: tokens see those of their window, which may be shifted"
    paper = "Swin Transformer, arXiv 2103.14030"
    subquadratic: ClassVar[bool] = True
    tells = frozenset({"weights"})
    drawn_by_networks: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "shifted": {"window_size": 4, "shift": 2},
        "sequence": {"rank": 1, "window_size": 8, "shift": 3},
        "volume": {"rank": 3, "window_size": (2, 3, 3), "shift": (1, 0, 1)},
        "without_bias": {"window_size": (3, 2), "relative_bias": False},
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        window_size: int | Sequence[int] = 7,
        shift: int | Sequence[int] = 0,
        relative_bias: bool = True,
        qkv_bias: bool = True,
        projection_bias: bool = True,
        projection_dropout: float = 0.0,
        rank: int = 2,
    ) -> None:
        super().__init__()
        if rank not in (1, 2, 3):
            raise QuintetError(f"WindowAttention has rank 1, 2 or 3 (sequence, image, volume); got {rank}")
        self.dim, self.num_heads = dim, resolve_num_heads(dim, num_heads)
        per_axis = partial(_per_axis, rank=rank)
        self.window_size, self.shift = per_axis("window_size", window_size), per_axis("shift", shift)
        if min(self.window_size) < 1 or any(not 0 <= s < w for s, w in zip(self.shift, self.window_size)):
            raise QuintetError(
                f"WindowAttention needs window_size of at least 1 and shift from 0 to window_size - 1; got "
                f"{self.window_size} and {self.shift}"
            )
        self.grid_ranks = frozenset({rank})
        # Whether windows are shifted at all depends on the size of the grid, padding included.
        self.padding_invariant = not any(self.shift)
        self.relative_bias = RelativePositionBias(self.num_heads, self.window_size) if relative_bias else None
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=projection_bias)
        self.projection_dropout = Dropout(projection_dropout)

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        self.check_tokens(x, mask)
        grid = tuple(x.shape[1:-1])
        window = tuple(min(size, length) for size, length in zip(self.window_size, grid))
        padded = tuple(-(-length // size) * size for length, size in zip(grid, window))
        shift = tuple(0 if size >= length else by for by, size, length in zip(self.shift, self.window_size, grid))

        qkv = self.qkv(split_windows(_pad_and_roll(mask_tokens(x, mask), padded, shift), window))
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        bias = None if self.relative_bias is None else self.relative_bias(window)
        visible = _visible(mask, grid, padded, window, shift, x.device)
        if listened_to(self, "weights"):
            values = _window_weights(query, key, bias, visible)
            tell(self, "weights", _in_raster_order(values, mask, grid, padded, window, shift))
        y = bias_attention(query, key, value, bias=bias, mask=visible)
        y = join_windows(y.flatten(-2), window, padded)
        if any(shift):
            y = y.roll(shift, tuple(range(1, len(grid) + 1)))
        for axis, length in enumerate(grid, 1):
            y = y.narrow(axis, 0, length)
        return mask_tokens(self.projection_dropout(self.proj(y)), mask)

    def extra_repr(self) -> str:
        return f"window_size={self.window_size}, shift={self.shift}"


def _pad_and_roll(x: Tensor, padded: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """Zeros up to the padded grid, then the first tokens behind the last."""
    missing = [side for axis in range(len(padded), 0, -1) for side in (0, padded[axis - 1] - x.shape[axis])]
    x = F.pad(x, (0, 0, *missing))
    return x.roll([-by for by in shift], tuple(range(1, len(padded) + 1))) if any(shift) else x


def _visible(
    mask: Tensor | None,
    grid: tuple[int, ...],
    padded: tuple[int, ...],
    window: tuple[int, ...],
    shift: tuple[int, ...],
    device: torch.device,
) -> Tensor | None:
    """Which keys of its window a query sees, (windows, keys) or (windows, queries, keys); None where it sees all."""
    visible = None
    if mask is not None or padded != grid:
        real = torch.ones(1, *grid, dtype=torch.bool, device=device) if mask is None else mask
        visible = split_windows(_pad_and_roll(real.unsqueeze(-1), padded, shift), window).squeeze(-1)
    if any(shift):
        # The first tokens of an axis came behind the last, into the same windows: they are a region of their own.
        region = torch.zeros((), dtype=torch.long, device=device)
        for length, by in zip(padded, shift):
            region = 2 * region.unsqueeze(-1) + (torch.arange(length, device=device) >= length - by)
        region = split_windows(region[None, ..., None], window).squeeze(-1)
        together = region.unsqueeze(2) == region.unsqueeze(1)
        if visible is None:
            return together
        visible = (visible.unsqueeze(1).unflatten(0, (-1, len(together))) & together).flatten(0, 1)
    return visible


def _window_weights(
    query: Tensor, key: Tensor, bias: Tensor | None, visible: Tensor | None
) -> Float[Tensor, "windows heads queries keys"]:
    """Weights within windows, 0 for keys that are not visible."""
    scores = torch.zeros((), device=query.device) if bias is None else bias
    if visible is not None:
        visible = visible.unsqueeze(1) if visible.dim() == 2 else visible
        visible = visible.repeat(len(query) // len(visible), 1, 1).unsqueeze(1)
        scores = scores.masked_fill(~visible, torch.finfo(torch.float32).min / 2)
    weights = softmax_weights(query.transpose(1, 2), key.transpose(1, 2), scores)
    return weights if visible is None else weights.masked_fill(~visible, 0.0)


def _in_raster_order(
    values: Float[Tensor, "windows heads queries keys"],
    mask: Tensor | None,
    grid: tuple[int, ...],
    padded: tuple[int, ...],
    window: tuple[int, ...],
    shift: tuple[int, ...],
) -> AttentionWeights:
    """Weights of the tokens of the grid from those within windows, which padding fills."""
    numbers = torch.arange(1, prod(grid) + 1, device=values.device).view(1, *grid, 1)
    keys = split_windows(_pad_and_roll(numbers, padded, shift), window).squeeze(-1) - 1
    places = keys.flatten().argsort(stable=True)[-prod(grid) :]
    values = values.unflatten(0, (-1, len(keys))).transpose(1, 2).flatten(2, 3)[:, :, places]
    if mask is not None:
        values = values.masked_fill(~mask.flatten(1)[:, None, :, None], 0.0)
    words = f"{' x '.join(map(str, window))} of {' x '.join(map(str, grid))}, shift {' x '.join(map(str, shift))}"
    return AttentionWeights(values, keys.repeat_interleave(keys.shape[1], 0)[places], grid, grid, words)


def _per_axis(name: str, value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if len(values) != rank:
        raise QuintetError(f"WindowAttention(rank={rank}) needs one {name} or {rank} of them; got {values}")
    return values
