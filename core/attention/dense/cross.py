"""Attention of the tokens of one grid to those of another."""

from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...aside import listened_to, tell
from ...errors import QuintetError
from ...mixer import pad_packed
from ...regularization.dropout import Dropout
from ..weights import AttentionWeights, softmax_weights
from .softmax import attend, resolve_head_sizes


class CrossAttention(nn.Module):
    """y = softmax(q kᵀ / sqrt(head_dim)) v, projected, with q linear in x, and k, v linear in the context.

    A contract of its own rather than a mixer: `forward(x, context, context_mask)`. Tokens and context may have grids of
    different size and rank. A sample whose whole context is masked gets zero. Paper: "Attention Is All You Need",
    arXiv 1706.03762, section 3.2.3.

    Args:
        dim: width of the tokens.
        context_dim: width of the context's tokens; None means `dim`.
        num_heads: None means dim // 32, or dim // head_dim where that is given.
        num_key_value_heads: None means `num_heads`; must divide it.
        head_dim: None means dim // num_heads.
        qkv_bias: bias of the projections to queries (`q`) and to keys and values (`kv`, stacked in this order).
        projection_bias: bias of the output projection.
        qk_norm: factory `Norm(head_dim)` of two norms, of queries and of keys.
        dropout: rate on the attention weights.
        projection_dropout: rate on the output.
    """

    takes = frozenset({"context", "context_mask"})
    tells = frozenset({"weights"})

    def __init__(
        self,
        dim: int,
        context_dim: int | None = None,
        num_heads: int | None = None,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        projection_bias: bool = True,
        qk_norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0,
        projection_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = resolve_head_sizes(dim, num_heads, num_key_value_heads, head_dim)
        self.num_heads, self.num_key_value_heads, self.head_dim = sizes
        self.dim, self.context_dim, self.dropout = dim, dim if context_dim is None else context_dim, dropout
        self.q = nn.Linear(dim, self.num_heads * self.head_dim, bias=qkv_bias)
        self.kv = nn.Linear(self.context_dim, 2 * self.num_key_value_heads * self.head_dim, bias=qkv_bias)
        self.q_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.proj = nn.Linear(self.num_heads * self.head_dim, dim, bias=projection_bias)
        self.projection_dropout = Dropout(projection_dropout)

    def forward(
        self,
        x: Float[Tensor, "batch *grid dim"],
        context: Float[Tensor, "batch *context_grid context_dim"],
        context_mask: Bool[Tensor, "batch *context_grid"] | None = None,
    ) -> Float[Tensor, "batch *grid dim"]:
        """Attends to `context`, where `context_mask` is True for its real tokens."""
        if x.shape[-1] != self.dim or context.shape[-1] != self.context_dim:
            raise QuintetError(
                f"CrossAttention(dim={self.dim}, context_dim={self.context_dim}) got tokens shaped {tuple(x.shape)} "
                f"and a context shaped {tuple(context.shape)}; channels come last"
            )
        present = attn_mask = None
        if context_mask is not None:
            context = context.masked_fill(~context_mask.unsqueeze(-1), 0.0)
            flat = context_mask.flatten(1)
            present = flat.any(dim=1).view(-1, *[1] * (x.dim() - 1))
            # A softmax over nothing is NaN: without any context all of it is attended to, and zeroed below.
            attn_mask = (flat | ~flat.any(dim=1, keepdim=True))[:, None, None, :]
        query = self.q_norm(self.q(x.flatten(1, -2)).unflatten(-1, (-1, self.head_dim)))
        key, value = self.kv(context.flatten(1, -2)).unflatten(-1, (-1, self.head_dim)).chunk(2, dim=-2)
        query, key, value = (part.transpose(1, 2) for part in (query, self.k_norm(key), value))
        if listened_to(self, "weights"):
            weights = softmax_weights(query, key, attn_mask)
            if present is not None:
                weights = weights.masked_fill(~present.view(-1, 1, 1, 1), 0.0)
            grids = tuple(x.shape[1:-1]), tuple(context.shape[1:-1])
            tell(self, "weights", AttentionWeights(weights, None, *grids))
        y = attend(
            query,
            key,
            value,
            attn_mask,
            self.dropout if self.training else 0.0,
        )
        y = self.projection_dropout(self.proj(y.transpose(1, 2).flatten(2))).view(x.shape)
        return y if present is None else y.masked_fill(~present, 0.0)

    def forward_packed(
        self,
        tokens: Float[Tensor, "tokens dim"],
        cu_seqlens: Int[Tensor, " boundaries"],
        context: Float[Tensor, "batch *context_grid context_dim"],
        context_mask: Bool[Tensor, "batch *context_grid"] | None = None,
    ) -> Float[Tensor, "tokens dim"]:
        """`forward` of sequences that stand one after another, each attending to its own sample of the context."""
        x, mask = pad_packed(tokens, cu_seqlens)
        return self(x, context, context_mask)[mask]
