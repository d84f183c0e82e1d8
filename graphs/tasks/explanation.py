"""Which nodes make a prediction what it is, for one graph at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from ...core.aside import listening, told_within
from ..data.store import GraphStore
from .ensemble import Ensemble

AT_A_TIME = 64  # copies of a graph that are looked at together


def contributions(
    network: nn.Module,
    store: GraphStore,
    graph: int,
    output: int = 0,
    method: Literal["gradient", "masking"] = "gradient",
) -> Float[Tensor, " nodes"]:
    """How much each node raises one output of a graph.

    gradient: sum_d h_id df / dh_id, h the features of nodes that are pooled. Under a mean or sum and a linear head
    these add up to the output but for its constant (Learning Important Features, arXiv 1605.01713).
    masking: f(graph) - f(graph in which nothing is known of node i).

    Args:
        network: with `embed`, `pool` and `forward`; of an ensemble the mean of its members.
        store: that holds the graph.
        graph: its number in the store.
        output: of the network.
        method: "gradient" takes one pass, "masking" one for each node.
    """
    members = network.members if isinstance(network, Ensemble) else [network]
    training, device = network.training, next(network.parameters()).device
    network.eval()
    found = _gradients if method == "gradient" else _masked
    try:
        return torch.stack([found(member, store, graph, output, device) for member in members]).mean(0).cpu()
    finally:
        network.train(training)


def _gradients(network: nn.Module, store: GraphStore, graph: int, output: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        batch = store.take([graph]).to(device)
        nodes = network.embed(batch).detach().requires_grad_()
        with _given(network, nodes):
            value = network(batch)[0, output]
        (gradient,) = torch.autograd.grad(value, nodes)
    return (nodes * gradient).sum(1).detach()


@contextmanager
def _given(network: nn.Module, nodes: Tensor) -> Iterator[None]:
    """While it lasts, the network's nodes have these features."""
    network.__dict__["embed"] = lambda batch: nodes
    try:
        yield
    finally:
        del network.__dict__["embed"]


@torch.no_grad()
def _masked(network: nn.Module, store: GraphStore, graph: int, output: int, device: torch.device) -> Tensor:
    nodes = int(store.node_counts[graph])
    whole = network(store.take([graph]).to(device))[0, output]
    without = []
    for chosen in torch.arange(nodes).split(AT_A_TIME):
        batch = store.take([graph] * len(chosen))
        batch = forget(batch, batch.ptr[:-1] + chosen).to(device)
        without.append(network(batch)[:, output])
    return whole - torch.cat(without)


def forget(batch: Batch, nodes: Tensor) -> Batch:
    """The batch in which nodes are of no known category and of mean numbers."""
    for name in ("node_categories", "node_values"):
        if (values := getattr(batch, name, None)) is not None:
            setattr(batch, name, values.index_fill(0, nodes, 0))
    return batch


def attention_of(network: nn.Module, store: GraphStore, graph: int) -> dict[str, Float[Tensor, "nodes nodes"]]:
    """How much each node of a graph looks at each other, by layer: the mean over the heads; empty without attention."""
    member = network.members[0] if isinstance(network, Ensemble) else network
    if "weights" not in told_within(member):
        return {}
    training, device = member.training, next(member.parameters()).device
    member.eval()
    try:
        with torch.no_grad(), listening(member, "weights") as heard:
            # Not the call: what is drawn once need not be compiled for it.
            member.forward(store.take([graph]).to(device))
    finally:
        member.train(training)
    nodes = int(store.node_counts[graph])
    dense = {name: told[-1].dense() for name, told in heard["weights"].items()}
    whole = {name: values for name, values in dense.items() if values.shape[0] == 1 and values.shape[-1] >= nodes}
    return {name: values[0].float().mean(0)[:nodes, :nodes].cpu() for name, values in whole.items()}
