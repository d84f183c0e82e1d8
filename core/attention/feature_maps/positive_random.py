"""Performer's feature map: random features whose products are softmax attention's weights in the mean."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .contract import FeatureMap, Tokens


class PositiveRandomFeatures(FeatureMap):
    """f(x)_m = exp(w_m · u - |u|² / 2) / sqrt(M), u = x / head_dim^(1/4): E f(q) · f(k) = exp(q · k / sqrt(head_dim)).

    Directions w are orthogonal in blocks of head_dim, with the lengths of Gaussian vectors; they are drawn once, shared
    by the heads and stored; `redraw` draws others (`RedrawFeatures` does so in training, as the authors do every 1000
    steps). Features are divided by their largest, of a query and, unless causal, of a sample's real keys, which
    cancels; causal keys are not, so leave small denominators in place: `LinearAttention(..., eps=1e-30)`.
    Paper: "Rethinking Attention with Performers", arXiv 2009.14794.

    Args:
        head_dim: width of queries and keys of a head.
        features: M; None means head_dim ln(head_dim).
    """

    title = "Performer: linear attention by random features that approximate the softmax"
    paper = "Rethinking Attention with Performers, arXiv 2009.14794"

    def __init__(self, head_dim: int, features: int | None = None) -> None:
        super().__init__()
        self.features = max(1, int(head_dim * math.log(head_dim))) if features is None else features
        self.register_buffer("projection", torch.empty(self.features, head_dim))
        self.redraw()

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Draws other directions, on the CPU, so that a generator of one seed gives the same on every device."""
        features, head_dim = self.projection.shape
        blocks = -(-features // head_dim)
        gaussian = torch.randn(2, blocks, head_dim, head_dim, generator=generator, device="cpu")
        q, r = torch.linalg.qr(gaussian[0])
        # Without these signs q would not point everywhere alike: its first column would always point down.
        q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
        rows = q.mT * gaussian[1].norm(dim=-1, keepdim=True)
        self.projection.copy_(rows.flatten(0, 1)[:features])

    def queries(
        self, query: Float[Tensor, "batch heads tokens head_dim"], tokens: Tokens
    ) -> Float[Tensor, "batch heads tokens features"]:
        exponents = self._exponents(query)
        return (exponents - exponents.detach().amax(-1, keepdim=True)).exp() / math.sqrt(self.features)

    def keys(
        self, key: Float[Tensor, "batch heads tokens head_dim"], tokens: Tokens
    ) -> Float[Tensor, "batch heads tokens features"]:
        exponents = self._exponents(key)
        if not tokens.causal:
            largest = exponents.detach()
            if tokens.mask is not None:
                largest = largest.masked_fill(~tokens.mask[:, None, :, None], torch.finfo(key.dtype).min)
                exponents = exponents.masked_fill(~tokens.mask[:, None, :, None], torch.finfo(key.dtype).min)
            exponents = exponents - largest.amax((-2, -1), keepdim=True)
        return exponents.exp() / math.sqrt(self.features)

    def _exponents(self, x: Tensor) -> Tensor:
        u = x * x.shape[-1] ** -0.25
        return u @ self.projection.to(x.dtype).mT - u.square().sum(-1, keepdim=True) / 2

    def extra_repr(self) -> str:
        return f"features={self.features}"
