"""Point Transformer: attention that weighs every channel by itself, among the nearest points of a cloud.

Paper: "Point Transformer", arXiv 2012.09164.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core.errors import QuintetError
from ...core.norm.layer_norm import LayerNorm
from ...core.weights.network import Network
from ...core.weights.registry import register_model
from .neighbours import Neighbours, farthest, gathered, nearest


def position_network(dims: int, dim: int) -> nn.Sequential:
    """theta of two linear layers as published, but wider between them than a position is, and without batch norm."""
    return nn.Sequential(nn.Linear(dims, dim), nn.ReLU(), nn.Linear(dim, dim))


def attention_network(dim: int) -> nn.Sequential:
    """The published form of gamma without batch norm; one weight for 8 channels where they are a multiple of 8."""
    narrow = dim // 8 if dim % 8 == 0 else dim
    return nn.Sequential(nn.ReLU(), nn.Linear(dim, narrow), nn.ReLU(), nn.Linear(narrow, narrow))


class PointTransformerLayer(nn.Module):
    """y_i = sum_j softmax_j(gamma(W_q x_i - W_k x_j + delta_ij)) * (W_v x_j + delta_ij), delta_ij = theta(p_i - p_j).

    j runs over the neighbours of i, the softmax over them is taken channel by channel and * multiplies channels. Only
    differences of positions enter: a cloud that is moved keeps its outputs. Where gamma gives fewer channels w than x
    has, channel c takes the weight of channel c mod w, as the authors share one among 8.

    Args:
        in_channels: of x.
        out_channels: of y.
        dims: of positions.
        position: factory `theta(dims, out_channels)`.
        attention: factory `gamma(out_channels)`, whose outputs divide `out_channels`; None leaves the sum as it is.

    Raises QuintetError for weights that do not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 3,
        position: Callable[[int, int], nn.Module] = position_network,
        attention: Callable[[int], nn.Module] | None = attention_network,
    ) -> None:
        super().__init__()
        self.query = nn.Linear(in_channels, out_channels, bias=False)
        self.key = nn.Linear(in_channels, out_channels, bias=False)
        self.value = nn.Linear(in_channels, out_channels, bias=False)
        self.position = position(dims, out_channels)
        self.attention = nn.Identity() if attention is None else attention(out_channels)

    def forward(
        self,
        x: Float[Tensor, "points channels"],
        positions: Float[Tensor, "points dims"],
        neighbours: Neighbours,
    ) -> Float[Tensor, "points out"]:
        index, real = neighbours
        delta = self.position(positions.unsqueeze(1) - gathered(positions, index))
        logits = self.attention(self.query(x).unsqueeze(1) - gathered(self.key(x), index) + delta)
        weights = logits.masked_fill(~real.unsqueeze(-1), -torch.inf).softmax(1)
        values = gathered(self.value(x), index) + delta
        if values.shape[-1] % weights.shape[-1]:
            raise QuintetError(f"{weights.shape[-1]} weights cannot be shared out among {values.shape[-1]} channels")
        shared = values.unflatten(-1, (-1, weights.shape[-1]))
        return (shared * weights.unsqueeze(-2)).sum(1).flatten(1)


