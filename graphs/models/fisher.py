"""Fisher information embedding: a node is where its neighbours pull a mixture of Gaussians.

Paper: "Fisher Information Embedding for Node and Graph Learning", arXiv 2305.07580.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core.errors import QuintetError
from ...core.norm.batch_norm import BatchNorm

SMALLEST = 1e-12  # of a norm
REGULARIZATION = 1e-2  # of the eigenvalues whose root is inverted


class _InverseRoot(torch.autograd.Function):
    """(A + r 1)^(-1/2) = V f(l) V^T of a symmetric A, f(l) = (l + r)^(-1/2).

    Its differential is V (k * V^T dA V) V^T, k_ij = (f(l_i) - f(l_j)) / (l_i - l_j) = -f_i f_j / (1 / f_i + 1 / f_j),
    which does not divide by differences of eigenvalues, as the one of V does: of a kernel's many are nearly alike.
    """

    @staticmethod
    def forward(ctx, matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
        values, vectors = torch.linalg.eigh(matrix)
        roots = (values.clamp(min=0) + REGULARIZATION).rsqrt()
        ctx.save_for_backward(roots, vectors)
        return vectors * roots @ vectors.T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
        roots, vectors = ctx.saved_tensors
        slopes = -roots.outer(roots) / (roots.reciprocal().unsqueeze(1) + roots.reciprocal())
        inner = slopes * (vectors.T @ (gradient + gradient.T) / 2 @ vectors)
        return vectors @ inner @ vectors.T


class KernelProjection(nn.Module):
    """y = |z| kappa(U z / |z|) (kappa(U U^T))^(-1/2), kappa(s) = exp((s - 1) / sigma^2), rows of U of length 1.

    The coordinates of a Gaussian kernel's feature map in the space that the anchors U span (Nystroem); the lengths of
    anchors are divided out in every call.

    Args:
        in_channels: of z.
        out_channels: number of anchors.
        sigma: width of the kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, sigma: float = 0.5) -> None:
        super().__init__()
        self.sigma = sigma
        self.anchors = nn.Parameter(F.normalize(torch.randn(out_channels, in_channels), dim=1))

    def forward(self, z: Float[Tensor, "rows channels"]) -> Float[Tensor, "rows out"]:
        anchors, length = F.normalize(self.anchors, dim=1), z.norm(dim=1, keepdim=True)
        whitening = _InverseRoot.apply(self._kappa(anchors @ anchors.T))
        return length * self._kappa(z / length.clamp(min=SMALLEST) @ anchors.T) @ whitening

    def _kappa(self, cosines: Tensor) -> Tensor:
        return ((cosines - 1) / self.sigma**2).exp()

    @torch.no_grad()
    def initialise(self, z: Float[Tensor, "rows channels"], generator: torch.Generator | None = None) -> None:
        """Anchors at the centres of spherical k-means of rows."""
        self.anchors.copy_(spherical_means(z, len(self.anchors), generator))


class LinearProjection(nn.Module):
    """y = relu(norm(W z + b)), the norm being that of a batch."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(in_channels, out_channels), BatchNorm(out_channels)

    def forward(self, z: Float[Tensor, "rows channels"]) -> Float[Tensor, "rows out"]:
        return self.norm(self.linear(z)).relu()


class _Mixture(nn.Module):
    """r_p(x) = softmax_p((w_p . x / |x| + b_p) / d), d channels of x and rows of w of length 1."""

    def __init__(self, channels: int, mixtures: int) -> None:
        super().__init__()
        if min(channels, mixtures) < 1:
            raise QuintetError(f"channels={channels}, mixtures={mixtures}; each is at least 1")
        self.means = nn.Parameter(F.normalize(torch.randn(mixtures, channels), dim=1))
        self.log_priors = nn.Parameter(torch.zeros(mixtures))

    def forward(self, x: Float[Tensor, "rows channels"]) -> Float[Tensor, "rows mixtures"]:
        logits = F.linear(F.normalize(x, dim=1), self.directions, self.log_priors)
        return (logits / x.shape[1]).softmax(1)

    @property
    def directions(self) -> Float[Tensor, "mixtures channels"]:
        return F.normalize(self.means, dim=1)

    def gathered(self, x: Tensor, group: Callable[[Tensor], Tensor]) -> Float[Tensor, "groups features"]:
        """z_p = sum_j a_jp x_j - w_p, a_p the softmax of r_p within a group; `group` sums rows of a group.

        As r is between 0 and 1, its exponential needs no maximum taken off, and sums of a group are all it takes.
        """
        weights = self(x).exp()
        sums = group((weights.unsqueeze(-1) * x.unsqueeze(1)).flatten(1)).unflatten(1, (weights.shape[1], -1))
        totals = group(weights).unsqueeze(-1).clamp(min=SMALLEST)  # 0 of a group of nobody
        return (sums / totals - self.directions).flatten(1)


class FisherInformationLayer(nn.Module):
    """y_i = projection([z_i1 .. z_iP]), z_ip = sum_j a_ijp x_j - w_p, a_ijp = softmax_j(r_p(x_j)), edges j -> i.

    r_p(x) = softmax_p((w_p . x / |x| + b_p) / d) says how much of a node belongs to each of P Gaussians of unit mean
    w_p; z_i says how far the neighbours of i move these means. With P = 1, z_i is the mean of the neighbours less w.
    A node without neighbours has z_ip = -w_p.

    Args:
        in_channels: d, of x.
        out_channels: of y.
        mixtures: P.
        projection: factory `SomeProjection(P d, out_channels)`.
        scale_by_degree: multiply y_i by log(1 + number of edges that lead to i).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mixtures: int = 8,
        projection: Callable[[int, int], nn.Module] = KernelProjection,
        scale_by_degree: bool = False,
    ) -> None:
        super().__init__()
        self.mixture, self.scale_by_degree = _Mixture(in_channels, mixtures), scale_by_degree
        self.projection = projection(mixtures * in_channels, out_channels)

    def moves(
        self, x: Float[Tensor, "nodes channels"], edge_index: Int[Tensor, "2 edges"]
    ) -> Float[Tensor, "nodes features"]:
        """[z_i1 .. z_iP] of every node."""
        adjacency = self._adjacency(x, edge_index)
        return self.mixture.gathered(x, lambda rows: torch.sparse.mm(adjacency, rows))

    def forward(
        self, x: Float[Tensor, "nodes channels"], edge_index: Int[Tensor, "2 edges"]
    ) -> Float[Tensor, "nodes out"]:
        y = self.projection(self.moves(x, edge_index))
        if not self.scale_by_degree:
            return y
        return y * torch.bincount(edge_index[1], minlength=len(x)).to(x.dtype).log1p().unsqueeze(1)

    @torch.no_grad()
    def initialise(
        self,
        x: Float[Tensor, "nodes channels"],
        edge_index: Int[Tensor, "2 edges"],
        generator: torch.Generator | None = None,
    ) -> None:
        """Without labels: means and anchors at the centres of spherical k-means, of neighbours and of their moves."""
        self.mixture.means.copy_(spherical_means(x[edge_index[0]], len(self.mixture.means), generator))
        if hasattr(self.projection, "initialise"):
            self.projection.initialise(self.moves(x, edge_index), generator)

    @staticmethod
    def _adjacency(x: Tensor, edge_index: Tensor) -> Tensor:
        """(target, source); an edge that comes twice counts twice."""
        ones = torch.ones(edge_index.shape[1], dtype=x.dtype, device=x.device)
        return torch.sparse_coo_tensor(edge_index.flip(0), ones, (len(x), len(x)), check_invariants=True)


