"""What networks over graphs have in common: features and encodings of nodes, an encoder, a head."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core.aside import Edges
from ...core.blocks.encoder import Encoder
from ...core.errors import QuintetError, nearest
from ...core.weights.network import Network
from .attention import DistanceBias, padded_is_faster
from .encoders import KernelEncoder, LaplacianDeepSet, SignNet
from .features import Features
from .heads import GraphHead, GraphPool
from .padding import padding_of

LEVELS = ("graph", "node")
EncodingFactory = Callable[[int, int], nn.Module]

ENCODERS: dict[str, EncodingFactory] = {
    "random_walk": KernelEncoder,
    "heat_kernel": KernelEncoder,
    "electrostatic": KernelEncoder,
    "laplacian": LaplacianDeepSet,
}
LAPLACIAN: dict[str, EncodingFactory] = {"deep_set": LaplacianDeepSet, "sign_net": SignNet}
PAIRS = "shortest_paths"  # an encoding of pairs of nodes: a bias of the attention


class Graphs(NamedTuple):
    """Whose the nodes are that stand one after another: the number of each node's graph, of `count`."""

    number: Int[Tensor, " nodes"]
    count: int


class GraphNetwork(Network):
    """head(pool(encoder([embedding of a node, its encodings]))), of graphs of any size; without pool for node levels.

    A batch is PyG's, with the fields of `GraphStore.take`; a single `Data` is a batch of one graph. Graphs without
    edges and of one node are graphs like others.

    Args:
        encoder: factory `SomeEncoder(dim)` of what encodes packed nodes with edges, such as core's `Encoder`.
        dim: width of nodes and edges.
        node_categories: number of words of each column of words of the nodes; code 0 is a word never seen in training.
        node_values: number of columns of numbers of the nodes.
        edge_categories: of the edges likewise.
        edge_values: of the edges likewise.
        graph_values: numbers that describe a whole graph; the head reads them.
        encodings: names and widths of the encodings of nodes. "shortest_paths" is one of pairs, its width the longest
            distance told apart: a bias of the attention.
        num_outputs: values to predict of each graph or node.
        level: what is predicted of: "graph" or "node".
        encoding_dim: width of each encoding beside the embedding of a node, one number or one a name.
        laplacian: "deep_set", "sign_net", or factory `SomeEncoder(width, dim)` of what reads Laplacian eigenvectors.
        pooling: "mean", "sum" or "max" over the nodes of a graph.
        halvings: layers of the head before its last one, each half as wide as the one before.
        activation: factory of the nonlinearity of the head.
        head_dropout: rate before each layer of the head.
        num_heads: heads of the attention that distances are a bias of.

    Raises QuintetError for an unknown level, encoding or pooling, encodings wider than the nodes, a batch without a
    field that the network reads.
    """

    finetune: ClassVar[str] = "experiment=graphs/molecules data.path=FILE"

    def __init__(
        self,
        encoder: Callable[[int], Encoder],
        dim: int,
        node_categories: Sequence[int] = (),
        node_values: int = 0,
        edge_categories: Sequence[int] = (),
        edge_values: int = 0,
        graph_values: int = 0,
        encodings: Mapping[str, int] | None = None,
        num_outputs: int = 1,
        level: str = "graph",
        encoding_dim: int | Mapping[str, int] = 16,
        laplacian: str | EncodingFactory = "deep_set",
        pooling: str = "mean",
        halvings: int = 2,
        activation: Callable[[], nn.Module] = nn.ReLU,
        head_dropout: float = 0.0,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        if level not in LEVELS:
            raise QuintetError(f"level is 'graph' or 'node'; got {level!r}")
        widths = dict(encodings or {})
        longest = widths.pop(PAIRS, None)
        dims = {name: encoding_dim if isinstance(encoding_dim, int) else encoding_dim[name] for name in widths}
        if sum(dims.values()) >= dim:
            raise QuintetError(f"encodings of {dims} leave no room in dim={dim}; make encoding_dim smaller")
        self.dim, self.num_outputs, self.level, self.graph_values = dim, num_outputs, level, graph_values
        self.encoder = encoder(dim)
        self.features = nn.ModuleDict(
            {"nodes": Features("node", node_categories, node_values, dim - sum(dims.values()))}
        )
        if any(getattr(part, "reads_edges", False) for part in self.encoder.modules()):
            self.features["edges"] = Features("edge", edge_categories, edge_values, dim)
        factories = ENCODERS | {"laplacian": _laplacian(laplacian)}
        if unknown := [name for name in widths if name not in factories]:
            raise QuintetError(f"no encoding is called '{unknown[0]}'; {nearest(unknown[0], [*factories, PAIRS])}")
        self.encoders = nn.ModuleDict({name: factories[name](widths[name], dims[name]) for name in widths})
        if longest is not None and "bias" not in self.encoder.takes:
            raise QuintetError(f"{PAIRS} are a bias of attention, and no layer here takes one; leave that encoding out")
        self.distance_bias = None if longest is None else DistanceBias(longest, num_heads)
        self.graph_pool = GraphPool(pooling)
        self.head = GraphHead(dim, num_outputs, halvings, graph_values, activation, head_dropout)
        own = (name for name, _ in self.head.named_parameters())
        # A file's head may read numbers of graphs where this one does not.
        self.head_keys = tuple(f"head.{name}" for name in dict.fromkeys([*own, "values.weight", "values.bias"]))

    def forward(self, batch: Any) -> Float[Tensor, "rows outputs"]:
        """Predictions of the graphs, or nodes, of a batch."""
        nodes = self.embed(batch)
        return self.predict(batch, nodes if self.level == "node" else self.pool(batch, nodes))

    def embed(self, batch: Any) -> Float[Tensor, "nodes dim"]:
        """The nodes after the last block."""
        borders = borders_of(batch)
        x, given = self.begin(batch)
        counts = borders.diff()
        if "padding" in self.encoder.takes and (self.distance_bias is not None or padded_is_faster(counts)):
            given["padding"] = padding_of(borders, len(x), x.dtype)
        if self.distance_bias is not None:
            given["bias"] = self.distance_bias(_field(batch, PAIRS), borders, int(counts.max()))
        return self.encoder.forward_packed(x, borders, **given)

    def begin(self, batch: Any) -> tuple[Float[Tensor, "nodes dim"], dict[str, Any]]:
        """The nodes before the first block, and what goes with them through all blocks: edges, whose the nodes are."""
        index = batch.edge_index
        embedded = _features(self.features["nodes"], batch, rows_of(batch))
        parts = [embedded, *(self._encoding(name, batch) for name in self.encoders)]
        edges = _features(self.features["edges"], batch, index.shape[1]) if "edges" in self.features else None
        given = {"edges": Edges(index, edges), "graphs": graphs_of(batch)}
        return torch.cat(parts, -1), {name: value for name, value in given.items() if name in self.encoder.takes}

    def _encoding(self, name: str, batch: Any) -> Tensor:
        encoder = self.encoders[name]
        more = {"values": _field(batch, f"{name}_values")} if getattr(encoder, "reads_values", False) else {}
        return encoder(_field(batch, name), batch.edge_index, **more)

    def pool(self, batch: Any, nodes: Float[Tensor, "nodes dim"]) -> Float[Tensor, "graphs dim"]:
        """One vector a graph of those of its nodes."""
        return self.graph_pool(nodes, *graphs_of(batch))

    def predict(self, batch: Any, x: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows outputs"]:
        """The head on graphs or nodes, with the values that describe their graphs."""
        if not self.graph_values:
            return self.head(x)
        values = _field(batch, "graph_values")
        return self.head(x, values if self.level == "graph" else values.index_select(0, graphs_of(batch).number))

    @property
    def fields(self) -> list[str]:
        """Names of the fields of a batch that the network reads, beside edge_index and ptr."""
        names = [name for part in self.features.values() for name in part.fields]
        for name, encoder in self.encoders.items():
            names += [name, *([f"{name}_values"] if getattr(encoder, "reads_values", False) else [])]
        return names + [PAIRS] * (self.distance_bias is not None) + ["graph_values"] * (self.graph_values > 0)

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: features, encodings and distances, then each block."""
        first = [
            "features",
            *(["encoders"] if self.encoders else []),
            *(["distance_bias"] if self.distance_bias else []),
        ]
        return [first, *([f"encoder.blocks.{layer}"] for layer in range(len(self.encoder.blocks)))]


def _laplacian(laplacian: str | EncodingFactory) -> EncodingFactory:
    """What reads Laplacian eigenvectors, by its word or as given. Raises QuintetError for another word."""
    if not isinstance(laplacian, str):
        return laplacian
    if laplacian not in LAPLACIAN:
        raise QuintetError(f"laplacian is a factory or one of {', '.join(LAPLACIAN)}; got {laplacian!r}")
    return LAPLACIAN[laplacian]


def _field(batch: Any, name: str) -> Tensor:
    """A field of a batch. Raises QuintetError where it has none of this name."""
    value = getattr(batch, name, None)
    if value is None:
        raise QuintetError(f"this network reads {name}, which the graphs do not have")
    return value


def _features(features: Features, batch: Any, rows: int) -> Tensor:
    values = (_field(batch, name) if name in features.fields else None for name in FIELDS[features.what])
    return features(rows, *values)


FIELDS = {what: (f"{what}_categories", f"{what}_values") for what in ("node", "edge")}


def rows_of(batch: Any) -> int:
    """Number of nodes of a batch."""
    for name in ("batch", "node_categories", "node_values"):
        if (value := getattr(batch, name, None)) is not None:
            return value.shape[0]
    return batch.num_nodes


def borders_of(batch: Any) -> Int[Tensor, " borders"]:
    """0 and where the nodes of each graph end; of one graph where the batch does not say."""
    borders = getattr(batch, "ptr", None)
    return torch.tensor([0, rows_of(batch)], device=batch.edge_index.device) if borders is None else borders


def graphs_of(batch: Any) -> Graphs:
    """Whose the nodes of a batch are."""
    borders, number = borders_of(batch), getattr(batch, "batch", None)
    if number is None:
        counts = borders.diff()
        number = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=rows_of(batch))
    return Graphs(number, borders.shape[0] - 1)