class PointTransformerBlock(nn.Module):
    """x + W_out layer(W_in norm(x)), then x + W_2 relu(W_1 norm(x)); `layer` as PointTransformerLayer is called."""

    def __init__(self, dim: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm, self.entrance = LayerNorm(dim), nn.Linear(dim, dim)
        self.layer, self.exit = layer, nn.Linear(dim, dim)
        self.feedforward = nn.Sequential(LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(
        self, x: Float[Tensor, "points dim"], positions: Float[Tensor, "points dims"], neighbours: Neighbours
    ) -> Float[Tensor, "points dim"]:
        x = x + self.exit(self.layer(self.entrance(self.norm(x)), positions, neighbours))
        return x + self.feedforward(x)


class PointDownsample(nn.Module):
    """y_i = max_j relu(norm(W x_j)), j among the nearest points of each point i that is kept ("transition down")."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(dim, out_dim), LayerNorm(out_dim)

    def forward(self, x: Float[Tensor, "points dim"], neighbours: Neighbours) -> Float[Tensor, "kept out"]:
        near = gathered(self.norm(self.linear(x)).relu(), neighbours.index)
        return near.masked_fill(~neighbours.real.unsqueeze(-1), -torch.inf).amax(1)


class PointTransformer(Network):
    """head(norm(mean over the last points)): blocks on all points, then on ever fewer, the farthest from each other.

    A batch has `positions` (N, dims), `ptr` and, where there are values of nodes, `node_values` (N, values). The
    network knows no words, edges and encodings, and predicts for whole clouds.

    Args:
        node_values: numbers that each point has beside its position.
        num_outputs: of the head, for each cloud.
        level: "graph".
        dims: of positions.
        widths: channels of each stage.
        depths: blocks of each stage.
        neighbours: points that a point attends to, itself among them; all where a cloud has fewer.
        every: one in so many points is left from one stage to the next.
        node_categories, edge_categories, edge_values, graph_values, encodings: what data say of themselves: none.

    Raises QuintetError for what it does not know, and for a batch of other sizes.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    finetune: ClassVar[str] = "experiment=graphs/tables data.root=FOLDER"

    def __init__(
        self,
        node_values: int = 0,
        num_outputs: int = 1,
        level: str = "graph",
        dims: int = 3,
        widths: Sequence[int] = (32, 64, 128),
        depths: Sequence[int] = (1, 1, 1),
        neighbours: int = 16,
        every: int = 4,
        node_categories: Sequence[int] = (),
        edge_categories: Sequence[int] = (),
        edge_values: int = 0,
        graph_values: int = 0,
        encodings: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if node_categories or edge_categories or edge_values or graph_values or encodings or level != "graph":
            raise QuintetError(
                "a point transformer knows positions and numbers of points, and predicts for whole clouds; leave out "
                "words, edges, encodings and numbers of graphs, or take another model, e.g. gps_tiny"
            )
        if len(widths) != len(depths) or min(*widths, *depths, neighbours, every) < 1:
            raise QuintetError(f"widths={list(widths)}, depths={list(depths)}: one each a stage, at least 1")
        self.dims, self.node_values, self.every, self.neighbours = dims, node_values, every, neighbours
        self.entrance = nn.Linear(node_values, widths[0]) if node_values else nn.Embedding(1, widths[0])
        self.stages = nn.ModuleList(
            nn.ModuleList(PointTransformerBlock(dim, PointTransformerLayer(dim, dim, dims)) for _ in range(depth))
            for dim, depth in zip(widths, depths)
        )
        self.downsamples = nn.ModuleList(map(PointDownsample, widths[:-1], widths[1:]))
        self.norm, self.head = LayerNorm(widths[-1]), nn.Linear(widths[-1], num_outputs)

    def embed(self, batch: Any) -> Float[Tensor, "left dim"]:
        """Features of the points that are left in the last stage; `pool` knows how many each cloud has."""
        x, positions, ptr = self._enter(batch), batch.positions, batch.ptr
        near = nearest(positions, ptr, self.neighbours)
        for number, stage in enumerate(self.stages):
            if number:
                kept = farthest(positions, ptr, self.every)
                x = self.downsamples[number - 1](x, Neighbours(near.index[kept.index], near.real[kept.index]))
                positions, ptr = positions[kept.index], kept.ptr
                near = nearest(positions, ptr, self.neighbours)
            for block in stage:
                x = block(x, positions, near)
        return self.norm(x)

    def pool(self, batch: Any, nodes: Float[Tensor, "left dim"]) -> Float[Tensor, "clouds dim"]:
        """The mean over the points that are left of each cloud; zero for a cloud without points."""
        counts = self._left(batch.ptr.diff())
        cloud = torch.arange(len(counts), device=nodes.device).repeat_interleave(counts)
        sums = nodes.new_zeros(len(counts), nodes.shape[1]).index_add(0, cloud, nodes)
        return sums / counts.clamp(min=1).unsqueeze(1)

    def forward(self, batch: Any) -> Float[Tensor, "clouds outputs"]:
        return self.head(self.pool(batch, self.embed(batch)))

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names, each stage with what leads to it."""
        later = [[f"downsamples.{stage - 1}", f"stages.{stage}"] for stage in range(1, len(self.stages))]
        return [["entrance"], ["stages.0"], *later, ["norm"]]

    def _enter(self, batch: Any) -> Float[Tensor, "points dim"]:
        positions, values = getattr(batch, "positions", None), getattr(batch, "node_values", None)
        if positions is None or positions.shape[1] != self.dims:
            what = "none" if positions is None else positions.shape[1]
            raise QuintetError(f"each point needs a position of {self.dims} numbers; the batch has {what}")
        width = 0 if values is None else values.shape[1]
        if width != self.node_values:
            raise QuintetError(f"each point needs {self.node_values} values beside its position; the batch has {width}")
        return self.entrance(values) if self.node_values else self.entrance.weight.expand(len(positions), -1)

    def _left(self, counts: Int[Tensor, " clouds"]) -> Int[Tensor, " clouds"]:
        for _ in self.downsamples:
            counts = (counts + self.every - 1).div(self.every, rounding_mode="floor")
        return counts


@register_model("graphs/point_transformer")
def point_transformer(**arguments: Any) -> PointTransformer:
    """Classifier of point clouds: attention among 16 nearest points in three stages, from all points to 1 in 16."""
    return PointTransformer(**arguments)
