"""Softmax attention among the nodes of each graph, padded or packed, and its bias by distance."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...core.aside import listened_to, tell
from ...core.attention.dense.softmax import attend, score_mask
from ...core.attention.weights import AttentionWeights, softmax_weights
from ...core.mixer import Mixer, mask_tokens, resolve_num_heads
from ...kernels.segment_attention import segment_attention
from .padded_attention import padded_attention
from .padding import Padding, padding_of


def padded_is_faster(counts: Sequence[int] | Int[Tensor, " graphs"]) -> bool:
    """Whether graphs with so many nodes are attended faster padded than packed: where padding adds little.

    Measured by benchmarks/graphs/segments_or_padding.py.
    """
    counts = torch.as_tensor(counts, dtype=torch.float64)
    return bool(len(counts) * counts.max() ** 2 <= PADDED_SHARE * counts.square().sum() + PADDED_SCORES)


PADDED_SHARE, PADDED_SCORES = 3.0, 100_000  # scores computed over scores needed, and those that cost nothing anyway


class GraphAttention(Mixer):
    """y = softmax(q kᵀ / sqrt(head_dim) + bias) v, projected, over the nodes of the graph of each node.

    As `quintet.core.attention.Attention`, with its weights, for packed graphs: queries, keys and values are computed of
    real nodes alone, and attend padded or packed, whichever is faster. Paper: "Attention Is All You Need", arXiv
    1706.03762.

    Args:
        dim: width of the nodes.
        num_heads: None means dim // 32.
        dropout: rate on the attention weights.
    """

    title = "Softmax attention among the nodes of each graph"
    paper = "Attention Is All You Need, arXiv 1706.03762"
    grid_ranks = frozenset({1})
    takes = frozenset({"mask", "bias", "padding"})
    tells = frozenset({"weights"})

    def __init__(self, dim: int, num_heads: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.num_heads, self.dropout = dim, resolve_num_heads(dim, num_heads), dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "graphs longest dim"],
        mask: Bool[Tensor, "graphs longest"] | None = None,
        bias: Float[Tensor, "#graphs #heads longest longest"] | None = None,
    ) -> Float[Tensor, "graphs longest dim"]:
        """Attends among the real nodes of each row; `bias` is added to the scores of query and key."""
        self.check_tokens(x, mask)
        y = self._attend(self.qkv(mask_tokens(x, mask)), score_mask(mask, bias, False), mask)
        return mask_tokens(self.proj(y), mask)

    def forward_packed(
        self,
        tokens: Float[Tensor, "nodes dim"],
        cu_seqlens: Int[Tensor, " borders"],
        bias: Float[Tensor, "#graphs #heads longest longest"] | None = None,
        padding: Padding | None = None,
    ) -> Float[Tensor, "nodes dim"]:
        """`forward` of graphs that stand one after another: padded where `padding` or a bias is given."""
        qkv = self.qkv(tokens)
        dropped = self.training and self.dropout > 0
        if padding is None and bias is None and not dropped and not listened_to(self, "weights"):
            query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(1)
            return self.proj(segment_attention(query, key, value, cu_seqlens).flatten(1))
        padding = padding or padding_of(cu_seqlens, len(tokens), tokens.dtype)
        if written_out(qkv) and not listened_to(self, "weights"):
            return self.proj(padded_attention(qkv, padding, self.num_heads, bias, self.dropout if dropped else 0.0))
        hidden = padding.hidden if bias is None else padding.hidden + bias
        return self.proj(padding.pack(self._attend(padding.pad(qkv), hidden, padding.mask)))

    def _attend(self, qkv: Tensor, attn_mask: Tensor | None, mask: Tensor | None) -> Tensor:
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if listened_to(self, "weights"):
            weights = softmax_weights(query, key, attn_mask, real=mask)
            tell(self, "weights", AttentionWeights(weights, None, *[tuple(qkv.shape[1:2])] * 2))
        y = attend(query, key, value, attn_mask, self.dropout if self.training else 0.0)
        return y.transpose(1, 2).flatten(2)


def written_out(qkv: Tensor) -> bool:
    """Whether attention of padded graphs is computed by `padded_attention`."""
    wide = qkv.dtype.itemsize >= 4 and not torch.is_autocast_enabled("cpu")
    return qkv.device.type == "cpu" and wide and not torch.compiler.is_compiling()


class DistanceBias(nn.Module):
    """b_h(i, j) = T[d(i, j), h]: a learned number for each distance, in edges along the shortest path, and head.

    Paper: "Do Transformers Really Perform Bad for Graph Representation?", arXiv 2106.05234, equation 6.

    Args:
        longest: distance up to which each has a number of its own; longest + 1 stands for no path.
        num_heads: of the attention.
    """

    def __init__(self, longest: int, num_heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(longest + 2, num_heads)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(
        self, distances: Int[Tensor, "pairs 1"], borders: Int[Tensor, " borders"], longest: int
    ) -> Float[Tensor, "graphs heads longest longest"]:
        """The bias of each padded graph; `distances` are those of all pairs of a graph, row by row, graph by graph."""
        counts = borders.diff()
        real = torch.arange(longest, device=counts.device) < counts.unsqueeze(1)
        pairs = real.unsqueeze(2) & real.unsqueeze(1)
        padded = torch.zeros(pairs.shape, dtype=torch.long, device=counts.device)
        padded = padded.masked_scatter(pairs, distances.squeeze(1).long())
        return self.table(padded).permute(0, 3, 1, 2)
