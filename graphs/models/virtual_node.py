"""Message passing, with a node that all nodes of a graph talk to.

Paper: "On the Connection Between MPNN and Graph Transformer", arXiv 2301.11956.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.aside import changed, run, taken_within
from ...core.blocks.encoder import Encoder
from ...core.norm import BatchNorm
from ...core.regularization.dropout import Dropout
from ...core.weights.registry import register_model
from .encoders import one_row
from .gps import Local, local_layer, with_options
from .network import GraphNetwork, Graphs


class VirtualNode(nn.Module):
    """v' = v + drop(relu(norm(W2 relu(norm(W1 (v + sum of the nodes x of a graph)))))).

    Args:
        dim: width of the nodes.
        dropout: rate on the change.
    """

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(dim, dim), BatchNorm(dim)
        self.fc2, self.norm2 = nn.Linear(dim, dim), BatchNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self, v: Float[Tensor, "graphs dim"], x: Float[Tensor, "nodes dim"], graphs: Graphs
    ) -> Float[Tensor, "graphs dim"]:
        total, mask = v.index_add(0, graphs.number, x), one_row(v)
        hidden = self.norm1(self.fc1(total), mask).relu()
        return v + self.dropout(self.norm2(self.fc2(hidden), mask).relu())


class MessagePassingLayer(nn.Module):
    """y = local(x + v), residual and normalized, and v' of `VirtualNode`; a block of core's `Encoder`, packed.

    A local layer that is no residual stream itself gets one: y = x + drop(relu(norm(local(x)))).

    Args:
        dim: width of the nodes.
        mixer: factory `SomeLayer(dim)` of the local layer.
        norm: factory `Norm(dim)`.
        dropout: rate on the branch.
        virtual_node: there is such a node.
    """

    takes: frozenset[str]

    def __init__(
        self,
        dim: int,
        mixer: Callable[[int], nn.Module],
        norm: Callable[[int], nn.Module] = BatchNorm,
        dropout: float = 0.0,
        virtual_node: bool = True,
    ) -> None:
        super().__init__()
        self.local = mixer(dim)
        self.norm = None if getattr(self.local, "adds_input", False) else norm(dim)
        self.dropout = Dropout(dropout)
        self.virtual_node = VirtualNode(dim, dropout) if virtual_node else None
        own = {"graphs", "virtual"} if virtual_node else set()
        self.takes = (taken_within(self) | own | {"mask", "cu_seqlens"}) - {"queries"}

    def leave_virtual_node(self) -> None:
        """The last layer tells it nothing, as nobody would hear of it."""
        self.virtual_node = None

    def forward(
        self,
        x: Float[Tensor, "one nodes dim"],
        mask: Bool[Tensor, "one nodes"] | None = None,
        graphs: Graphs | None = None,
        virtual: Float[Tensor, "graphs dim"] | None = None,
        **given: Any,
    ) -> Any:
        """The nodes, and the virtual nodes for the next block, which begin as zero."""
        if virtual is not None:
            x = x + virtual.index_select(0, graphs.number)
        given["mask"] = mask
        y, changes = changed(run(self.local, x, given), {})
        if self.norm is not None:
            y = x + self.dropout(run(self.norm, y, {"mask": one_row(x)}).relu())
        if self.virtual_node is not None:
            virtual = x.new_zeros(graphs.count, x.shape[-1]) if virtual is None else virtual
            changes = {**changes, "virtual": self.virtual_node(virtual, y.squeeze(0), graphs)}
        return (y, changes) if changes else y


class MessagePassing(GraphNetwork):
    """A `GraphNetwork` of message passing, with or without a virtual node.

    Args:
        dim: width of nodes and edges.
        depth: number of layers.
        local: a word ("gine", "gatedgcn", "gcn", "gat", "supergat", "pna") or a factory, see `GPSLayer`.
        virtual_node: all nodes of a graph exchange what they know with one more, after each layer but the last.
        dropout: rate on the branches.
        activation: factory of the nonlinearity of local layers and head.
        gradient_checkpointing: in training, keep only the layers' inputs and compute the rest again going back.
        **network: see `GraphNetwork`.
    """

    remedies: ClassVar[dict[str, str]] = {"mixer": "message passing has none; give gps_tiny with local and mixer"}

    def __init__(
        self,
        dim: int = 64,
        depth: int = 5,
        local: Local = "gine",
        virtual_node: bool = True,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gradient_checkpointing: bool = False,
        **network: Any,
    ) -> None:
        encoder = partial(
            Encoder,
            depth=depth,
            mixer=partial(local_layer, with_options(local, dropout, activation)),
            norm=BatchNorm,
            final_norm=False,
            gradient_checkpointing=gradient_checkpointing,
            block=partial(MessagePassingLayer, dropout=dropout, virtual_node=virtual_node),
        )
        super().__init__(encoder, dim, activation=activation, **network)
        if virtual_node:
            self.encoder.blocks[-1].leave_virtual_node()


@register_model("graphs/gatedgcn_vn")
def gatedgcn_vn(**arguments: Any) -> MessagePassing:
    """GatedGCN with a virtual node, as published for Peptides: dim 138, 5 layers."""
    return MessagePassing(**{"dim": 138, "depth": 5, "local": "gatedgcn", "halvings": 0} | arguments)


@register_model("graphs/gin_vn")
def gin_vn(**arguments: Any) -> MessagePassing:
    """Graph isomorphism network with edges (GINE) and a virtual node: dim 64, 5 layers."""
    return MessagePassing(**arguments)
