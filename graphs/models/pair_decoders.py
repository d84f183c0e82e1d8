"""From the embeddings of two nodes to how likely they are linked."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core.feedforward import Mlp


class DotProduct(nn.Module):
    """s = z_u . z_v + b: nodes are linked that look alike; b says how common links are.

    Args:
        dim: width of embeddings.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, first: Float[Tensor, "pairs dim"], second: Float[Tensor, "pairs dim"]) -> Float[Tensor, " pairs"]:
        return (first * second).sum(-1) + self.bias


class HadamardNetwork(nn.Module):
    """s = w . (z_u * z_v + feedforward(z_u * z_v)) + b, the same for (u, v) and (v, u).

    Args:
        dim: width of embeddings.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.feedforward, self.score = Mlp(dim, ratio=1.0, activation=nn.ReLU), nn.Linear(dim, 1)

    def forward(self, first: Float[Tensor, "pairs dim"], second: Float[Tensor, "pairs dim"]) -> Float[Tensor, " pairs"]:
        product = first * second
        return self.score(product + self.feedforward(product)).squeeze(-1)
