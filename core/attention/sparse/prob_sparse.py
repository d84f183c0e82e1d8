"""Attention in which only the queries that single out some key attend; all others take the mean of the values."""

import math
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...aside import listened_to, tell
from ...errors import QuintetError
from ...mixer import Mixer, mix_real_tokens, resolve_num_heads
from ...regularization.dropout import Dropout
from ...weights.registry import register_mixer
from ..weights import AttentionWeights

# Up to this many tokens all scores by one product of matrices cost less than gathering the keys of a sample.
DENSE = 1024
# Steps of the additive recurrence whose points fill the square most evenly: 1 / p and 1 / p^2 with p^3 = p + 1.
STEPS = (0.7548776662466927, 0.5698402909980532)


def spread_keys(
    queries: int, draws: int, keys: Int[Tensor, " batch"], device: torch.device
) -> Int[Tensor, "batch queries draws"]:
    """Keys to measure each query by, the same at every call: floor(keys * frac(i / p + j / p^2)), i a query, j a draw.

    Every query's keys are spread evenly over all, and lie elsewhere than its neighbours'. Roberts, "The Unreasonable
    Effectiveness of Quasirandom Sequences", 2018.
    """
    query = torch.arange(queries, device=device, dtype=torch.float64).unsqueeze(-1) * STEPS[0]
    places = (query + torch.arange(draws, device=device, dtype=torch.float64) * STEPS[1]).frac()
    return (places * keys.view(-1, 1, 1)).long()


