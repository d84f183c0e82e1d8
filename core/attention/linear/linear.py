"""Attention whose cost is linear in the number of tokens, by a feature map in place of the softmax."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...errors import QuintetError
from ...mixer import Mixer, flatten_grid, mask_tokens, resolve_num_heads, unflatten_grid
from ...regularization.dropout import Dropout
from ...weights.registry import register_mixer


def elu_plus_one(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """elu(x) + 1: positive everywhere, exponential below zero and linear above."""
    return F.elu(x) + 1.0


class LinearAttentionState(NamedTuple):
    """What causal linear attention remembers of a sequence: sum of f(k) vᵀ, and sum of f(k), both fp32."""

    key_value: Float[Tensor, "batch heads features head_dim"]
    normalizer: Float[Tensor, "batch heads features"]


def causal_linear_attention(
    query: Float[Tensor, "batch heads time features"],
    key: Float[Tensor, "batch heads time features"],
    value: Float[Tensor, "batch heads time head_dim"],
    state: LinearAttentionState | None,
    chunk_size: int,
) -> tuple[Float[Tensor, "batch heads time head_dim"], Float[Tensor, "batch heads time 1"], LinearAttentionState]:
    """Numerators q_i S_i and denominators q_i z_i with S_i, z_i summed over j <= i, and the state at the end.

    Chunks attend within themselves by a masked product and to all before them by the state at their start, which is a
    cumulative sum over chunks: products of matrices only, no loop over time.
    """
    time = query.shape[-2]
    chunk = min(chunk_size, time)
    padded = (F.pad(part, (0, 0, 0, -time % chunk)).unflatten(-2, (-1, chunk)) for part in (query, key, value))
    query, key, value = padded
    updates = key.mT @ value
    normalizers = key.sum(dim=-2)
    if state is None:
        state = LinearAttentionState(torch.zeros_like(updates[:, :, 0]), torch.zeros_like(normalizers[:, :, 0]))
    key_values = torch.cat([state.key_value.unsqueeze(2), updates], dim=2).cumsum(dim=2)
    normalizers = torch.cat([state.normalizer.unsqueeze(2), normalizers], dim=2).cumsum(dim=2)
    scores = (query @ key.mT).tril()
    numerator = scores @ value + query @ key_values[:, :, :-1]
    denominator = scores.sum(dim=-1, keepdim=True) + query @ normalizers[:, :, :-1].unsqueeze(-1)
    state = LinearAttentionState(key_values[:, :, -1], normalizers[:, :, -1])
    return numerator.flatten(2, 3)[:, :, :time], denominator.flatten(2, 3)[:, :, :time], state


@register_mixer("linear")
class LinearAttention(Mixer):
    """y_i = f(q_i) S / f(q_i) z, projected, with S = sum_j f(k_j) v_jᵀ, z = sum_j f(k_j), over all j or all j <= i.

    Grids are read in raster order. Causal attention runs in parallel over chunks, and carries the state (S, z) from one
    stretch of a sequence to the next (`scan`, `step`). Features, sums and quotient are in fp32, also under autocast.
    Paper: "Transformers are RNNs", arXiv 2006.16236.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        feature_map: f, from (..., head_dim) to (..., features), nowhere negative.
        qkv_bias: bias of the projection to queries, keys and values, whose rows are stacked in this order.
        projection_bias: bias of the output projection.
        causal: each token attends to itself and those before it.
        projection_dropout: rate on the output.
        chunk_size: tokens in a chunk of causal attention; a matter of speed only.
        eps: smallest denominator.
    """

    subquadratic: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "causal": {"causal": True, "chunk_size": 8},
        "relu": {"feature_map": F.relu, "num_heads": 4, "qkv_bias": False},
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        feature_map: Callable[[Tensor], Tensor] = elu_plus_one,
        qkv_bias: bool = True,
        projection_bias: bool = True,
        causal: bool = False,
        projection_dropout: float = 0.0,
        chunk_size: int = 64,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, resolve_num_heads(dim, num_heads)
        self.feature_map, self.chunk_size, self.eps = feature_map, chunk_size, eps
        self.causal = self.streaming = causal
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=projection_bias)
        self.projection_dropout = Dropout(projection_dropout)

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        self.check_tokens(x, mask)
        y, _ = self._attend(*flatten_grid(mask_tokens(x, mask), mask), None)
        return mask_tokens(unflatten_grid(y, x.shape[1:-1]), mask)

    def scan(
        self, x: Float[Tensor, "batch time dim"], state: LinearAttentionState | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], LinearAttentionState]:
        if not self.causal:
            raise QuintetError("LinearAttention carries a state along a sequence only with causal=True")
        self.check_tokens(x)
        return self._attend(x, None, state)

    def _attend(
        self, x: Tensor, mask: Tensor | None, state: LinearAttentionState | None
    ) -> tuple[Tensor, LinearAttentionState | None]:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3)
        with torch.autocast(x.device.type, enabled=False):
            query, key, value = qkv.to(torch.promote_types(x.dtype, torch.float32)).unbind(2)
            query, key = self.feature_map(query), self.feature_map(key)
            if mask is not None:
                key = key.masked_fill(~mask[:, None, :, None], 0.0)
            if self.causal:
                numerator, denominator, state = causal_linear_attention(query, key, value, state, self.chunk_size)
            else:
                numerator = query @ (key.mT @ value)
                denominator = query @ key.sum(dim=-2).unsqueeze(-1)
            y = (numerator / denominator.clamp_min(self.eps)).to(qkv.dtype)
        return self.projection_dropout(self.proj(y.transpose(1, 2).flatten(2))), state
