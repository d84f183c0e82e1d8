"""The contract of a mixer, the part of a block that moves information between tokens, and what all mixers share.

Tokens keep the shape of their grid, channels last: a sequence is (batch, time, dim), an image (batch, height, width,
dim), a volume (batch, depth, height, width, dim), padded graph nodes (batch, nodes, dim) with a mask.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from .errors import QuintetError


class Mixer(nn.Module):
    """Moves information between the tokens of a grid; shape in, same shape out.

    A subclass is constructible as `SomeMixer(dim)`, sets `dim`, calls `check_tokens` first, and keeps four promises
    that tests/core/test_mixers.py holds every registered mixer to: what stands at masked tokens, even NaN, changes
    nothing; the output at masked tokens is zero; samples of a batch do not see each other; the input is not written to.
    A mechanism that only knows sequences flattens the grid itself with `flatten_grid` and says {1, 2, 3}.

    Attributes (a class attribute is the default, an instance whose arguments change it sets its own):
        title: what it is in plain words, in one line.
        paper: title and arXiv id.
        grid_ranks: numbers of grid axes the mixer takes.
        causal: a token sees only tokens before it in raster order, and itself.
        subquadratic: cost grows slower than the square of the number of tokens.
        streaming: has `scan` and `step`, which carry a state along a sequence.
        padding_invariant: masked tokens appended at the end of the first grid axis change nothing at real tokens.
        continuous: close inputs give close outputs; not so where tokens are chosen by rank, which rounding may turn.
        takes: what `forward` wants beside the tokens, by name; see `quintet.core.aside`. With "queries", a number of
            first tokens of a sequence, it returns no others.
        tells: what it can say aside: "weights" (`AttentionWeights`), "loss".
        drawn_by_networks: image networks draw its linear layers as their own (`initialise_linear_layers`), as the
            authors of softmax attention do; other mechanisms may rely on how they start.
        plans_grid: an exported graph takes the size of grid alone that it was traced with.
        variants: constructor arguments of further configurations the property tests run.
    """

    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    grid_ranks: frozenset[int] = frozenset({1, 2, 3})
    causal: bool = False
    subquadratic: ClassVar[bool] = False
    streaming: bool = False
    padding_invariant: bool = True
    continuous: bool = True
    takes: frozenset[str] = frozenset({"mask"})
    tells: frozenset[str] = frozenset()
    drawn_by_networks: ClassVar[bool] = False
    plans_grid: ClassVar[bool] = False
    variants: ClassVar[dict[str, dict[str, Any]]] = {}

    dim: int

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        """Mixes the tokens of `x`; `mask` is True where a token is real."""
        raise NotImplementedError

    def forward_packed(
        self, tokens: Float[Tensor, "tokens dim"], cu_seqlens: Int[Tensor, " boundaries"], **given: Any
    ) -> Any:
        """`forward` of sequences or graphs that stand one after another, `cu_seqlens` holding 0 and where each ends.

        Equal to that of the padded tokens, which is also how it is computed unless a mixer has a way of its own.
        """
        if not self.padding_invariant:
            raise QuintetError(
                f"{type(self).__name__} depends on how much its sequences are padded: it takes no packed ones"
            )
        return call_padded(self, tokens, cu_seqlens, **given)

    def scan(
        self, x: Float[Tensor, "batch time dim"], state: Any = None
    ) -> tuple[Float[Tensor, "batch time dim"], Any]:
        """Mixes a stretch of a sequence given the state before it; returns the output and the state after it (fp32)."""
        raise QuintetError(f"this {type(self).__name__} carries no state along a sequence (streaming is False)")

    def step(self, x: Float[Tensor, "batch dim"], state: Any = None) -> tuple[Float[Tensor, "batch dim"], Any]:
        """`scan` for one token."""
        y, state = self.scan(x.unsqueeze(1), state)
        return y.squeeze(1), state

    def check_tokens(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Raises QuintetError where the rank of the grid, the width of the tokens or the shape of the mask is wrong."""
        rank, name = x.dim() - 2, type(self).__name__
        if rank not in self.grid_ranks:
            layouts = " or ".join(
                f"(batch, {', '.join(('depth', 'height', 'width')[-r:] if r > 1 else ('time',))}, {self.dim})"
                for r in sorted(self.grid_ranks)
            )
            raise QuintetError(f"{name} takes tokens shaped {layouts}; got {tuple(x.shape)}")
        if x.shape[-1] != self.dim:
            raise QuintetError(
                f"{name}(dim={self.dim}) got tokens of width {x.shape[-1]}, shape {tuple(x.shape)}; channels come last"
            )
        if mask is not None and mask.shape != x.shape[:-1]:
            raise QuintetError(f"{name} got a mask shaped {tuple(mask.shape)}; these tokens need {tuple(x.shape[:-1])}")


