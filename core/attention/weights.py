"""What attention says aside as "weights": how much each token takes of each token it looks at."""

from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class AttentionWeights(NamedTuple):
    """y_i = sum over n of values[i, n] v[keys[i, n]] in each head, i and keys counted in raster order.

    A softmax's weights of a token add up to 1, or to 0 where it is masked or sees nothing; other scores', to anything.
    Dropout is not in them.

    `values` holds them for the tokens `seen` from each. `keys` says which these are, -1 for none; None where they are
    all tokens of `key_grid`, in raster order. `grid` is that of the tokens that look; where only the first of a
    sequence did, it has their number. `window` says in words what is seen, "" where it is everything.
    """

    values: Float[Tensor, "batch heads queries seen"]
    keys: Int[Tensor, "queries seen"] | None
    grid: tuple[int, ...]
    key_grid: tuple[int, ...]
    window: str = ""

    def dense(self) -> Float[Tensor, "batch heads queries keys"]:
        """The weights over all tokens, 0 for those not seen."""
        if self.keys is None:
            return self.values
        kept = self.values.masked_fill(self.keys < 0, 0.0)
        dense = kept.new_zeros(*kept.shape[:-1], prod(self.key_grid))
        return dense.scatter_add(-1, self.keys.clamp(min=0).expand_as(kept), kept)

    def of(self, query: int) -> Float[Tensor, "batch heads *key_grid"]:
        """The weights of one token, laid out on the grid it looks at."""
        keys = None if self.keys is None else self.keys[query : query + 1]
        one = self._replace(values=self.values[:, :, query : query + 1], keys=keys)
        return one.dense().squeeze(2).unflatten(-1, self.key_grid)

    def seen(self, query: int) -> Bool[Tensor, "*key_grid"]:
        """Which tokens one token can see, masked ones or not."""
        seen = torch.full((prod(self.key_grid),), self.keys is None, device=self.values.device)
        if self.keys is not None:
            seen[self.keys[query][self.keys[query] >= 0]] = True
        return seen.view(self.key_grid)


def softmax_weights(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch key_heads keys head_dim"],
    attn_mask: Tensor | None = None,
    causal: bool = False,
    real: Bool[Tensor, "batch queries"] | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """softmax(q kᵀ / sqrt(head_dim) + mask) in at least fp32, each key head for a group of heads; 0 where not `real`.

    `attn_mask` is as scaled_dot_product_attention takes it.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query.to(wide) @ key.to(wide).transpose(-1, -2) * query.shape[-1] ** -0.5
    if causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        boolean = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if boolean else scores + attn_mask
    weights = scores.softmax(-1)
    return weights if real is None else weights.masked_fill(~real[:, None, :, None], 0.0)
