"""Softmax attention over all tokens of a grid."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ....kernels.segment_attention import segment_attention
from ...aside import listened_to, tell
from ...errors import QuintetError
from ...mixer import Mixer, mask_tokens, places_in_sequences, resolve_num_heads, unflatten_grid
from ...norm.rms_norm import RMSNorm
from ...position.relative_bias import RelativePositionBias
from ...position.rotary import RotaryPosition
from ...regularization.dropout import Dropout, dropout
from ...weights.registry import register_mixer
from ..patterns.strided import StridedPattern
from ..scores.contract import attend_by_score, weights_by_score
from ..weights import AttentionWeights, softmax_weights

VECTOR = 16  # numbers of float32 in the widest registers


def resolve_head_sizes(
    dim: int, num_heads: int | None, num_key_value_heads: int | None, head_dim: int | None
) -> tuple[int, int, int]:
    """(num_heads, num_key_value_heads, head_dim) with their defaults. Raises QuintetError where they do not fit."""
    if head_dim is None:
        num_heads = resolve_num_heads(dim, num_heads)
        head_dim = dim // num_heads
    elif num_heads is None:
        num_heads = max(1, dim // head_dim)
    num_key_value_heads = num_heads if num_key_value_heads is None else num_key_value_heads
    if num_key_value_heads < 1 or num_heads % num_key_value_heads:
        raise QuintetError(f"num_heads={num_heads} is no multiple of num_key_value_heads={num_key_value_heads}")
    return num_heads, num_key_value_heads, head_dim


def score_mask(
    mask: Bool[Tensor, "batch tokens"] | None,
    bias: Float[Tensor, "#batch #heads tokens tokens"] | None,
    causal: bool,
    pattern: Bool[Tensor, "#heads #tokens tokens"] | None = None,
) -> Tensor | None:
    """What scaled_dot_product_attention takes as `attn_mask`: token mask, causal triangle, pattern and bias in one.

    Boolean without a bias. None with neither of mask, pattern and bias: then the fast path with its own causal triangle
    is open.
    """
    allowed = None
    if mask is not None:
        # A softmax over nothing is NaN: a sample without a real token attends to everything, and is zeroed later.
        allowed = (mask | ~mask.any(dim=-1, keepdim=True))[:, None, None, :]
    given = next((part for part in (mask, pattern, bias) if part is not None), None)
    if pattern is not None or (causal and given is not None):
        identity = torch.eye(given.shape[-1], dtype=torch.bool, device=given.device)
        pairs = torch.ones_like(identity)[None] if pattern is None else pattern
        pairs = pairs & torch.ones_like(identity).tril() if causal else pairs
        # For the same reason a masked token sees itself; a real one does anyway.
        allowed = (pairs[None] if allowed is None else pairs & allowed) | identity
    if bias is None or allowed is None:
        return allowed if bias is None else bias
    return bias.masked_fill(~allowed, float("-inf"))


def attend(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch key_value_heads keys head_dim"],
    value: Float[Tensor, "batch key_value_heads keys head_dim"],
    attn_mask: Tensor | None = None,
    dropout_rate: float = 0.0,
    causal: bool = False,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """softmax(q kᵀ / sqrt(head_dim) + mask) v by torch's fused forms, each key-value head for a group of heads.

    A CPU has no fused form with dropout on the weights: there the same is written out with a cheaper `dropout`.
    """
    groups = query.shape[1] // key.shape[1]
    grouped = bool(groups > 1)  # sizes are tensors to torch.jit.trace
    written_out = dropout_rate and query.device.type == "cpu" and query.dtype.itemsize >= 4
    if not written_out or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attn_mask,
            dropout_p=dropout_rate,
            is_causal=causal,
            enable_gqa=grouped,
        )
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if causal:
        attn_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros((), dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
    query = query * query.shape[-1] ** -0.5
    if key.shape[2] >= VECTOR:
        scores = query @ key.transpose(-1, -2)
        weights = (scores if attn_mask is None else scores + attn_mask).softmax(-1)
        return dropout(weights, dropout_rate) @ value
    # torch takes rows shorter than a register number by number; along the first axis it takes whole registers.
    scores = key @ query.transpose(-1, -2)
    scores = scores if attn_mask is None else scores + attn_mask.transpose(-1, -2)
    weights = dropout(scores.movedim(2, 0).softmax(0), dropout_rate)
    return weights.permute(1, 2, 3, 0) @ value


@register_mixer("attention")
class Attention(Mixer):
    """y = softmax(q kᵀ / sqrt(head_dim) + bias) v, projected, with q, k, v linear in x and separate for each head.

    Grids are read in raster order. With fewer key-value heads than heads, each serves a group of consecutive heads.
    Without mask, bias and dropout the scores are never stored (`attend`); with a `score` they always are.
    Papers: "Attention Is All You Need", arXiv 1706.03762; groups: "GQA", arXiv 2305.13245; norms: "Scaling Vision
    Transformers to 22 Billion Parameters", arXiv 2302.05442.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32, or dim // head_dim where that is given.
        num_key_value_heads: None means `num_heads`; must divide it.
        head_dim: None means dim // num_heads.
        qkv_bias: bias of the projection to queries, keys and values, whose rows are stacked in this order.
        projection_bias: bias of the output projection.
        qk_norm: factory `Norm(head_dim)` of two norms, of queries and of keys.
        rotary: factory `Rotary(head_dim)` of a module that turns (query, key) on their grid, e.g. RotaryPosition.
        relative_bias: factory `Bias(num_heads)` of a module from a grid's size to a bias (heads, tokens, tokens).
        causal: each token attends to itself and those before it.
        dropout: rate on the attention weights.
        projection_dropout: rate on the output.
        score: factory `SomeScore(num_heads)` of what takes the place of the softmax, see `Score`.
        pattern: factory `SomePattern(num_heads)` of which tokens meet, see `Pattern`; all pairs are computed still.
    """

    title = "Softmax attention: each token takes from all others by how well they match"
    paper = "Attention Is All You Need, arXiv 1706.03762"
    takes = frozenset({"mask", "bias", "queries"})
    tells = frozenset({"weights"})
    drawn_by_networks: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "causal": {"causal": True},
        "grouped_query": {"num_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "qkv_bias": False},
        "causal_rotary": {"causal": True, "rotary": RotaryPosition, "qk_norm": RMSNorm},
        "relative_bias": {"relative_bias": partial(RelativePositionBias, grid=(12, 12))},
        "causal_relative_bias": {"relative_bias": partial(RelativePositionBias, grid=(40,)), "causal": True},
        "strided_pattern": {"pattern": partial(StridedPattern, stride=3), "causal": True},
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        projection_bias: bool = True,
        qk_norm: Callable[[int], nn.Module] | None = None,
        rotary: Callable[[int], nn.Module] | None = None,
        relative_bias: Callable[[int], nn.Module] | None = None,
        causal: bool = False,
        dropout: float = 0.0,
        projection_dropout: float = 0.0,
        score: Callable[[int], nn.Module] | None = None,
        pattern: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        sizes = resolve_head_sizes(dim, num_heads, num_key_value_heads, head_dim)
        self.num_heads, self.num_key_value_heads, self.head_dim = sizes
        self.dim, self.causal, self.dropout = dim, causal, dropout
        self.qkv = nn.Linear(dim, (self.num_heads + 2 * self.num_key_value_heads) * self.head_dim, bias=qkv_bias)
        self.q_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.rotary = rotary(self.head_dim) if rotary else None
        self.relative_bias = relative_bias(self.num_heads) if relative_bias else None
        self.proj = nn.Linear(self.num_heads * self.head_dim, dim, bias=projection_bias)
        self.projection_dropout = Dropout(projection_dropout)
        self.score = score(self.num_heads) if score else None
        self.pattern = pattern(self.num_heads) if pattern else None
        self.grid_ranks = getattr(self.relative_bias, "grid_ranks", type(self).grid_ranks)

    def forward(
        self,
        x: Float[Tensor, "batch *grid dim"],
        mask: Bool[Tensor, "batch *grid"] | None = None,
        bias: Float[Tensor, "#batch #heads tokens tokens"] | None = None,
        queries: int | None = None,
    ) -> Float[Tensor, "batch *kept dim"]:
        """Attends; `bias` is added to the scores of query (second last axis) and key (last axis) in raster order.

        With `queries`, only so many first tokens of a sequence attend, to all, and only theirs is returned.
        """
        self.check_tokens(x, mask)
        grid = key_grid = tuple(x.shape[1:-1])
        qkv = self.qkv(mask_tokens(x, mask)).unflatten(-1, (-1, self.head_dim))
        query, key, value = qkv.split((self.num_heads, self.num_key_value_heads, self.num_key_value_heads), dim=-2)
        query, key = self.q_norm(query), self.k_norm(key)
        if self.rotary is not None:
            query, key = self.rotary(query, key)
        if self.relative_bias is not None:
            relative_bias = self.relative_bias(grid).unsqueeze(0)
            bias = relative_bias if bias is None else bias + relative_bias
        flat_mask = None if mask is None else mask.flatten(1)
        pattern = self.pattern(grid, x.device) if self.pattern else None
        if self.score is None:
            bias = None if bias is None else bias.to(query.dtype)
            attn_mask, bias = score_mask(flat_mask, bias, self.causal, pattern), None
        else:
            everything = torch.ones(1, 1, prod(grid), dtype=torch.bool, device=x.device)
            attn_mask = score_mask(flat_mask, None, self.causal, everything if pattern is None else pattern)
        query, key, value = (part.flatten(1, -3).transpose(1, 2) for part in (query, key, value))
        if queries is not None:
            query, grid, mask = query[:, :, :queries], (queries,), None if mask is None else mask[:, :queries]
            if attn_mask is not None and attn_mask.shape[-2] > 1:
                attn_mask = attn_mask[..., :queries, :]
            bias = None if bias is None else bias[..., :queries, :]
        causal = self.causal and attn_mask is None
        if listened_to(self, "weights"):
            real = None if mask is None else mask.flatten(1)
            if self.score is None:
                weights = softmax_weights(query, key, attn_mask, causal, real)
            else:
                weights = weights_by_score(self.score, query, key, attn_mask, bias)
                weights = weights if real is None else weights.masked_fill(~real[:, None, :, None], 0.0)
            tell(self, "weights", AttentionWeights(weights, None, grid, key_grid))
        rate = self.dropout if self.training else 0.0
        if self.score is None:
            y = attend(query, key, value, attn_mask, rate, causal)
        else:
            y = attend_by_score(self.score, query, key, value, attn_mask, bias, rate)
        y = self.projection_dropout(self.proj(y.transpose(1, 2).flatten(2)))
        return mask_tokens(unflatten_grid(y, grid), mask)

    def forward_packed(
        self, tokens: Float[Tensor, "tokens dim"], cu_seqlens: Int[Tensor, " boundaries"], **given: Any
    ) -> Float[Tensor, "tokens dim"]:
        """Attends within each sequence; without biases and dropout by one kernel over all of them."""
        if given or self._needs_pairs():
            return super().forward_packed(tokens, cu_seqlens, **given)
        qkv = self.qkv(tokens).unflatten(-1, (-1, self.head_dim))
        query, key, value = qkv.split((self.num_heads, self.num_key_value_heads, self.num_key_value_heads), dim=-2)
        query, key = self.q_norm(query), self.k_norm(key)
        if self.rotary is not None:
            places = places_in_sequences(cu_seqlens, len(tokens))
            query, key = (part.squeeze(0) for part in self.rotary(query[None], key[None], places))
        groups = self.num_heads // self.num_key_value_heads
        if groups > 1:
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        y = segment_attention(query, key, value, cu_seqlens, causal=self.causal)
        return self.projection_dropout(self.proj(y.flatten(-2)))

    def _needs_pairs(self) -> bool:
        """Whether something other than a softmax of q kᵀ is asked of the scores, which the kernel does not store."""
        parts = (self.relative_bias, self.score, self.pattern)
        turned = self.rotary is not None and "places" not in getattr(self.rotary, "takes", ())
        dropped = self.training and self.dropout > 0
        return turned or dropped or listened_to(self, "weights") or any(part is not None for part in parts)