class SequenceMixer(Mixer):
    """A mixer that goes along a sequence with a state: a subclass writes `recur`, and has `forward`, `scan` and `step`.

    Grids are read in raster order.

    Attributes:
        passes_over: masked tokens are passed over, as if they were not there: `recur` is never given a mask. Without,
            they keep their place in time, and `recur` sees to it that they leave the state as it is.
        resets: `recur` takes `cu_seqlens`, and begins each packed sequence with no state. Without, they are padded.
    """

    causal = True
    subquadratic: ClassVar[bool] = True
    streaming = True
    passes_over: ClassVar[bool] = False
    resets: ClassVar[bool] = False

    def recur(
        self, x: Float[Tensor, "batch time dim"], state: Any, mask: Bool[Tensor, "batch time"] | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], Any]:
        """Output of a stretch of a sequence and the state after it; `state` is None at the start, masked x is zero."""
        raise NotImplementedError

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        self.check_tokens(x, mask)
        if self.passes_over:
            return mix_real_tokens(lambda tokens: self.recur(tokens, None)[0], x, mask)
        tokens, flat_mask = flatten_grid(mask_tokens(x, mask), mask)
        y, _ = self.recur(tokens, None, flat_mask)
        return mask_tokens(unflatten_grid(y, x.shape[1:-1]), mask)

    def forward_packed(
        self, tokens: Float[Tensor, "tokens dim"], cu_seqlens: Int[Tensor, " boundaries"], **given: Any
    ) -> Float[Tensor, "tokens dim"]:
        if not self.resets or not len(tokens):
            return super().forward_packed(tokens, cu_seqlens, **given)
        x = tokens.unsqueeze(0)
        self.check_tokens(x)
        return self.recur(x, None, cu_seqlens=cu_seqlens, **given)[0].squeeze(0)

    def scan(
        self, x: Float[Tensor, "batch time dim"], state: Any = None
    ) -> tuple[Float[Tensor, "batch time dim"], Any]:
        self.check_tokens(x)
        return self.recur(x, state)

    def split_width(self, what: str, **factor: float) -> int:
        """Width of all heads of `what`, e.g. `split_width("keys", key_factor=0.5)`: `dim` times the factor, rounded.

        Raises QuintetError where `num_heads` heads cannot share it evenly.
        """
        ((name, value),) = factor.items()
        width = round(self.dim * value)
        if width < 1 or width % self.num_heads:
            raise QuintetError(
                f"{type(self).__name__}(dim={self.dim}, {name}={value}) has {what} of width {width}, which cannot be "
                f"split into num_heads={self.num_heads}"
            )
        return width


def mask_tokens(
    x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None
) -> Float[Tensor, "batch *grid dim"]:
    """Zero at masked tokens, whatever stands there; `x` itself where there is no mask."""
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)


def flatten_grid(
    x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
) -> tuple[Float[Tensor, "batch tokens dim"], Bool[Tensor, "batch tokens"] | None]:
    """The tokens, and their mask, in raster order (the last grid axis runs fastest)."""
    return x.flatten(1, -2), None if mask is None else mask.flatten(1)


def unflatten_grid(
    x: Float[Tensor, "batch tokens dim"], grid: torch.Size | tuple[int, ...]
) -> Float[Tensor, "batch *grid dim"]:
    """Undoes `flatten_grid`."""
    return x.unflatten(1, tuple(grid))


def pack_real_tokens(
    mix: Callable[[Tensor, Tensor | None], Tensor],
    x: Float[Tensor, "batch *grid dim"],
    mask: Bool[Tensor, "batch *grid"] | None,
) -> Float[Tensor, "batch *grid dim"]:
    """`mix` over the tokens in raster order, the real ones of each sample in front; zero at the masked.

    `mix` maps sequences (batch, tokens, dim) and their mask, True at the first tokens of each, to sequences; it need
    not be causal. Layers that pool or cut a sequence by position then see the same places wherever masked tokens stood.
    """
    tokens, flat_mask = flatten_grid(mask_tokens(x, mask), mask)
    if flat_mask is None:
        return unflatten_grid(mix(tokens, None), x.shape[1:-1])
    order = (~flat_mask).to(torch.uint8).argsort(dim=1, stable=True)
    packed = tokens.gather(1, order.unsqueeze(-1).expand_as(tokens))
    y = mix(packed, flat_mask.gather(1, order))
    y = y.gather(1, order.argsort(dim=1).unsqueeze(-1).expand_as(tokens))
    return mask_tokens(unflatten_grid(y, x.shape[1:-1]), mask)


