"""Sums of messages over the edges of a graph, written out so that little is kept and computed twice."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def relu_messages(
    x: Float[Tensor, "nodes dim"], features: Float[Tensor, "edges dim"], index: Int[Tensor, "2 edges"], own: float
) -> Float[Tensor, "nodes dim"]:
    """own x_i + sum over the edges from j to i of relu(x_j + e_ij), the sum of arXiv 1905.12265.

    PyG's layer does the same in twice the time: it keeps three tensors of the size of the edges, this one.
    """
    return _ReluMessages.apply(x, features, index, own)


class _ReluMessages(torch.autograd.Function):
    """Going back, what comes to node i goes to its edges where their message was above 0, and on to their sources."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, features: Tensor, index: Tensor, own: float) -> Tensor:
        source, target = index
        messages = x.index_select(0, source).add_(features).relu_()
        ctx.save_for_backward(messages, index)
        ctx.own = own
        return (x.clone() if own == 1.0 else x * own).index_add_(0, target, messages)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        messages, (source, target) = ctx.saved_tensors
        of_features = torch.ops.aten.threshold_backward(slope.index_select(0, target), messages, 0)
        of_x = (slope.clone() if ctx.own == 1.0 else slope * ctx.own).index_add_(0, source, of_features)
        return of_x, of_features, None, None
