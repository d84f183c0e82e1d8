"""Softmax attention of packed graphs through a padded batch, written out for processors and small graphs.

torch's fused attention is made for long sequences: of graphs of twenty nodes it takes twice as long, forward and
backward, as the six products of matrices that there are, and has no form with dropout.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...core.regularization.dropout import dropout
from .padding import HeadRows, Padding


def padded_attention(
    qkv: Float[Tensor, "nodes width"],
    padding: Padding,
    num_heads: int,
    bias: Float[Tensor, "graphs heads longest longest"] | None = None,
    rate: float = 0.0,
) -> Float[Tensor, "nodes dim"]:
    """drop(softmax(q kᵀ / sqrt(head_dim) + bias)) v within each graph, for nodes one after another.

    Args:
        qkv: queries, keys and values of each node, in this order, each of all heads.
        padding: where the nodes are in a padded batch.
        num_heads: that share the width.
        bias: added to the scores of the padded graphs.
        rate: of dropout on the weights.
    """
    graphs, longest = padding.shape
    addend = padding.hidden if bias is None else padding.hidden + bias
    addend = addend.expand(-1, num_heads, -1, -1).reshape(graphs * num_heads, -1, longest)
    return _PaddedAttention.apply(qkv, addend, padding.rows(num_heads), (graphs * num_heads, longest), rate)


class _PaddedAttention(torch.autograd.Function):
    """With s the scores and w = softmax(s): dv = wᵀ dy, dw = dy vᵀ, ds = w (dw - sum_j w_j dw_j), its sum dy y."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, addend: Tensor, rows: HeadRows, shape: tuple[int, int], rate: float) -> Tensor:
        head_dim = qkv.shape[0] * qkv.shape[1] // len(rows.padded)
        parts = qkv.reshape(-1, head_dim).index_select(0, rows.source).view(3, *shape, head_dim)
        query, key, value = parts
        scale = head_dim**-0.5
        weights = torch.baddbmm(addend, query, key.mT, alpha=scale).softmax(-1)
        kept = dropout(torch.ones_like(weights), rate) if rate else None
        y = torch.bmm(weights if kept is None else weights * kept, value)
        ctx.save_for_backward(parts, weights, kept, y)
        ctx.rows, ctx.scale = rows, scale
        return y.view(-1, head_dim).index_select(0, rows.output).view(len(qkv), -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        parts, weights, kept, y = ctx.saved_tensors
        query, key, value = parts
        head_dim = y.shape[-1]
        slopes = slope.reshape(-1, head_dim)
        of_output = y.new_zeros(y.shape).view(-1, head_dim).index_copy_(0, ctx.rows.output, slopes).view_as(y)
        of_weights = torch.bmm(of_output, value.mT)
        of_weights = of_weights if kept is None else of_weights.mul_(kept)
        of_scores = of_weights.sub_((of_output * y).sum(-1, keepdim=True)).mul_(weights)
        of_bias = of_scores.clone() if ctx.needs_input_grad[1] else None
        of_scores.mul_(ctx.scale)
        of_parts = torch.empty_like(parts)
        torch.bmm(of_scores, key, out=of_parts[0])
        torch.bmm(of_scores.mT, query, out=of_parts[1])
        torch.bmm((weights if kept is None else weights * kept).mT, of_output, out=of_parts[2])
        of_qkv = of_parts.view(-1, head_dim).index_select(0, ctx.rows.padded)
        return of_qkv.view(len(slope), -1), of_bias, None, None, None