def mix_real_tokens(
    recur: Callable[[Tensor], Tensor], x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None
) -> Float[Tensor, "batch *grid dim"]:
    """`recur` over the tokens in raster order as if the masked ones were not there; zero at those.

    `recur` is causal and maps sequences (batch, tokens, dim) to such: it is given the real tokens of each sample in
    order and the masked after them, where they change nothing. What is not causal wants `pack_real_tokens`.
    """
    return pack_real_tokens(lambda tokens, _: recur(tokens), x, mask)


def pad_packed(
    tokens: Shaped[Tensor, "tokens dim"], cu_seqlens: Int[Tensor, " boundaries"]
) -> tuple[Shaped[Tensor, "batch time dim"], Bool[Tensor, "batch time"]]:
    """Packed sequences as a padded batch and its mask; `x[mask]` undoes it."""
    lengths = cu_seqlens.diff()
    mask = torch.arange(int(lengths.max()), device=tokens.device) < lengths.unsqueeze(-1)
    x = tokens.new_zeros(*mask.shape, tokens.shape[-1])
    return x.masked_scatter(mask.unsqueeze(-1), tokens), mask


def places_in_sequences(cu_seqlens: Int[Tensor, " boundaries"], tokens: int) -> Int[Tensor, " tokens"]:
    """How many tokens of its own sequence stand before each packed token."""
    starts = cu_seqlens[:-1].repeat_interleave(cu_seqlens.diff(), output_size=tokens)
    return torch.arange(tokens, device=cu_seqlens.device) - starts


def first_tokens(cu_seqlens: Int[Tensor, " boundaries"], tokens: int) -> Bool[Tensor, " tokens"]:
    """Which packed tokens are the first of their sequence."""
    return places_in_sequences(cu_seqlens, tokens) == 0


def set_apart(
    x: Float[Tensor, "batch tokens dim"], cu_seqlens: Int[Tensor, " boundaries"], gap: int
) -> tuple[Float[Tensor, "batch spread dim"], Int[Tensor, " tokens"]]:
    """Packed sequences with `gap` zeros before each, empty ones too, and the places of their tokens there."""
    lengths, tokens = cu_seqlens.diff(), x.shape[1]
    gaps = (torch.arange(len(lengths), device=x.device) + 1) * gap
    places = torch.arange(tokens, device=x.device) + gaps.repeat_interleave(lengths, output_size=tokens)
    spread = x.new_zeros(x.shape[0], tokens + gap * len(lengths), x.shape[2])
    return spread.index_copy(1, places, x), places


def forget_at_borders(
    log_decay: Float[Tensor, "batch time *channels"], cu_seqlens: Int[Tensor, " boundaries"] | None
) -> Float[Tensor, "batch time *channels"]:
    """The log decay, -inf at first tokens: packed sequences begin with nothing left of those before them."""
    if cu_seqlens is None:
        return log_decay
    first = first_tokens(cu_seqlens, log_decay.shape[1])
    return log_decay.masked_fill(first.view(-1, *[1] * (log_decay.dim() - 2)), float("-inf"))


def call_padded(
    layer: Callable[..., Any], tokens: Float[Tensor, "tokens dim"], cu_seqlens: Int[Tensor, " boundaries"], **given: Any
) -> Any:
    """`layer(x, mask=mask, **given)` of the padded tokens, packed again; changes it returns stay padded."""
    x, mask = pad_packed(tokens, cu_seqlens)
    result = layer(x, mask=mask, **given)
    return (result[0][mask], result[1]) if isinstance(result, tuple) else result[mask]


def resolve_num_heads(dim: int, num_heads: int | None) -> int:
    """The number of heads: as given, or dim // 32 (at least 1), lowered to the next divisor of `dim`.

    Raises QuintetError where the given number does not divide `dim`.
    """
    if num_heads is None:
        return next(heads for heads in range(max(1, dim // 32), 0, -1) if dim % heads == 0)
    if num_heads < 1 or dim % num_heads:
        divisors = [heads for heads in range(1, dim + 1) if dim % heads == 0]
        choices = sorted(sorted(divisors, key=lambda heads: abs(heads - num_heads))[:3])
        raise QuintetError(
            f"dim={dim} cannot be split into num_heads={num_heads}; nearest that can: {', '.join(map(str, choices))}"
        )
    return num_heads
