"""cosFormer's feature map: weights that fall with the distance between tokens as a cosine does."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .contract import FeatureMap, Tokens


class CosineReweighting(FeatureMap):
    """f(x_i) = [relu(x) cos(a_i), relu(x) sin(a_i)], so that f(q_i) · f(k_j) = relu(q) · relu(k) cos(a_i - a_j),

    with a_i = pi i / (2 M) for the i-th real token of M, in raster order. M is known at the end only: not for causal
    attention. Paper: "cosFormer: Rethinking Softmax in Attention", arXiv 2202.08791.

    Args:
        head_dim: width of queries and keys of a head.
    """

    title = "cosFormer: linear attention of ReLU features that near tokens get more of"
    paper = "cosFormer: Rethinking Softmax in Attention, arXiv 2202.08791"
    causal = False

    def __init__(self, head_dim: int) -> None:
        super().__init__()

    def queries(
        self, query: Float[Tensor, "batch heads tokens head_dim"], tokens: Tokens
    ) -> Float[Tensor, "batch heads tokens features"]:
        angle = tokens.positions(query).to(query.dtype) / tokens.counts(query) * (math.pi / 2)
        return torch.cat([query.relu() * angle.cos(), query.relu() * angle.sin()], dim=-1)

    def keys(
        self, key: Float[Tensor, "batch heads tokens head_dim"], tokens: Tokens
    ) -> Float[Tensor, "batch heads tokens features"]:
        return self.queries(key, tokens)
