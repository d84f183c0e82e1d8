"""How likely two nodes are linked, from the neighbours they share: what a link predictor must beat."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

TOGETHER = 65_536  # pairs whose shared neighbours are looked up at once


@dataclass
class NeighbourhoodScores:
    """Scores of pairs (u, v) from their neighbours N(u) and N(v), directions, loops and repeated edges left out.

    Common neighbours: |N(u) & N(v)|. Adamic-Adar: the sum over w in N(u) & N(v) of 1 / log |N(w)| ("Friends and
    neighbors on the Web", Social Networks 25, 2003). A neighbour of both has at least these two, so log |N(w)| > 0.

    Args:
        edge_index: the edges that are known.
        nodes: how many there are.
    """

    edge_index: Int[Tensor, "2 edges"]
    nodes: int

    def __post_init__(self) -> None:
        ends = self.edge_index.cpu().numpy()
        ends = ends[:, ends[0] != ends[1]]
        rows, columns = np.concatenate([ends, ends[::-1]], 1)
        links = csr_array((np.ones(len(rows)), (rows, columns)), (self.nodes, self.nodes))
        links.data[:] = 1  # repeated edges were summed
        self._links = links
        degrees = np.asarray(links.sum(1)).ravel()
        # Nobody shares a neighbour of degree 1.
        self._rarity = np.divide(1.0, np.log(degrees.clip(2)), out=np.zeros(self.nodes), where=degrees > 1)

    def common_neighbours(self, pairs: Int[Tensor, "2 pairs"]) -> Float[Tensor, " pairs"]:
        """How many neighbours the nodes of each pair share."""
        return self._summed(pairs, np.ones(self.nodes))

    def adamic_adar(self, pairs: Int[Tensor, "2 pairs"]) -> Float[Tensor, " pairs"]:
        """The same, where a neighbour counts the less the more neighbours it has."""
        return self._summed(pairs, self._rarity)

    def _summed(self, pairs: Tensor, weights: np.ndarray) -> Tensor:
        first, second = pairs.cpu().numpy()
        parts = [
            (self._links[first[start : start + TOGETHER]] * self._links[second[start : start + TOGETHER]]) @ weights
            for start in range(0, len(first), TOGETHER)
        ]
        return torch.from_numpy(np.concatenate([np.zeros(0), *parts])).to(pairs.device)
