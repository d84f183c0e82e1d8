"""From the embeddings of two nodes to how likely they are linked."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core.feedforward import Mlp
from .neighbourhood_scores import NeighbourhoodScores


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


class SharedNeighbours(nn.Module):
    """s = w . [log(1 + c), log(1 + a)], of common neighbours c and Adamic and Adar's a; w begins at ones.

    What embeddings blur, whether two nodes share a certain rare neighbour, these say exactly. The labelling trick of
    "Labeling Trick", arXiv 2010.16103, and "Neural Common Neighbor", arXiv 2302.00890, say more of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, near: NeighbourhoodScores, pairs: Int[Tensor, "2 pairs"]) -> Float[Tensor, " pairs"]:
        both = torch.stack([near.common_neighbours(pairs), near.adamic_adar(pairs)], 1)
        return both.log1p().to(self.weights) @ self.weights
