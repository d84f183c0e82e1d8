"""What attention asks of a score, and attention by one."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...dropout import dropout


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


def attend_by_score(
    score: nn.Module,
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch key_value_heads keys head_dim"],
    value: Float[Tensor, "batch key_value_heads keys head_dim"],
    allowed: Bool[Tensor, "#batch #heads #queries keys"],
    bias: Float[Tensor, "#batch #heads queries keys"] | None = None,
    dropout_rate: float = 0.0,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """score(q kᵀ / sqrt(head_dim) + bias) v over allowed pairs, logits in fp32, each key-value head for a group."""
    groups, dtype = query.shape[1] // key.shape[1], torch.promote_types(query.dtype, torch.float32)
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    counts = allowed.sum(-1, keepdim=True).clamp_min(1)
    with torch.autocast(query.device.type, enabled=False):
        logits = (query.to(dtype) * query.shape[-1] ** -0.5) @ key.to(dtype).mT
        logits = logits if bias is None else logits + bias.to(dtype)
        weights = score(logits, allowed, counts).masked_fill(~allowed, 0.0)
        weights = dropout(weights, dropout_rate) if dropout_rate else weights
        return (weights @ value.to(dtype)).to(value.dtype)
