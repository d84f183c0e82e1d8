"""Message passing whose edges are gates that change from layer to layer."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...core.aside import Edges
from ...core.mixer import Mixer, mask_tokens
from ...core.norm import BatchNorm
from ...core.regularization.dropout import Dropout
from .encoders import one_row


class GatedGCN(Mixer):
    """x_i' = x_i + drop(relu(norm(A x_i + sum_j s_ij B x_j / (sum_j s_ij + 1e-6)))), with gates s_ij = sigmoid(e_ij').

    e_ij' = D x_i + E x_j + C e_ij of the edge from j to i, and the edge goes on as e_ij + drop(relu(norm(e_ij'))).
    Papers: "Residual Gated Graph ConvNets", arXiv 1711.07553; "Benchmarking Graph Neural Networks", arXiv 2003.00982.

    Args:
        dim: width of nodes and edges.
        dropout: rate on both.
        activation: factory of the nonlinearity, in place of the ReLU.
    """

    grid_ranks = frozenset({1})
    takes = frozenset({"mask", "edges"})
    adds_input = True  # it is no branch, but the residual stream itself
    reads_edges = True

    def __init__(self, dim: int, dropout: float = 0.0, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.dim = dim
        self.nodes = nn.Linear(dim, 4 * dim)  # A, B, D, E
        self.edge = nn.Linear(dim, dim)  # C
        self.node_norm, self.edge_norm = BatchNorm(dim), BatchNorm(dim)
        self.activation, self.dropout = activation(), Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "graphs longest dim"],
        mask: Bool[Tensor, "graphs longest"] | None = None,
        *,
        edges: Edges,
    ) -> tuple[Float[Tensor, "graphs longest dim"], dict[str, Any]]:
        """The nodes, and the edges for the next layer."""
        self.check_tokens(x, mask)
        x = mask_tokens(x, mask)
        sums, features = self._exchange(x.flatten(0, 1), edges)
        normed = self.node_norm(sums.view_as(x), one_row(x) if mask is None else mask)
        return mask_tokens(x + self.dropout(self.activation(normed)), mask), {"edges": Edges(edges.index, features)}

    def forward_packed(
        self, tokens: Float[Tensor, "nodes dim"], cu_seqlens: Int[Tensor, " borders"], *, edges: Edges
    ) -> tuple[Float[Tensor, "nodes dim"], dict[str, Any]]:
        """`forward`: edges stay within their graphs by themselves."""
        y, changes = self(tokens.unsqueeze(0), edges=edges)
        return y.squeeze(0), changes

    def _exchange(self, x: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """What the norm of nodes is given, and the edges afterwards."""
        own, value, target, source = self.nodes(x).chunk(4, -1)
        (j, i), features = edges
        gate = target.index_select(0, i) + source.index_select(0, j) + self.edge(features)
        share = gate.sigmoid()
        weighted = own.new_zeros(own.shape).index_add(0, i, share * value.index_select(0, j))
        total = own.new_zeros(own.shape).index_add(0, i, share)
        normed = self.edge_norm(gate, one_row(gate)) if gate.shape[0] else gate
        return own + weighted / (total + 1e-6), features + self.dropout(self.activation(normed))
