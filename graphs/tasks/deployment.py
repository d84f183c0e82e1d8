"""What of a task on whole graphs runs elsewhere: graphs as plain tensors in, predictions in the user's units out."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from ...core.errors import QuintetError
from ...core.learning.deployable import Deployable
from ..data.description import GraphDescription
from ..data.store import GraphStore
from ..models.deployed import DeployedGraphs, dynamic_axes, example_inputs
from ..models.network import PAIRS, GraphNetwork

if TYPE_CHECKING:
    from .whole import GraphTask


class DeployedTask(nn.Module):
    """The mean of what the networks of a task predict, and with several of them how far they disagree."""

    def __init__(self, task: "GraphTask") -> None:
        super().__init__()
        members = task.network.members if task.ensemble > 1 else [task.network]
        self.members = nn.ModuleList(DeployedGraphs(member) for member in members)
        self.task = task
        self.inputs = self.members[0].inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        outcomes = self.task.exported(torch.stack([member(*tensors) for member in self.members]))
        if len(self.members) == 1:
            return (outcomes[0],)
        return outcomes.mean(0), outcomes.std(0)


def deployable_graphs(task: "GraphTask", outputs: str, about: dict[str, Any]) -> Deployable:
    """Examples of graphs for a task, drawn at random from the words it knows.

    Args:
        task: that was trained.
        outputs: what its predictions are called.
        about: what a person has to know of them.

    Raises QuintetError for a network that is none of quintet's over graphs.
    """
    members = task.network.members if task.ensemble > 1 else [task.network]
    if not all(isinstance(member, GraphNetwork) for member in members):
        raise QuintetError(f"{task.backbone_name} cannot be exported as a graph; format=safetensors takes its weights")
    module, known = DeployedTask(task), task.description
    names = [outputs, *([f"{outputs}_deviation"] if task.ensemble > 1 else [])]
    axes = dynamic_axes(module.members[0])
    inputs, other = (example_inputs(module.members[0], drawn(known, sizes)) for sizes in ((5, 4), (3, 6, 4)))
    about = {
        "inputs": {name: f"{value.dtype} {tuple(value.shape)}".replace("torch.", "") for name, value in inputs.items()},
        "outputs": names,
        "node_words": known.node_words,
        "node_numbers": known.node_numbers,
        "edge_words": known.edge_words,
        "edge_numbers": known.edge_numbers,
        "graph_numbers": known.graph_numbers,
        **about,
    }
    note = "the file holds the network alone, without its blend with baselines" if task.blend else ""
    return Deployable(module, inputs, other, axes, names, about, note)


def drawn(known: GraphDescription, sizes: tuple[int, ...]) -> Any:
    """A batch of rings of these sizes, their nodes and edges of random words and numbers."""
    draw = torch.Generator().manual_seed(sum(sizes))
    graphs, levels = [], {}
    for nodes in sizes:
        ring = torch.arange(nodes)
        index = torch.cat([torch.stack([ring, ring.roll(1)]), torch.stack([ring.roll(1), ring])], dim=1)
        fields: dict[str, Tensor] = {"edge_index": index}
        for level, count in (("node", nodes), ("edge", index.shape[1])):
            words, numbers = getattr(known, f"{level}_words"), getattr(known, f"{level}_numbers")
            columns = [torch.randint(0, len(own) + 1, (count,), generator=draw) for own in words.values()]
            if columns:
                fields[f"{level}_categories"] = torch.stack(columns, 1)
            if numbers:
                fields[f"{level}_values"] = torch.randn(count, len(numbers), generator=draw)
            levels |= {f"{level}_categories": f"{level}s", f"{level}_values": f"{level}s"}
        for name, width in known.encodings.items():
            if name == PAIRS:
                fields[name], levels[name] = torch.randint(0, width, (nodes**2, 1), generator=draw), "pairs"
                continue
            fields[name], levels[name] = torch.rand(nodes, width, generator=draw), "nodes"
            if name == "laplacian":
                fields[f"{name}_values"], levels[f"{name}_values"] = torch.rand(nodes, width, generator=draw), "nodes"
        if known.graph_numbers:
            fields["graph_values"] = torch.randn(1, len(known.graph_numbers), generator=draw)
            levels["graph_values"] = "graphs"
        graphs.append(Data(num_nodes=nodes, **fields))
    present = {name: level for name, level in levels.items() if name in graphs[0]}
    return GraphStore.of(graphs, present).take(range(len(sizes)))
