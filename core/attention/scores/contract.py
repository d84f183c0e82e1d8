"""What attention asks of a score, and attention by one."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...regularization.dropout import dropout


class Score(nn.Module):
    """`score(logits, allowed, counts) -> weights`, constructible as `SomeScore(num_heads)`.

    `logits` are q kᵀ / sqrt(head_dim) plus biases, in float32 or float64; `allowed` is True where a query may see a
    key, and `counts` is how many keys it may see, at least 1: padding must change nothing, which a number of columns
    would. Weights need not sum to one. Attention itself clears those of pairs that are not allowed; a score that sums
    over keys must leave these out of its sums.
    """

    def forward(
        self,
        logits: Float[Tensor, "batch heads queries keys"],
        allowed: Bool[Tensor, "#batch #heads #queries keys"],
        counts: Int[Tensor, "#batch #heads #queries 1"],
    ) -> Float[Tensor, "batch heads queries keys"]:
        raise NotImplementedError


def weights_by_score(
    score: nn.Module,
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch key_value_heads keys head_dim"],
    allowed: Bool[Tensor, "#batch #heads #queries keys"],
    bias: Float[Tensor, "#batch #heads queries keys"] | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """score(q kᵀ / sqrt(head_dim) + bias) in at least fp32, each key head for a group of heads; 0 where not allowed."""
    groups, dtype = query.shape[1] // key.shape[1], torch.promote_types(query.dtype, torch.float32)
    key = key.repeat_interleave(groups, 1) if groups > 1 else key
    counts = allowed.sum(-1, keepdim=True).clamp_min(1)
    with torch.autocast(query.device.type, enabled=False):
        logits = (query.to(dtype) * query.shape[-1] ** -0.5) @ key.to(dtype).mT
        logits = logits if bias is None else logits + bias.to(dtype)
        return score(logits, allowed, counts).masked_fill(~allowed, 0.0)


def attend_by_score(
    score: nn.Module,
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch key_value_heads keys head_dim"],
    value: Float[Tensor, "batch key_value_heads keys head_dim"],
    allowed: Bool[Tensor, "#batch #heads #queries keys"],
    bias: Float[Tensor, "#batch #heads queries keys"] | None = None,
    dropout_rate: float = 0.0,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """score(q kᵀ / sqrt(head_dim) + bias) v over allowed pairs, in fp32, each key-value head for a group of heads."""
    groups = query.shape[1] // value.shape[1]
    weights = weights_by_score(score, query, key, allowed, bias)
    weights = dropout(weights, dropout_rate) if dropout_rate else weights
    wide = value.repeat_interleave(groups, 1) if groups > 1 else value
    with torch.autocast(query.device.type, enabled=False):
        return (weights @ wide.to(weights.dtype)).to(value.dtype)
