"""From the nodes of graphs to what is predicted."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core.errors import QuintetError
from ...core.regularization.dropout import Dropout

Pooling = Literal["mean", "sum", "max"]


class GraphPool(nn.Module):
    """y_g = mean, sum or largest of x_i over the nodes i of graph g; 0 of a graph without nodes.

    Args:
        pooling: "mean", "sum" or "max".
    """

    def __init__(self, pooling: Pooling = "mean") -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise QuintetError(f"pooling is one of {', '.join(get_args(Pooling))}; got {pooling!r}")
        self.pooling = pooling

    def forward(
        self, x: Float[Tensor, "nodes dim"], graph: Int[Tensor, " nodes"], graphs: int
    ) -> Float[Tensor, "graphs dim"]:
        """`graph` is the number of each node's graph, of `graphs` in all."""
        zeros = x.new_zeros(graphs, x.shape[-1])
        if self.pooling == "max":
            return zeros.index_reduce(0, graph, x, "amax", include_self=False)
        total = zeros.index_add(0, graph, x)
        if self.pooling == "sum":
            return total
        counts = x.new_zeros(graphs).index_add(0, graph, torch.ones_like(x[:, 0]))
        return total / counts.clamp(min=1).unsqueeze(1)

    def extra_repr(self) -> str:
        return self.pooling


class GraphHead(nn.Module):
    """y = W_n act(... act(W_1 [x, v])), each layer half as wide as the one before; v = act(V values), or nothing.

    Args:
        dim: width of x.
        num_outputs: of the last layer.
        halvings: layers before the last one.
        values: columns of numbers that describe a whole graph.
        activation: factory of the nonlinearity.
        dropout: rate before each layer.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        halvings: int = 2,
        values: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.values = nn.Linear(values, dim) if values else None
        width = 2 * dim if values else dim
        sizes = [width // 2**layer for layer in range(halvings + 1)] + [num_outputs]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.activation, self.dropout = activation(), Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "rows dim"], values: Float[Tensor, "rows numbers"] | None = None
    ) -> Float[Tensor, "rows outputs"]:
        if self.values is not None:
            x = torch.cat([x, self.activation(self.values(values))], -1)
        for layer in self.layers[:-1]:
            x = self.activation(layer(self.dropout(x)))
        return self.layers[-1](self.dropout(x))