@register_mixer("prob_sparse")
class ProbSparseAttention(Mixer):
    """y_i = softmax(q_i kᵀ / sqrt(head_dim)) v for the u active queries of each head, mean(v) for others; projected.

    Active are the queries of the largest m_i = max_j(s_ij) - sum_j(s_ij) / n, with s_ij = q_i k_j over a sample of keys
    j, of n tokens; u and the size of the sample are factor * ceil(ln n), at most n. Paper: "Informer: Beyond Efficient
    Transformer for Long Sequence Time-Series Forecasting", arXiv 2012.07436.

    Keys are drawn anew at every call in training, as published, and by a fixed even sequence in evaluation, where the
    published code draws too, so that here a forecast repeats. Masked tokens are left out before anything is counted or
    drawn: n is the number of real tokens of a sample, and its keys are drawn among them. So they, and padding, change
    nothing. Which queries are active is decided by rank, so that rounding may change one: the mixer is not continuous.

    `mask_future` is the form of decoders: active queries attend to themselves and what came before, the others get the
    running sum of values (a sum, as published, not a mean: their weights add up to more than 1). It is no causal mixer,
    as all tokens decide which queries are active.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        factor: of u and of the sample of keys.
        mask_future: see above.
        interleave_heads: read the output of the heads (heads, tokens, head_dim) as (tokens, dim) without exchanging its
            axes, as the published decoder does; its weights need it.
        projection_dropout: rate on the output.

    Raises QuintetError for a factor below 1.
    """

    title = "ProbSparse attention: only the queries that stand out attend, the others take the mean"
    paper = "Informer, arXiv 2012.07436"
    subquadratic = True
    continuous = False
    tells = frozenset({"weights"})
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "mask_future": {"mask_future": True},
        "interleaved": {"mask_future": True, "interleave_heads": True, "num_heads": 4},
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        factor: int = 5,
        mask_future: bool = False,
        interleave_heads: bool = False,
        projection_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if factor < 1:
            raise QuintetError(f"factor={factor} would leave no query active; give at least 1")
        self.dim, self.num_heads, self.factor = dim, resolve_num_heads(dim, num_heads), factor
        self.mask_future, self.interleave_heads = mask_future, interleave_heads
        if interleave_heads:
            self.tells = frozenset()  # a token then takes of other tokens' heads: no weights say how
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.projection_dropout = Dropout(projection_dropout)

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        """Attends over the tokens in raster order."""
        self.check_tokens(x, mask)
        real = None if mask is None else mask.flatten(1).sum(1)
        told: list[Tensor] | None = [] if listened_to(self, "weights") else None
        y = mix_real_tokens(partial(self._mix, real=real, told=told), x, mask)
        if told is not None:
            tell(self, "weights", self._weights(told[0], mask, tuple(x.shape[1:-1])))
        return y

    def tail(self, x: Float[Tensor, "batch time dim"], count: int) -> Float[Tensor, "batch count dim"]:
        """The last `count` tokens of `forward(x)` alone, without computing what only the others need."""
        self.check_tokens(x)
        return self._mix(x, tail=count)

    def _mix(
        self,
        x: Float[Tensor, "batch time dim"],
        real: Int[Tensor, " batch"] | None = None,
        tail: int | None = None,
        told: list[Tensor] | None = None,
    ) -> Float[Tensor, "batch steps dim"]:
        """`forward` of a sequence whose first `real` tokens are real; its last `tail` tokens alone.

        `told` gets the weights: the output is linear in the values, so they are what becomes of the identity.
        """
        length, heads, first = x.shape[1], self.num_heads, 0
        count = length if tail is None else tail
        if self.interleave_heads:
            first = (length - count) * heads // length  # where heads lie one after the other, the last tokens need some
        weight, bias = self.qkv.weight, self.qkv.bias
        if first:
            weight = weight.unflatten(0, (3, heads, -1))[:, first:].flatten(0, 2)
            bias = bias.unflatten(0, (3, heads, -1))[:, first:].flatten()
        qkv = F.linear(x, weight, bias).unflatten(-1, (3, heads - first, -1))
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
        width = value.shape[-1]
        if told is not None:
            identity = torch.eye(length, device=x.device, dtype=value.dtype).expand(*value.shape[:2], -1, -1)
            value = torch.cat([value, identity], dim=-1)
        if real is None and self._kept(length) == length:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.mask_future)
        else:
            mixed = self._attend(query, key, value, real)
        if told is not None:
            told.append(mixed[..., width:])
            mixed = mixed[..., :width]
        if not self.interleave_heads:
            joined = mixed[:, :, length - count :].transpose(1, 2).flatten(2)
        elif real is None:
            start = (length - count) * heads - first * length
            joined = mixed.flatten(1, 2)[:, start:].unflatten(1, (count, heads)).flatten(2)
        else:
            # Token i takes entries i * heads, ... of (heads, real tokens), whose rows differ from sample to sample.
            entries, real = torch.arange(heads * length, device=x.device), real.clamp(min=1).unsqueeze(-1)
            places = (entries // real * length + entries % real).clamp(max=heads * length - 1)
            joined = mixed.flatten(1, 2).gather(1, places.unsqueeze(-1).expand(-1, -1, mixed.shape[-1]))
            joined = joined.unflatten(1, (length, heads)).flatten(2)
        return self.projection_dropout(self.proj(joined))

    def _weights(
        self, values: Float[Tensor, "batch heads time time"], mask: Tensor | None, grid: tuple[int, ...]
    ) -> AttentionWeights:
        """The weights of tokens as they stand, from those of the real tokens first."""
        if mask is not None:
            flat = mask.flatten(1)
            place = (~flat).to(torch.uint8).argsort(dim=1, stable=True).argsort(dim=1)[:, None]
            rows = place.unsqueeze(-1).expand_as(values)
            values = values.gather(2, rows).gather(3, place.unsqueeze(2).expand_as(values))
            values = values.masked_fill(~flat[:, None, :, None] | ~flat[:, None, None, :], 0.0)
        return AttentionWeights(values, None, grid, grid)

    def _kept(self, tokens: int) -> int:
        """Queries that are active, and keys in a sample."""
        return min(self.factor * math.ceil(math.log(tokens)), tokens)

    def _attend(
        self,
        query: Float[Tensor, "batch heads time head_dim"],
        key: Float[Tensor, "batch heads time head_dim"],
        value: Float[Tensor, "batch heads time width"],
        real: Int[Tensor, " batch"] | None,
    ) -> Float[Tensor, "batch heads time width"]:
        """Attention of the active queries, put in place of what all others get."""
        length = query.shape[2]
        places = torch.arange(length, device=query.device)
        allowed = kept = None
        if real is not None:
            # Without any real token every one counts: a softmax over nothing is NaN, and the output is zeroed later.
            real = torch.where(real > 0, real, length)
            allowed = (places < real.unsqueeze(-1))[:, None, None]
            value = value.masked_fill(~allowed.transpose(-1, -2), 0.0)
            kept = (self.factor * real.double().log().ceil().long()).minimum(real)
        active = self._active(query.detach(), key.detach(), real, kept)
        if self.mask_future:
            lazy = value.cumsum(2)
            before = places <= active.unsqueeze(-1)
            allowed = before if allowed is None else before & allowed
        else:
            total = value.sum(2, keepdim=True)
            lazy = (total / (length if real is None else real.view(-1, 1, 1, 1))).to(value.dtype).expand_as(value)
        rows = active.unsqueeze(-1).expand(-1, -1, -1, value.shape[-1])
        mixed = F.scaled_dot_product_attention(
            query.gather(2, rows[..., : query.shape[-1]]), key, value, attn_mask=allowed
        )
        if kept is not None:
            surplus = torch.arange(active.shape[-1], device=query.device) >= kept.unsqueeze(-1)
            mixed = torch.where(surplus[:, None, :, None], lazy.gather(2, rows), mixed)
        return lazy.scatter(2, rows, mixed)

    @torch.no_grad()
    def _active(
        self,
        query: Float[Tensor, "batch heads time head_dim"],
        key: Float[Tensor, "batch heads time head_dim"],
        real: Int[Tensor, " batch"] | None,
        kept: Int[Tensor, " batch"] | None,
    ) -> Int[Tensor, "batch heads active"]:
        """The active queries, most active first; of them, and of the keys drawn, a sample has its first `kept`."""
        length, device = query.shape[2], query.device
        # The number grows with the tokens: no sample has more of them than one without masked tokens.
        most = max(1, self._kept(length))
        keys = torch.full((1,), length, device=device) if real is None else real
        if not self.training:
            drawn = spread_keys(length, most, keys, device)
        elif real is None:
            drawn = torch.randint(length, (length, most), device=device).unsqueeze(0)
        else:
            drawn = (torch.rand(length, most, device=device, dtype=torch.float64) * keys.view(-1, 1, 1)).long()
        scores = sampled_scores(query, key, drawn).float()
        if kept is None:
            measure = scores.amax(-1) - scores.sum(-1) / length
        else:
            surplus = (torch.arange(most, device=device) >= kept.unsqueeze(-1))[:, None, None]
            highest = scores.masked_fill(surplus, -math.inf).amax(-1)
            measure = highest - scores.masked_fill(surplus, 0.0).sum(-1) / real.view(-1, 1, 1)
            absent = torch.arange(length, device=device) >= real.unsqueeze(-1)
            measure = measure.masked_fill(absent.unsqueeze(1), -math.inf)
        return measure.topk(most, dim=-1).indices

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, factor={self.factor}, mask_future={self.mask_future}"


def sampled_scores(
    query: Float[Tensor, "batch heads time head_dim"],
    key: Float[Tensor, "batch heads time head_dim"],
    drawn: Int[Tensor, "#batch time draws"],
) -> Float[Tensor, "batch heads time draws"]:
    """s_ij = q_i k_d(i, j): products of each query with the keys drawn for it.

    Few tokens are multiplied with each other and what was drawn is picked out; of many, one draw at a time is gathered,
    which takes memory and time in proportion to tokens * draws.
    """
    batch, heads, length, width = query.shape
    if length <= DENSE:
        scores = query @ key.transpose(-1, -2)
        return scores.gather(-1, drawn.unsqueeze(1).expand(batch, heads, -1, -1))
    columns = drawn.expand(batch, -1, -1).unbind(-1)
    picked = (key.gather(2, column[:, None, :, None].expand(-1, heads, -1, width)) for column in columns)
    return torch.stack([(query * keys).sum(-1) for keys in picked], dim=-1)
