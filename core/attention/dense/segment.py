"""Attention within the segments of packed sequences or graphs."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ....kernels.segment_attention import segment_attention
from ...aside import listened_to, tell
from ...errors import QuintetError
from ...mixer import pad_packed, resolve_num_heads
from ...regularization.dropout import Dropout
from ..weights import AttentionWeights, softmax_weights


class SegmentAttention(nn.Module):
    """y = softmax(q kᵀ / sqrt(head_dim) + b) v, projected, over the tokens of the segment of each token.

    Segments (graphs of a batch, sequences without padding) stand one after another in one tensor (tokens, dim), and
    `cu_seqlens` (segments + 1,) holds 0 and where each ends; a segment may be empty. b is what `edge_bias` says of an
    edge from the key to the query, 0 where there is none. Not a mixer: it has no grid. Papers: "Attention Is All You
    Need", arXiv 1706.03762; edges: "Do Transformers Really Perform Bad for Graph Representation?", arXiv 2106.05234.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        causal: each token attends to itself and those before it in its segment.
        qk_norm: factory `Norm(head_dim)` of two norms, of queries and of keys.
        qkv_bias: bias of the projection to queries, keys and values, whose rows are stacked in this order.
        projection_bias: bias of the output projection.
        projection_dropout: rate on the output.
    """

    takes = frozenset({"edge_index", "edge_bias"})
    tells = frozenset({"weights"})

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        causal: bool = False,
        qk_norm: Callable[[int], nn.Module] | None = None,
        qkv_bias: bool = True,
        projection_bias: bool = True,
        projection_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads, self.causal = dim, resolve_num_heads(dim, num_heads), causal
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = qk_norm(dim // self.num_heads) if qk_norm else nn.Identity()
        self.k_norm = qk_norm(dim // self.num_heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=projection_bias)
        self.projection_dropout = Dropout(projection_dropout)

    def forward(
        self,
        x: Float[Tensor, "tokens dim"],
        cu_seqlens: Int[Tensor, " boundaries"],
        edge_index: Int[Tensor, "2 edges"] | None = None,
        edge_bias: Float[Tensor, "edges heads"] | None = None,
    ) -> Float[Tensor, "tokens dim"]:
        """Attends; `edge_bias` is added to the scores of the edges in `edge_index`, source (key) over target (query).

        Edges that are there twice add up. Raises QuintetError for tokens of another width, and ValueError for
        boundaries and edges that do not fit the tokens.
        """
        if x.dim() != 2 or x.shape[-1] != self.dim:
            raise QuintetError(f"SegmentAttention takes packed tokens (tokens, {self.dim}); got {tuple(x.shape)}")
        if edge_bias is not None and edge_bias.shape[-1] != self.num_heads:
            raise QuintetError(
                f"SegmentAttention has {self.num_heads} heads, but edge_bias, shaped {tuple(edge_bias.shape)}, has "
                f"{edge_bias.shape[-1]}; one number for each head of an edge"
            )
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        query, key = self.q_norm(query), self.k_norm(key)
        if listened_to(self, "weights"):
            tell(self, "weights", self._weights(query, key, cu_seqlens, edge_index, edge_bias))
        y = segment_attention(query, key, value, cu_seqlens, edge_index, edge_bias, causal=self.causal)
        return self.projection_dropout(self.proj(y.flatten(-2)))

    def forward_packed(
        self, tokens: Float[Tensor, "tokens dim"], cu_seqlens: Int[Tensor, " boundaries"], **edges: Tensor
    ) -> Float[Tensor, "tokens dim"]:
        """`forward`: this layer takes packed tokens alone."""
        return self(tokens, cu_seqlens, **edges)

    def _weights(
        self, query: Tensor, key: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None, edge_bias: Tensor | None
    ) -> AttentionWeights:
        """Of each token, those of the tokens of its segment, as one sample."""
        count, heads = query.shape[:2]
        numbers, real = pad_packed(torch.arange(count, device=query.device).unsqueeze(-1), cu_seqlens)
        keys = numbers.squeeze(-1).masked_fill(~real, -1)
        segment = torch.repeat_interleave(cu_seqlens.diff(), output_size=count)
        scores = query.new_zeros(count, keys.shape[1], heads)
        if edge_bias is not None:
            source, target = edge_index
            place = source - cu_seqlens[:-1][segment][source]
            scores = scores.index_put((target, place), edge_bias.to(scores.dtype), accumulate=True)
        hidden = ~real[segment]
        if self.causal:
            hidden = hidden | (keys[segment] > torch.arange(count, device=query.device)[:, None])
        scores = scores.masked_fill(hidden.unsqueeze(2), float("-inf")).transpose(1, 2)
        of_segment = key[keys[segment].clamp(min=0)].transpose(1, 2)
        weights = softmax_weights(query.unsqueeze(2), of_segment, scores.unsqueeze(2)).squeeze(2)
        seen = keys[segment].masked_fill(hidden, -1)
        return AttentionWeights(weights.transpose(0, 1).unsqueeze(0), seen, (count,), (count,))
