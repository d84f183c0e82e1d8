"""A network over graphs as a module of plain tensors, which other programs can run.

Its graphs stand one after another, and each node attends to all, those of other graphs hidden: memory grows with the
square of the nodes of all graphs together, and nothing depends on how many nodes each has.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core.errors import QuintetError
from .attention import DistanceBias
from .network import PAIRS, GraphNetwork


class DeployedGraphs(nn.Module):
    """y = network(graphs), from tensors alone: `forward(edge_index, node_counts, *fields)`.

    Equal to the network's own run in evaluation, of which it is a copy in behaviour, not in weights.

    Args:
        network: whose mixer among all nodes takes a bias, or that has none.

    Attributes:
        inputs: names of the tensors in their order: edge_index (2, edges) long, node_counts (graphs,) long, how many
            nodes each graph has, and the fields that the network reads.

    Raises QuintetError for a network whose mixer cannot be told which nodes to look at.
    """

    def __init__(self, network: GraphNetwork) -> None:
        super().__init__()
        self.network = network
        self.inputs = ["edge_index", "node_counts", *network.fields]
        self.hides = "bias" in network.encoder.takes
        if unable := [type(part).__name__ for part in mixers_of(network) if "bias" not in part.takes]:
            raise QuintetError(
                f"{unable[0]} takes no bias, by which nodes of other graphs are hidden in an exported network; train "
                "with softmax attention, or export format=safetensors"
            )

    def forward(
        self, edge_index: Int[Tensor, "2 edges"], node_counts: Int[Tensor, " graphs"], *fields: Tensor
    ) -> Float[Tensor, "rows outputs"]:
        network = self.network
        given = dict(zip(self.inputs[2:], fields, strict=True))
        # Which graph a node is of, from shapes and comparisons alone.
        ends = node_counts.cumsum(0)
        number = (torch.arange(self._rows(given), device=ends.device).unsqueeze(1) >= ends).sum(1)
        borders = torch.cat([ends.new_zeros(1), ends])
        batch = SimpleNamespace(edge_index=edge_index, ptr=borders, batch=number, **given)
        x, told = network.begin(batch)
        if self.hides:
            told["bias"] = self._bias(number, node_counts, given.get(PAIRS), x.dtype)
        nodes = network.encoder(x.unsqueeze(0), **told).squeeze(0)
        return network.predict(batch, nodes if network.level == "node" else network.pool(batch, nodes))

    def _rows(self, given: dict[str, Tensor]) -> int:
        for name, value in given.items():
            if name not in ("edge_categories", "edge_values", "graph_values", PAIRS):
                return value.shape[0]
        raise QuintetError("a network that reads nothing of its nodes cannot be exported: their number is unknown")

    def _bias(
        self, number: Tensor, counts: Tensor, distances: Tensor | None, dtype: torch.dtype
    ) -> Float[Tensor, "1 heads nodes nodes"]:
        """-inf between nodes of different graphs; within, what distances add."""
        same = number.unsqueeze(1) == number
        hidden = torch.zeros((), dtype=dtype, device=number.device).masked_fill(~same, float("-inf"))
        if distances is None:
            return hidden[None, None]
        # The place of a pair: those of the graphs before, the rows before in its own, the column.
        before = (counts.square().cumsum(0) - counts.square())[number]
        place = torch.arange(number.shape[0], device=number.device) - (counts.cumsum(0) - counts)[number]
        pair = (before + place * counts[number]).unsqueeze(1) + place
        pair = torch.where(same, pair, 0)
        return self._distance_bias.table(distances.squeeze(1).long()[pair]).permute(2, 0, 1)[None] + hidden

    @property
    def _distance_bias(self) -> DistanceBias:
        return self.network.distance_bias


def mixers_of(network: GraphNetwork) -> Sequence[Any]:
    """The mixers among all nodes of a network's blocks."""
    mixers = (getattr(block, "mixer", None) for block in network.encoder.blocks)
    return [mixer for mixer in mixers if mixer is not None and "edges" not in mixer.takes]


def example_inputs(module: DeployedGraphs, batch: Any) -> dict[str, Tensor]:
    """The tensors of a batch by name, in the order in which the module takes them."""
    return {name: batch.ptr.diff() if name == "node_counts" else getattr(batch, name) for name in module.inputs}


def dynamic_axes(module: DeployedGraphs) -> dict[str, dict[int, str]]:
    """Of each input the axes that may have any size, and their names."""
    axes = {
        "edge_index": {1: "edges"},
        "node_counts": {0: "graphs"},
        "graph_values": {0: "graphs"},
        PAIRS: {0: "pairs"},
    }
    edges = {"edge_categories": {0: "edges"}, "edge_values": {0: "edges"}}
    return {name: (axes | edges).get(name, {0: "nodes"}) for name in module.inputs}
