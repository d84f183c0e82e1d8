"""What linear attention asks of a feature map, and what it tells one."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Tokens(NamedTuple):
    """What a feature map may know of the tokens whose queries or keys it maps, for maps that need it.

    mask: True where a token is real; None where all are.
    causal: each token attends to itself and those before it, so that keys may not depend on later ones.
    """

    mask: Bool[Tensor, "batch tokens"] | None = None
    causal: bool = False

    def positions(self, x: Float[Tensor, "batch heads tokens head_dim"]) -> Int[Tensor, "_batch 1 tokens 1"]:
        """The number of real tokens before each."""
        if self.mask is None:
            return torch.arange(x.shape[-2], device=x.device).view(1, 1, -1, 1)
        real = self.mask.long()
        return (real.cumsum(1) - real)[:, None, :, None]

    def counts(self, x: Float[Tensor, "batch heads tokens head_dim"]) -> Int[Tensor, "_batch 1 1 1"]:
        """The number of real tokens of each sample, at least 1."""
        if self.mask is None:
            return torch.full((1, 1, 1, 1), x.shape[-2], device=x.device)
        return self.mask.sum(1).clamp_min(1).view(-1, 1, 1, 1)


class FeatureMap(nn.Module):
    """f, constructible as `SomeMap(head_dim)`: the weight of key k for query q is f(q) · f(k), nowhere negative.

    Queries and keys come in float32 or float64, and features stay so. A map of both alike writes `forward`; one that
    tells them apart, or looks at `tokens`, writes `queries` and `keys`. Features of masked keys are cleared afterwards,
    and whatever factor all features of one query share cancels.

    Attributes:
        causal: features of a token depend on none after it; without, causal attention refuses the map.
    """

    causal: bool = True

    def queries(
        self, query: Float[Tensor, "batch heads tokens head_dim"], tokens: Tokens
    ) -> Float[Tensor, "batch heads tokens features"]:
        return self(query)

    def keys(
        self, key: Float[Tensor, "batch heads tokens head_dim"], tokens: Tokens
    ) -> Float[Tensor, "batch heads tokens features"]:
        return self(key)
