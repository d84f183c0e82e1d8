"""A norm whose scale and shift come from a condition, such as a time step or a class."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...kernels.modulate import NormKind, modulate


class AdaptiveNorm(nn.Module):
    """y = normalize(x) * (1 + scale) + shift, over the last axis, with (shift, scale) = linear(silu(condition)).

    The condition is one vector a sample. `linear` starts at zero, so that the norm starts without scale and shift; its
    first `dim` rows give the shift. Statistics are in fp32 whatever the input. Paper: "Scalable Diffusion Models with
    Transformers", arXiv 2212.09748, section 3.2.

    Args:
        dim: width of the tokens.
        condition_dim: width of the condition; None means `dim`.
        eps: added to the (biased) variance or the mean square.
        kind: "layer" standardizes, "rms" divides by the root mean square.
    """

    takes = frozenset({"condition", "cu_seqlens"})

    def __init__(self, dim: int, condition_dim: int | None = None, eps: float = 1e-6, kind: NormKind = "layer") -> None:
        super().__init__()
        self.dim, self.eps, self.kind = dim, eps, kind
        self.linear = nn.Linear(dim if condition_dim is None else condition_dim, 2 * dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self,
        x: Float[Tensor, "_batch *grid dim"],
        condition: Float[Tensor, "batch condition_dim"],
        cu_seqlens: Int[Tensor, " boundaries"] | None = None,
    ) -> Float[Tensor, "_batch *grid dim"]:
        """Normalizes; `cu_seqlens` are the borders of the samples where `x` holds them packed, (1, tokens, dim)."""
        shift, scale = self.linear(F.silu(condition)).chunk(2, dim=-1)
        if cu_seqlens is None:
            return modulate(x, scale, shift, self.eps, kind=self.kind)
        lengths, tokens = cu_seqlens.diff(), x.shape[1]
        shift, scale = (part.repeat_interleave(lengths, 0, output_size=tokens) for part in (shift, scale))
        return modulate(x.transpose(0, 1), scale, shift, self.eps, kind=self.kind).transpose(0, 1)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}, kind={self.kind}"
