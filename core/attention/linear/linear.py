"""Attention whose cost is linear in the number of tokens, by a feature map in place of the softmax."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...convolution.depthwise import DepthwiseConvolution
from ...errors import QuintetError
from ...mixer import Mixer, flatten_grid, mask_tokens, resolve_num_heads, unflatten_grid
from ...regularization.dropout import Dropout
from ...weights.registry import factory_target, register_mixer
from ..feature_maps.contract import FeatureMap, Tokens
from ..feature_maps.elementwise import EluPlusOne, PlainFunction
from ..normalizers import DivideByRootMeanSquare, DivideBySum


class LinearAttentionState(NamedTuple):
    """What causal linear attention remembers of a sequence: sum of f(k) vᵀ, and sum of f(k), both fp32."""

    key_value: Float[Tensor, "batch heads features head_dim"]
    normalizer: Float[Tensor, "batch heads features"]


def causal_linear_attention(
    query: Float[Tensor, "batch heads time features"],
    key: Float[Tensor, "batch heads time features"],
    value: Float[Tensor, "batch heads time head_dim"],
    state: LinearAttentionState | None,
    chunk_size: int,
) -> tuple[Float[Tensor, "batch heads time head_dim"], Float[Tensor, "batch heads time 1"], LinearAttentionState]:
    """Numerators q_i S_i and denominators q_i z_i with S_i, z_i summed over j <= i, and the state at the end.

    Chunks attend within themselves by a masked product and to all before them by the state at their start, which is a
    cumulative sum over chunks: products of matrices only, no loop over time.
    """
    time = query.shape[-2]
    chunk = min(chunk_size, time)
    padded = (F.pad(part, (0, 0, 0, -time % chunk)).unflatten(-2, (-1, chunk)) for part in (query, key, value))
    query, key, value = padded
    updates = key.mT @ value
    normalizers = key.sum(dim=-2)
    if state is None:
        state = LinearAttentionState(torch.zeros_like(updates[:, :, 0]), torch.zeros_like(normalizers[:, :, 0]))
    key_values = torch.cat([state.key_value.unsqueeze(2), updates], dim=2).cumsum(dim=2)
    normalizers = torch.cat([state.normalizer.unsqueeze(2), normalizers], dim=2).cumsum(dim=2)
    scores = (query @ key.mT).tril()
    numerator = scores @ value + query @ key_values[:, :, :-1]
    denominator = scores.sum(dim=-1, keepdim=True) + query @ normalizers[:, :, :-1].unsqueeze(-1)
    state = LinearAttentionState(key_values[:, :, -1], normalizers[:, :, -1])
    return numerator.flatten(2, 3)[:, :, :time], denominator.flatten(2, 3)[:, :, :time], state


def build_feature_map(
    feature_map: Callable[[int], nn.Module] | Callable[[Tensor], Tensor], head_dim: int
) -> FeatureMap:
    """The map that a factory builds for a width, or that applies a plain function."""
    return feature_map(head_dim) if inspect.isclass(factory_target(feature_map)) else PlainFunction(feature_map)


@register_mixer("linear")
class LinearAttention(Mixer):
    """y_i = f(q_i) S / f(q_i) z, projected, with S = sum_j f(k_j) v_jᵀ, z = sum_j f(k_j), over all j or all j <= i.

    Grids are read in raster order. Causal attention runs in parallel over chunks, and carries the state (S, z) from one
    stretch of a sequence to the next (`scan`, `step`). Features, sums and quotient are in fp32, also under autocast.
    Paper: "Transformers are RNNs", arXiv 2006.16236.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        feature_map: factory `SomeMap(head_dim)` of f, see `FeatureMap`; or a plain function from (..., head_dim) to
            (..., features), nowhere negative.
        qkv_bias: bias of the projection to queries, keys and values, whose rows are stacked in this order.
        projection_bias: bias of the output projection.
        causal: each token attends to itself and those before it.
        projection_dropout: rate on the output.
        chunk_size: tokens in a chunk of causal attention; a matter of speed only.
        eps: second argument of `normalizer`: the smallest denominator, where that is `DivideBySum`.
        normalizer: factory `Normalizer(dim, eps)` of a module from f(q) S and f(q) z to the heads' output.
        value_convolution: factory `Convolution(dim)` of a module over the grid of values, whose output is added before
            the projection: linear attention alone is blind to neighbours. Papers: "FLatten Transformer", arXiv
            2308.00442; "Nyströmformer", arXiv 2102.03902.

    Raises QuintetError for a feature map, or a value convolution, of causal attention that would see later tokens.
    """

    title = "Linear attention: a feature map in place of the softmax, so that cost grows with the number of tokens"
    paper = "Transformers are RNNs, arXiv 2006.16236"
    subquadratic: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "causal": {"causal": True, "chunk_size": 8},
        "relu": {"feature_map": F.relu, "num_heads": 4, "qkv_bias": False},
        "normalized": {
            "feature_map": F.elu,
            "normalizer": DivideByRootMeanSquare,
            "value_convolution": partial(DepthwiseConvolution, kernel_size=3),
        },
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        feature_map: Callable[[int], nn.Module] | Callable[[Tensor], Tensor] = EluPlusOne,
        qkv_bias: bool = True,
        projection_bias: bool = True,
        causal: bool = False,
        projection_dropout: float = 0.0,
        chunk_size: int = 64,
        eps: float = 1e-6,
        normalizer: Callable[[int, float], nn.Module] = DivideBySum,
        value_convolution: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, resolve_num_heads(dim, num_heads)
        self.chunk_size = chunk_size
        self.causal = self.streaming = causal
        self.feature_map = build_feature_map(feature_map, dim // self.num_heads)
        self.normalizer = normalizer(dim, eps)
        self.value_convolution = value_convolution(dim) if value_convolution else None
        if causal and not (self.feature_map.causal and self.value_convolution is None):
            part = type(self.feature_map if self.value_convolution is None else self.value_convolution).__name__
            raise QuintetError(
                f"{part} looks at later tokens, which LinearAttention(causal=True) may not; leave it out"
            )
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=projection_bias)
        self.projection_dropout = Dropout(projection_dropout)
        self.grid_ranks = getattr(self.value_convolution, "grid_ranks", type(self).grid_ranks)

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        self.check_tokens(x, mask)
        y, _ = self._attend(mask_tokens(x, mask), mask, None)
        return mask_tokens(y, mask)

    def scan(
        self, x: Float[Tensor, "batch time dim"], state: LinearAttentionState | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], LinearAttentionState]:
        if not self.causal:
            raise QuintetError("LinearAttention carries a state along a sequence only with causal=True")
        self.check_tokens(x)
        return self._attend(x, None, state)

    def _attend(
        self, x: Tensor, mask: Tensor | None, state: LinearAttentionState | None
    ) -> tuple[Tensor, LinearAttentionState | None]:
        qkv, flat_mask = flatten_grid(self.qkv(x), mask)
        heads = qkv.unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3)
        with torch.autocast(x.device.type, enabled=False):
            query, key, value = heads.to(torch.promote_types(x.dtype, torch.float32)).unbind(2)
            y, state = self._average(query, key, value, Tokens(flat_mask, self.causal), state)
        y = unflatten_grid(y.to(qkv.dtype).transpose(1, 2).flatten(2), x.shape[1:-1])
        if self.value_convolution is not None:
            values = unflatten_grid(qkv[..., 2 * self.dim :], x.shape[1:-1])
            y = y + self.value_convolution(mask_tokens(values, mask))
        return self.projection_dropout(self.proj(y)), state

    def _average(
        self, query: Tensor, key: Tensor, value: Tensor, tokens: Tokens, state: LinearAttentionState | None
    ) -> tuple[Tensor, LinearAttentionState | None]:
        """The mean of the values of each query, by features of it and of the keys."""
        query, key = self.feature_map.queries(query, tokens), self.feature_map.keys(key, tokens)
        if tokens.mask is not None:
            key = key.masked_fill(~tokens.mask[:, None, :, None], 0.0)
        if self.causal:
            numerator, denominator, state = causal_linear_attention(query, key, value, state, self.chunk_size)
        else:
            numerator = query @ (key.mT @ value)
            denominator = query @ key.sum(dim=-2).unsqueeze(-1)
        return self.normalizer(numerator, denominator), state
