"""GraphGPS: message passing among neighbours and attention among all nodes of a graph, side by side in each layer.

Paper: "Recipe for a General, Powerful, Scalable Graph Transformer", arXiv 2205.12454.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.aside import changed, run, taken_within
from ...core.blocks.encoder import Encoder
from ...core.errors import QuintetError
from ...core.feedforward import Mlp
from ...core.mixer import Mixer
from ...core.norm import BatchNorm
from ...core.regularization.dropout import Dropout
from ...core.weights.layout import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from .attention import GraphAttention
from .encoders import one_row
from .network import GraphNetwork

FEEDFORWARD = partial(Mlp, ratio=2.0, activation=nn.ReLU)
Local = str | Callable[[int], nn.Module]


class GPSLayer(nn.Module):
    """z = norm(x + drop(local(x))) + norm(x + drop(global(x))), y = norm(z + feedforward(z)).

    A block of core's `Encoder`, for padded graphs with a mask and for packed ones. Where the local layer changes the
    edges, it returns them for the next block.

    Args:
        dim: width of the nodes.
        mixer: factory `SomeMixer(dim)` among all nodes of a graph; None leaves it out.
        local: a word of `convolutions.LOCAL`, "none", or factory `SomeLayer(dim)` of a mixer that takes edges or of
            one of PyG's layers.
        feedforward: factory `FeedForward(dim)`.
        norm: factory `Norm(dim)`.
        dropout: rate on both branches.

    Raises QuintetError for an unknown word, without either, and for a mixer that does not take graphs.
    """

    def __init__(
        self,
        dim: int,
        mixer: Callable[[int], nn.Module] | None = GraphAttention,
        local: Local = "gine",
        feedforward: Callable[[int], nn.Module] = FEEDFORWARD,
        norm: Callable[[int], nn.Module] = BatchNorm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.local = local_layer(local, dim)
        self.mixer = None if mixer is None else mixer(dim)
        check_graph_mixer(self.mixer)
        if self.local is None and self.mixer is None:
            raise QuintetError("a GPS layer needs a local layer or a mixer among all nodes; got neither")
        self.norm1 = None if self.local is None else norm(dim)
        self.norm2 = None if self.mixer is None else norm(dim)
        self.feedforward, self.norm3 = feedforward(dim), norm(dim)
        self.dropout = Dropout(dropout)
        self.takes = (taken_within(self) | {"mask", "cu_seqlens"}) - {"queries"}

    def forward(
        self, x: Float[Tensor, "graphs longest dim"], mask: Bool[Tensor, "graphs longest"] | None = None, **given: Any
    ) -> Any:
        """The nodes; with them the edges where they changed."""
        given["mask"] = mask
        normed = given | {"mask": one_row(x)} if mask is None else given
        parts, changes = [], {}
        for layer, norm in ((self.local, self.norm1), (self.mixer, self.norm2)):
            if layer is None:
                continue
            y, own = changed(run(layer, x, given), {})
            changes |= own
            y = y if getattr(layer, "adds_input", False) else x + self.dropout(y)
            parts.append(run(norm, y, normed))
        z = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        y = run(self.norm3, z + run(self.feedforward, z, given), normed)
        return (y, changes) if changes else y


def local_layer(local: Local, dim: int) -> nn.Module | None:
    """The local layer of a word, or as its factory makes it; None for "none"."""
    if local == "none":
        return None
    from .convolutions import local_factory  # imports PyG

    return local_factory(local)(dim)


def check_graph_mixer(mixer: nn.Module | None) -> None:
    """Raises QuintetError where a mixer takes grids alone, or sees how much a graph is padded."""
    if not isinstance(mixer, Mixer):
        return
    name = type(mixer).__name__
    if not mixer.padding_invariant:
        raise QuintetError(f"this {name} depends on padding: a graph would change beside larger ones; give another")
    if 1 not in mixer.grid_ranks:
        ranks = " or ".join(map(str, sorted(mixer.grid_ranks)))
        raise QuintetError(
            f"this {name} takes tokens on {ranks} grid axes; the nodes of a graph are a row: give it rank=1, or another"
        )


def no_mixer(dim: int) -> None:
    """In place of a mixer among all nodes: there is none."""


class GPS(GraphNetwork):
    """A `GraphNetwork` of `GPSLayer`s.

    Args:
        dim: width of nodes and edges.
        depth: number of layers.
        num_heads: heads of the attention. For another mixer set its own.
        local: a word ("gine", "gatedgcn", "gcn", "gat", "supergat", "pna", "none") or a factory, see `GPSLayer`.
        mixer: factory `SomeMixer(dim)` among all nodes of a graph, in place of softmax attention.
        global_mixer: with false there is no mixer among all nodes.
        dropout: rate on both branches and in the feed-forward layer.
        attention_dropout: rate on the weights of the attention.
        activation: factory of the nonlinearity of feed-forward layers, local layers and head.
        gradient_checkpointing: in training, keep only the layers' inputs and compute the rest again going back.
        **network: see `GraphNetwork`.

    Raises QuintetError for an unknown word, and what `GraphNetwork` raises.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (pretrained.GRAPHGPS, pretrained.PYG_GPS)

    def __init__(
        self,
        dim: int = 64,
        depth: int = 4,
        num_heads: int = 4,
        local: Local = "gine",
        mixer: Callable[[int], Mixer] | None = None,
        global_mixer: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gradient_checkpointing: bool = False,
        **network: Any,
    ) -> None:
        if mixer is not None and not global_mixer:
            raise QuintetError("global_mixer=false leaves out the mixer that is given; give one of the two")
        attention = partial(GraphAttention, num_heads=num_heads, dropout=attention_dropout)
        encoder = partial(
            Encoder,
            depth=depth,
            mixer=(mixer or attention) if global_mixer else no_mixer,
            feedforward=partial(Mlp, ratio=2.0, activation=activation, dropout=dropout),
            norm=BatchNorm,
            final_norm=False,
            gradient_checkpointing=gradient_checkpointing,
            block=partial(GPSLayer, local=with_options(local, dropout, activation), dropout=dropout),
        )
        super().__init__(encoder, dim, num_heads=num_heads, activation=activation, **network)


