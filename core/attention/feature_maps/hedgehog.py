"""Hedgehog's feature map: learned features with the sharp weights of a softmax."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import QuintetError
from .contract import FeatureMap, Tokens


class HedgehogFeatures(FeatureMap):
    """f(x) = [softmax(x W), softmax(-x W)] over the width of the head, with one W of queries and one of keys.

    Both start as the identity. This is the authors' form for conversions of trained models; the paper writes exp where
    they take the softmax. Paper: "The Hedgehog & the Porcupine: Expressive Linear Attentions with Softmax Mimicry",
    arXiv 2402.04347.

    Args:
        head_dim: width of queries and keys of a head.
        num_heads: heads of the attention, each with a W of its own; None means one for all heads.
    """

    title = "Hedgehog: linear attention whose feature map learns to be as spiky as a softmax"
    paper = "The Hedgehog and the Porcupine, arXiv 2402.04347"

    def __init__(self, head_dim: int, num_heads: int | None = None) -> None:
        super().__init__()
        self.query_weight = nn.Parameter(torch.eye(head_dim).repeat(num_heads or 1, 1, 1))
        self.key_weight = nn.Parameter(torch.eye(head_dim).repeat(num_heads or 1, 1, 1))

    def queries(
        self, query: Float[Tensor, "batch heads tokens head_dim"], tokens: Tokens
    ) -> Float[Tensor, "batch heads tokens features"]:
        return self._features(query, self.query_weight)

    def keys(
        self, key: Float[Tensor, "batch heads tokens head_dim"], tokens: Tokens
    ) -> Float[Tensor, "batch heads tokens features"]:
        return self._features(key, self.key_weight)

    def _features(self, x: Tensor, weight: Tensor) -> Tensor:
        if len(weight) not in (1, x.shape[1]):
            raise QuintetError(
                f"HedgehogFeatures(num_heads={len(weight)}) in attention of {x.shape[1]} heads; give both one number"
            )
        projected = x @ weight.to(x.dtype)
        return torch.cat([projected.softmax(-1), (-projected).softmax(-1)], dim=-1)