class FisherInformationPooling(nn.Module):
    """y_g = projection([z_g1 .. z_gP]) of a graph g, z_gp = sum_i softmax_i(r_p(x_i)) x_i - w_p over its nodes i.

    Args:
        in_channels: of x.
        out_channels: of y.
        mixtures: P, see FisherInformationLayer.
        projection: factory `SomeProjection(P in_channels, out_channels)`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mixtures: int = 8,
        projection: Callable[[int, int], nn.Module] = KernelProjection,
    ) -> None:
        super().__init__()
        self.mixture = _Mixture(in_channels, mixtures)
        self.projection = projection(mixtures * in_channels, out_channels)

    def moves(
        self, x: Float[Tensor, "nodes channels"], batch: Int[Tensor, " nodes"], graphs: int
    ) -> Float[Tensor, "graphs features"]:
        """[z_g1 .. z_gP] of every graph."""
        return self.mixture.gathered(x, lambda rows: rows.new_zeros(graphs, rows.shape[1]).index_add(0, batch, rows))

    def forward(
        self, x: Float[Tensor, "nodes channels"], batch: Int[Tensor, " nodes"], graphs: int
    ) -> Float[Tensor, "graphs out"]:
        """`batch` says of each node whose it is, of so many graphs."""
        return self.projection(self.moves(x, batch, graphs))

    @torch.no_grad()
    def initialise(
        self,
        x: Float[Tensor, "nodes channels"],
        batch: Int[Tensor, " nodes"],
        graphs: int,
        generator: torch.Generator | None = None,
    ) -> None:
        """Without labels: means and anchors at the centres of spherical k-means, of nodes and of their moves."""
        self.mixture.means.copy_(spherical_means(x, len(self.mixture.means), generator))
        if hasattr(self.projection, "initialise"):
            self.projection.initialise(self.moves(x, batch, graphs), generator)


@torch.no_grad()
def spherical_means(
    x: Float[Tensor, "rows channels"], clusters: int, generator: torch.Generator | None = None, turns: int = 30
) -> Float[Tensor, "clusters channels"]:
    """Unit vectors m_c that make the sum of max_c m_c . x / |x| over rows large: k-means by cosines.

    A cluster that loses all its rows begins anew at the row that is farthest from its own. It ends early once no row
    changes. Raises QuintetError for fewer rows than clusters.
    """
    if len(x) < clusters:
        raise QuintetError(f"{clusters} clusters of {len(x)} rows; take at most as many clusters as rows")
    x = F.normalize(x, dim=1)
    centres, before = x[torch.randperm(len(x), generator=generator)[:clusters].to(x.device)], None
    for _ in range(turns):
        cosines, nearest = (x @ centres.T).max(1)
        if before is not None and torch.equal(nearest, before):
            break
        before = nearest
        counts = torch.bincount(nearest, minlength=clusters)
        centres = F.normalize(torch.zeros_like(centres).index_add(0, nearest, x), dim=1)
        empty = (counts == 0).nonzero().squeeze(1)
        centres[empty] = x[cosines.argsort()[: len(empty)]]
    return centres