def with_options(local: Local, dropout: float, activation: Callable[[], nn.Module]) -> Local:
    """A local layer by its word, told the dropout and the nonlinearity of a network where it has such."""
    if local == "gatedgcn":
        from .gated_gcn import GatedGCN

        return partial(GatedGCN, dropout=dropout, activation=activation)
    if local == "gine" and activation is not nn.ReLU:
        from .convolutions import GINE

        return partial(GINE, activation=activation)
    return local


# Words of atoms and bonds as the Open Graph Benchmark counted them when these were trained.
ATOMS, BONDS = (119, 4, 12, 12, 10, 6, 6, 2, 2), (5, 6, 2)
MOLECULES = {"node_categories": ATOMS, "edge_categories": BONDS}
PEPTIDES = {
    **MOLECULES,
    "dim": 96,
    "depth": 4,
    "num_heads": 4,
    "local": "gatedgcn",
    "encodings": {"laplacian": 10},
    "encoding_dim": 16,
    "halvings": 0,
    "dropout": 0.1,
    "attention_dropout": 0.5,
}
PCQM = {
    **MOLECULES,
    "local": "gatedgcn",
    "encodings": {"random_walk": 16},
    "encoding_dim": 20,
    "dropout": 0.1,
    "attention_dropout": 0.1,
}


@register_model("graphs/gps_tiny")
def gps_tiny(**arguments: Any) -> GPS:
    """GPS for two cores: dim 64, 4 layers of GINE and attention of 4 heads."""
    return GPS(**{"dim": 64, "depth": 4, "num_heads": 4} | arguments)


@register_model("graphs/gine_tiny")
def gine_tiny(**arguments: Any) -> GPS:
    """Message passing for a thousand graphs: dim 64, 4 layers of GINE, dropout; attention or another mixer if given."""
    own = {"dim": 64, "depth": 4, "dropout": 0.1, "head_dropout": 0.1}
    return GPS(**own | {"global_mixer": arguments.get("mixer") is not None} | arguments)


@register_model("graphs/gps_zinc")
def gps_zinc(**arguments: Any) -> GPS:
    """GPS as published for ZINC: dim 64, 10 layers of GINE and attention, random walks, sum over nodes."""
    own = {"dim": 64, "depth": 10, "num_heads": 4, "attention_dropout": 0.5, "pooling": "sum", "encoding_dim": 28}
    own |= {"node_categories": (28,), "edge_categories": (4,), "encodings": {"random_walk": 20}}
    return GPS(**own | arguments)


@register_model("graphs/gps_peptides_func")
def gps_peptides_func(**arguments: Any) -> GPS:
    """GPS as published for Peptides-func: dim 96, 4 layers of GatedGCN and attention, Laplacian eigenvectors."""
    return GPS(**PEPTIDES | {"num_outputs": 10} | arguments)


@register_model("graphs/gps_peptides_struct")
def gps_peptides_struct(**arguments: Any) -> GPS:
    """GPS as published for Peptides-struct: as for Peptides-func, 11 outputs."""
    return GPS(**PEPTIDES | {"num_outputs": 11} | arguments)


@register_model("graphs/gps_pcqm_small")
def gps_pcqm_small(**arguments: Any) -> GPS:
    """GPS-small as published for PCQM4Mv2: dim 304, 5 layers of GatedGCN and attention, random walks."""
    return GPS(**PCQM | {"dim": 304, "depth": 5, "num_heads": 4} | arguments)


@register_model("graphs/gps_pcqm_medium")
def gps_pcqm_medium(**arguments: Any) -> GPS:
    """GPS-medium as published for PCQM4Mv2: dim 384, 10 layers of GatedGCN and attention of 16 heads."""
    return GPS(**PCQM | {"dim": 384, "depth": 10, "num_heads": 16} | arguments)


@register_model("graphs/gps_pcqm_deep")
def gps_pcqm_deep(**arguments: Any) -> GPS:
    """GPS-deep as published for PCQM4Mv2: dim 256, 16 layers of GatedGCN and attention of 8 heads, GELU."""
    return GPS(**PCQM | {"dim": 256, "depth": 16, "num_heads": 8, "activation": nn.GELU} | arguments)
