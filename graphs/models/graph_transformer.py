"""Graph Transformer: attention among neighbours alone, in which edges take part and are changed.

Paper: "A Generalization of Transformer Networks to Graphs", arXiv 2012.09699.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...core.aside import Edges, changed, run, taken_within
from ...core.blocks.encoder import Encoder
from ...core.feedforward import Mlp
from ...core.mixer import Mixer, mask_tokens, resolve_num_heads
from ...core.norm import BatchNorm
from ...core.regularization.dropout import Dropout
from ...core.weights.registry import register_model
from .encoders import one_row
from .network import GraphNetwork

HIGHEST = 5.0  # scores are cut to [-5, 5] before they are raised


class NeighbourAttention(Mixer):
    """y_i = O sum_j w_ij v_j / (sum_j w_ij + 1e-6) over the edges from j to i, w_ij = exp(clamp(sum of s_ij, -5, 5)).

    s_ij = q_i k_j / sqrt(head_dim) (E e_ij), by element and head; the edge goes on as O' s_ij. Queries, keys, values
    and E have no bias. Paper: arXiv 2012.09699, equations 8 to 12.

    Args:
        dim: width of nodes and edges.
        num_heads: None means dim // 32.
        dropout: rate on both results before their last projection.
    """

    grid_ranks = frozenset({1})
    takes = frozenset({"mask", "edges"})
    reads_edges = True

    def __init__(self, dim: int, num_heads: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, resolve_num_heads(dim, num_heads)
        self.qkv, self.edge = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.proj, self.edge_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "graphs longest dim"],
        mask: Bool[Tensor, "graphs longest"] | None = None,
        *,
        edges: Edges,
    ) -> tuple[Float[Tensor, "graphs longest dim"], dict[str, Any]]:
        """The nodes, and what becomes of the edges."""
        self.check_tokens(x, mask)
        y, features = self._attend(mask_tokens(x, mask).flatten(0, 1), edges)
        y = self.proj(self.dropout(y)).view_as(x)
        return mask_tokens(y, mask), {"edges": Edges(edges.index, self.edge_proj(self.dropout(features)))}

    def forward_packed(
        self, tokens: Float[Tensor, "nodes dim"], cu_seqlens: Int[Tensor, " borders"], *, edges: Edges
    ) -> tuple[Float[Tensor, "nodes dim"], dict[str, Any]]:
        """`forward`: edges stay within their graphs by themselves."""
        y, changes = self(tokens.unsqueeze(0), edges=edges)
        return y.squeeze(0), changes

    def _attend(self, x: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        (j, i), features = edges
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        scores = query.index_select(0, i) * key.index_select(0, j) * query.shape[-1] ** -0.5
        scores = scores * self.edge(features).unflatten(-1, (self.num_heads, -1))
        weights = scores.sum(-1, keepdim=True).clamp(-HIGHEST, HIGHEST).exp()
        weighted = torch.zeros_like(value).index_add(0, i, weights * value.index_select(0, j))
        total = value.new_zeros(*value.shape[:2], 1).index_add(0, i, weights)
        return (weighted / (total + 1e-6)).flatten(1), scores.flatten(1)


class GraphTransformerLayer(nn.Module):
    """Of nodes and of edges: z = norm(x + attention(x)), y = norm(z + feedforward(z)); a block of core's `Encoder`.

    Args:
        dim: width of nodes and edges.
        mixer: factory `SomeMixer(dim)` that says what becomes of the edges.
        feedforward: factory `FeedForward(dim)`, of nodes and of edges.
        norm: factory `Norm(dim)`.
    """

    def __init__(
        self,
        dim: int,
        mixer: Callable[[int], Mixer] = NeighbourAttention,
        feedforward: Callable[[int], nn.Module] = Mlp,
        norm: Callable[[int], nn.Module] = BatchNorm,
    ) -> None:
        super().__init__()
        self.mixer = mixer(dim)
        self.norm1, self.norm2, self.feedforward = norm(dim), norm(dim), feedforward(dim)
        self.edge_norm1, self.edge_norm2, self.edge_feedforward = norm(dim), norm(dim), feedforward(dim)
        self.takes = (taken_within(self) | {"mask", "cu_seqlens", "edges"}) - {"queries"}

    def forward(
        self,
        x: Float[Tensor, "graphs longest dim"],
        mask: Bool[Tensor, "graphs longest"] | None = None,
        *,
        edges: Edges,
        **given: Any,
    ) -> tuple[Float[Tensor, "graphs longest dim"], dict[str, Any]]:
        """The nodes, and the edges for the next block."""
        given |= {"mask": mask, "edges": edges}
        y, after = changed(run(self.mixer, x, given), given)
        normed = {"mask": one_row(x) if mask is None else mask}
        z = run(self.norm1, x + y, normed)
        y = run(self.norm2, z + self.feedforward(z), normed)
        return y, {"edges": Edges(edges.index, self._edges(edges.features, after["edges"].features))}

    def _edges(self, features: Tensor, change: Tensor) -> Tensor:
        if not features.shape[0]:
            return features
        normed = {"mask": one_row(features)}
        z = run(self.edge_norm1, features + change, normed)
        return run(self.edge_norm2, z + self.edge_feedforward(z), normed)


class GraphTransformer(GraphNetwork):
    """A `GraphNetwork` of `GraphTransformerLayer`s: attention reaches the neighbours alone, and edges are changed.

    Args:
        dim: width of nodes and edges.
        depth: number of layers.
        num_heads: heads of the attention.
        dropout: rate on the results of the attention and within feed-forward layers.
        gradient_checkpointing: in training, keep only the layers' inputs and compute the rest again going back.
        **network: see `GraphNetwork`.
    """

    def __init__(
        self,
        dim: int = 64,
        depth: int = 10,
        num_heads: int = 8,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        **network: Any,
    ) -> None:
        encoder = partial(
            Encoder,
            depth=depth,
            mixer=partial(NeighbourAttention, num_heads=num_heads, dropout=dropout),
            feedforward=partial(HalfDropped, dropout=dropout),
            norm=BatchNorm,
            final_norm=False,
            gradient_checkpointing=gradient_checkpointing,
            block=GraphTransformerLayer,
        )
        super().__init__(encoder, dim, num_heads=num_heads, **network)


class HalfDropped(nn.Module):
    """y = W2 drop(relu(W1 x)), twice as wide between; nothing is dropped of the result, unlike in core's `Mlp`.

    Args:
        dim: width of x and y.
        dropout: rate.
    """

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1, self.fc2, self.dropout = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim), Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.fc2(self.dropout(self.fc1(x).relu()))


@register_model("graphs/graph_transformer")
def graph_transformer(**arguments: Any) -> GraphTransformer:
    """Graph Transformer as published for ZINC: dim 64, 10 layers of attention among neighbours, 8 heads."""
    return GraphTransformer(**arguments)
