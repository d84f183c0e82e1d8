"""Attention of each token to its neighbourhood in the grid."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ....kernels.neighborhood_attention import neighborhood_attention, neighborhood_weights
from ...aside import listened_to, tell
from ...errors import QuintetError
from ...mixer import Mixer, mask_tokens, resolve_num_heads
from ...regularization.dropout import Dropout
from ...weights.registry import register_mixer
from ..weights import AttentionWeights


def _per_axis(name: str, value: Any, rank: int) -> tuple:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if len(values) != rank:
        raise QuintetError(f"NeighborhoodAttention(rank={rank}) needs one {name} or {rank} of them; got {values}")
    return values


@register_mixer("neighborhood")
class NeighborhoodAttention(Mixer):
    """y_i = sum over j in N(i) of softmax_j(q_i · k_j / sqrt(head_dim) + rpb[(p_j - p_i) / dilation + K - 1]) v_j.

    N(i) are the K nearest tokens along each axis, `dilation` apart, of which i is one; at borders the window shifts
    inwards, so that every token has K neighbours where the grid has room. Causal axes look back only. With a stride,
    groups of that many neighbours share the window of their middle one, the later of two; on causal axes that of the
    last one, up to themselves. A stride of K makes windows beside each other.
    Papers: "Neighborhood Attention Transformer", arXiv 2204.07143; "Dilated Neighborhood Attention Transformer",
    arXiv 2209.15001; stride: "Generalized Neighborhood Attention", arXiv 2504.16922. Parameters are named and laid out
    as published: `qkv`, `rpb` (heads, 2K - 1, ...), `proj`.

    Padding: the shift happens at the border of the padded grid. Next to the border of the real tokens, windows
    therefore reach into the padding instead of shifting, and outputs there differ from those without padding; they are
    the same at least (K // 2 + stride - 1) * dilation tokens away from it, and everywhere where all axes are causal and
    have no stride.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        kernel_size: K, the same for every axis or one an axis; larger than the grid means all of it.
        stride: neighbours that share a window, at most K, the same for every axis or one an axis.
        dilation: distance between neighbours, the same for every axis or one an axis.
        causal: no neighbours behind the token, the same for every axis or one an axis.
        relative_bias: learn `rpb`, initialised from N(0, 0.02²) cut at two units.
        qkv_bias: bias of the projection to queries, keys and values, whose rows are stacked in this order.
        projection_bias: bias of the output projection.
        projection_dropout: rate on the output.
        rank: number of grid axes: 1 sequences, 2 images, 3 volumes.

    Raises QuintetError for arguments that do not fit the rank and for tokens of another rank.
    """

    title = "Neighborhood attention: each token sees a window around it"
    paper = "Neighborhood Attention Transformer, arXiv 2204.07143"
    subquadratic: ClassVar[bool] = True
    padding_invariant = False
    tells = frozenset({"weights"})
    drawn_by_networks: ClassVar[bool] = True
    plans_grid: ClassVar[bool] = True  # it cuts its grid into tiles by a plan for its size
    no_weight_decay: ClassVar[tuple[str, ...]] = ("rpb",)
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "sequence": {"rank": 1, "kernel_size": 5, "dilation": 2},
        "causal_sequence": {"rank": 1, "kernel_size": 4, "causal": True},
        "volume": {"rank": 3, "kernel_size": 3},
        "without_bias": {"relative_bias": False, "kernel_size": (3, 5), "dilation": (2, 1)},
        "causal_height": {"kernel_size": 3, "causal": (True, False)},
        "strided": {"kernel_size": 4, "stride": (3, 2)},
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        kernel_size: int | Sequence[int] = 7,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        causal: bool | Sequence[bool] = False,
        relative_bias: bool = True,
        qkv_bias: bool = True,
        projection_bias: bool = True,
        projection_dropout: float = 0.0,
        rank: int = 2,
    ) -> None:
        super().__init__()
        if rank not in (1, 2, 3):
            raise QuintetError(f"NeighborhoodAttention has rank 1, 2 or 3 (sequence, image, volume); got {rank}")
        self.dim, self.num_heads = dim, resolve_num_heads(dim, num_heads)
        self.kernel_size = _per_axis("kernel_size", kernel_size, rank)
        self.stride = _per_axis("stride", stride, rank)
        if any(not 1 <= group <= size for group, size in zip(self.stride, self.kernel_size)):
            raise QuintetError(
                f"NeighborhoodAttention takes strides from 1 to kernel_size={self.kernel_size}; got {self.stride}"
            )
        self.dilation = _per_axis("dilation", dilation, rank)
        self.causal_axes = _per_axis("causal", causal, rank)
        self.causal = all(self.causal_axes)
        self.padding_invariant = self.causal and max(self.stride) == 1
        self.grid_ranks = frozenset({rank})
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.rpb = None
        if relative_bias:
            self.rpb = nn.Parameter(torch.empty(self.num_heads, *(2 * size - 1 for size in self.kernel_size)))
            nn.init.trunc_normal_(self.rpb, std=0.02, a=-0.04, b=0.04)
        self.proj = nn.Linear(dim, dim, bias=projection_bias)
        self.projection_dropout = Dropout(projection_dropout)

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        self.check_tokens(x, mask)
        query, key, value = self.qkv(mask_tokens(x, mask)).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        if listened_to(self, "weights"):
            tell(self, "weights", self._weights(query, key, mask))
        y = neighborhood_attention(
            query,
            key,
            value,
            self.kernel_size,
            stride=self.stride,
            dilation=self.dilation,
            causal=self.causal_axes,
            bias=self.rpb,
            mask=mask,
        )
        return mask_tokens(self.projection_dropout(self.proj(y.flatten(-2))), mask)

    def _weights(self, query: Tensor, key: Tensor, mask: Tensor | None) -> AttentionWeights:
        settings = (self.kernel_size, self.stride, self.dilation, self.causal_axes)
        values, keys, inside = neighborhood_weights(query, key, *settings, self.rpb, mask, query.shape[-1] ** -0.5)
        if mask is not None:
            values = values.masked_fill(~mask.flatten(1)[:, :, None, None], 0.0)
        grid = tuple(query.shape[1:-2])
        steps = self.dilation[0] if len(set(self.dilation)) == 1 else self.dilation
        window = f"{' x '.join(map(str, self.kernel_size))} of {' x '.join(map(str, grid))}, dilation {steps}"
        return AttentionWeights(values.transpose(1, 2), keys.masked_fill(~inside, -1), grid, grid, window)

    def extra_repr(self) -> str:
        sizes = f"kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}"
        return f"{sizes}, causal={self.causal_axes}"
