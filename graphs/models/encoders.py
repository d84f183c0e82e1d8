"""What encodings of nodes become before they stand beside the embedding of a node."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core.norm import BatchNorm


class KernelEncoder(nn.Module):
    """y = W norm(encoding) + b, with batch normalization: random walks, heat kernels and electrostatic potentials.

    Paper: "Recipe for a General, Powerful, Scalable Graph Transformer", arXiv 2205.12454.

    Args:
        width: of the encoding.
        dim: of the result.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.norm = BatchNorm(width)
        self.projection = nn.Linear(width, dim)

    def forward(
        self, encoding: Float[Tensor, "nodes width"], edge_index: Int[Tensor, "2 edges"] | None = None
    ) -> Float[Tensor, "nodes dim"]:
        return self.projection(self.norm(encoding, one_row(encoding)))


class LaplacianDeepSet(nn.Module):
    """y_i = sum over frequencies k of phi(v_ik, lambda_k), phi two layers of a perceptron, each with a ReLU.

    v are eigenvectors and lambda eigenvalues of a graph's Laplacian, NaN where a graph has fewer: these are left out.
    An eigenvector's sign means nothing: in training one is drawn for each frequency of a batch. Paper: arXiv
    2205.12454, after "Rethinking Graph Transformers with Spectral Attention", arXiv 2106.03893.

    Args:
        width: number of frequencies.
        dim: of the result.
    """

    reads_values = True

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(2, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim), nn.ReLU())

    def forward(
        self,
        vectors: Float[Tensor, "nodes width"],
        edge_index: Int[Tensor, "2 edges"] | None = None,
        values: Float[Tensor, "nodes width"] | None = None,
    ) -> Float[Tensor, "nodes dim"]:
        if self.training:
            vectors = vectors * (2.0 * torch.randint(2, vectors.shape[1:], device=vectors.device) - 1.0)
        pairs = torch.stack([vectors, values], -1)
        empty = pairs.isnan().any(-1, keepdim=True)
        return self.phi(pairs.masked_fill(empty, 0.0)).masked_fill(empty, 0.0).sum(1)


class NeighbourSum(nn.Module):
    """y_i = W2 relu(norm(W1 (x_i + sum over neighbours j of x_j))), the layer of a graph isomorphism network.

    Paper: "How Powerful are Graph Neural Networks?", arXiv 1810.00826.

    Args:
        dim: width of x.
        hidden_dim: width between.
        out_dim: width of y.
    """

    def __init__(self, dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = (
            nn.Linear(dim, hidden_dim),
            BatchNorm(hidden_dim),
            nn.Linear(hidden_dim, out_dim),
        )

    def forward(
        self, x: Float[Tensor, "nodes *rest dim"], edge_index: Int[Tensor, "2 edges"]
    ) -> Float[Tensor, "nodes *rest out_dim"]:
        source, target = edge_index
        hidden = self.fc1(x.index_add(0, target, x.index_select(0, source)))
        return self.fc2(self.norm(hidden, one_row(hidden)).relu())


class SignNet(nn.Module):
    """y_i = rho(phi(v)_i + phi(-v)_i), phi of each eigenvector a graph isomorphism network, rho a perceptron of all.

    The same for either sign of an eigenvector. NaN, where a graph has fewer, is left out. Paper: "Sign and Basis
    Invariant Networks for Spectral Graph Representation Learning", arXiv 2202.13013.

    Args:
        width: number of frequencies.
        dim: of the result.
        hidden_dim: of phi and rho.
        depth: layers of phi.
    """

    reads_values = False

    def __init__(self, width: int, dim: int, hidden_dim: int = 32, depth: int = 2) -> None:
        super().__init__()
        sizes = [1, *[hidden_dim] * depth]
        self.phi = nn.ModuleList(NeighbourSum(before, hidden_dim, hidden_dim) for before in sizes[:-1])
        self.rho = nn.Sequential(nn.Linear(width * hidden_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, dim))

    def forward(
        self, vectors: Float[Tensor, "nodes width"], edge_index: Int[Tensor, "2 edges"]
    ) -> Float[Tensor, "nodes dim"]:
        empty = vectors.isnan().unsqueeze(-1)
        known = vectors.unsqueeze(-1).masked_fill(empty, 0.0)
        # Both signs at once: with batch norms they must share their statistics to be told apart by nothing.
        both = torch.cat([known, -known], 1)
        for layer in self.phi:
            both = layer(both, edge_index)
        plus, minus = both.chunk(2, 1)
        return self.rho((plus + minus).masked_fill(empty, 0.0).flatten(1))


def one_row(x: Tensor) -> Tensor | None:
    """A mask under which a single row is normalized in training too, with variance 0; None for more rows."""
    return x.new_ones(x.shape[:-1], dtype=torch.bool) if x.numel() == x.shape[-1] else None
