"""Message passing layers of PyG as mixers of nodes with edges, each known by a word. Importing this imports PyG."""

import inspect
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINEConv, MessagePassing, PNAConv, SuperGATConv

from ...core.aside import Edges, tell
from ...core.errors import QuintetError, nearest
from ...core.mixer import Mixer, mask_tokens, resolve_num_heads
from .gated_gcn import GatedGCN
from .messages import relu_messages


class Convolution(Mixer):
    """y = convolution(x, edges): one of PyG's layers of message passing as a mixer of nodes.

    Args:
        dim: width of nodes and edges.
        convolution: factory `SomeConv(dim)` of a layer called with (x, edge_index), and edge_attr if it takes that.
    """

    grid_ranks = frozenset({1})
    takes = frozenset({"mask", "edges"})

    def __init__(self, dim: int, convolution: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.dim = dim
        self.convolution = convolution(dim)
        self.reads_edges = "edge_attr" in inspect.signature(self.convolution.forward).parameters

    def forward(
        self,
        x: Float[Tensor, "graphs longest dim"],
        mask: Bool[Tensor, "graphs longest"] | None = None,
        *,
        edges: Edges,
    ) -> Float[Tensor, "graphs longest dim"]:
        """Edges count over the flattened nodes."""
        self.check_tokens(x, mask)
        return mask_tokens(self._convolve(mask_tokens(x, mask).flatten(0, 1), edges).view_as(x), mask)

    def forward_packed(
        self, tokens: Float[Tensor, "nodes dim"], cu_seqlens: Int[Tensor, " borders"], *, edges: Edges
    ) -> Float[Tensor, "nodes dim"]:
        """`forward`: edges stay within their graphs by themselves."""
        return self._convolve(tokens, edges)

    def _convolve(self, x: Tensor, edges: Edges) -> Tensor:
        given = {"edge_attr": edges.features} if self.reads_edges else {}
        return self.convolution(x, edges.index, **given)


class GINE(Convolution):
    """PyG's GINEConv, whose messages are summed by `relu_messages` where nothing but speed differs.

    Paper: "Strategies for Pre-training Graph Neural Networks", arXiv 1905.12265.

    Args:
        dim: width of nodes and edges.
        activation: factory of the nonlinearity of its perceptron.
    """

    def __init__(self, dim: int, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__(dim, partial(gine, activation=activation))

    def _convolve(self, x: Tensor, edges: Edges) -> Tensor:
        if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            return super()._convolve(x, edges)
        own = 1.0 + self.convolution.eps.item()
        return self.convolution.nn(relu_messages(x, edges.features, edges.index, own))


class SuperGAT(Convolution):
    """PyG's SuperGATConv, which in training says aside how well its attention tells edges from pairs without one.

    The loss is the binary cross-entropy of the logits of edges and of sampled pairs, times `weight`. Paper: "How to
    Find Your Friendly Neighborhood: Graph Attention Design with Self-Supervision", arXiv 2204.04879.

    Args:
        dim: width of the nodes.
        num_heads: None means dim // 32.
        weight: factor of the loss.
    """

    tells = frozenset({"loss"})

    def __init__(self, dim: int, num_heads: int | None = None, weight: float = 1.0) -> None:
        heads = resolve_num_heads(dim, num_heads)
        super().__init__(dim, lambda width: SuperGATConv(width, width // heads, heads, is_undirected=True))
        self.weight = weight

    def _convolve(self, x: Tensor, edges: Edges) -> Tensor:
        y = super()._convolve(x, edges)
        if self.training:
            tell(self, "loss", self.weight * self.convolution.get_attention_loss())
        return y


def gine(dim: int, activation: Callable[[], nn.Module] = nn.ReLU) -> GINEConv:
    """W2 act(W1 (x_i + sum_j relu(x_j + e_ij))), arXiv 1905.12265."""
    return GINEConv(nn.Sequential(nn.Linear(dim, dim), activation(), nn.Linear(dim, dim)))


def gcn(dim: int) -> GCNConv:
    """W sum_j x_j / sqrt(degree_i degree_j), arXiv 1609.02907."""
    return GCNConv(dim, dim)


def gat(dim: int, num_heads: int | None = None) -> GATConv:
    """Attention among neighbours, additive, with edges, arXiv 1710.10903."""
    heads = resolve_num_heads(dim, num_heads)
    return GATConv(dim, dim // heads, heads, edge_dim=dim)


def pna(dim: int) -> PNAConv:
    """Mean, largest and sum of messages, scaled by a learned typical degree, arXiv 2004.05718."""
    aggregators, scalers = ["mean", "max", "std"], ["identity", "amplification", "attenuation"]
    return PNAConv(dim, dim, aggregators, scalers, torch.tensor([0, 0, 1]), edge_dim=dim, train_norm=True)


LOCAL: dict[str, Callable[[int], Mixer]] = {
    "gatedgcn": GatedGCN,
    "gine": GINE,
    "gcn": partial(Convolution, convolution=gcn),
    "gat": partial(Convolution, convolution=gat),
    "supergat": SuperGAT,
    "pna": partial(Convolution, convolution=pna),
}


def local_factory(local: str | Callable[[int], nn.Module]) -> Callable[[int], Mixer]:
    """The factory of a local layer: by its word, as given, or of one of PyG's layers, which becomes a mixer.

    Raises QuintetError for a word that none has.
    """
    if isinstance(local, str):
        if local not in LOCAL:
            raise QuintetError(f"no local layer is called '{local}'; {nearest(local, LOCAL)}, or none")
        return LOCAL[local]

    def build(dim: int) -> Mixer:
        layer = local(dim)
        return layer if not isinstance(layer, MessagePassing) else Convolution(dim, lambda _: layer)

    return build
