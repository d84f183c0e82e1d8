"""Batch normalization of tokens, of which some may be padding."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..mixer import mask_tokens


class BatchNorm(nn.BatchNorm1d):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, of each channel over all real tokens of a batch.

    In evaluation mean and variance are the running ones of training. Masked tokens are zero and take no part.
    Statistics are in fp32 whatever the input.

    Paper: "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift", arXiv
    1502.03167.

    Args:
        dim: width of the tokens.
        eps: added to the variance.
        momentum: share of a batch in the running statistics.
    """

    takes = frozenset({"mask"})

    def __init__(self, dim: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(dim, eps, momentum)

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        if mask is None or not self.training:
            return mask_tokens(super().forward(x.flatten(0, -2)).view_as(x), mask)
        real = mask_tokens(x, mask).to(torch.promote_types(x.dtype, torch.float32))
        axes, count = tuple(range(x.dim() - 1)), mask.sum()
        mean = real.sum(axes) / count.clamp(min=1)
        centred = mask_tokens(real - mean, mask)
        variance = centred.square().sum(axes) / count.clamp(min=1)
        self._remember(mean, variance, count)
        y = centred * (self.weight * (variance + self.eps).rsqrt()) + self.bias
        return mask_tokens(y.to(x.dtype), mask)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Into the running statistics, which a batch without a real token leaves as they are."""
        self.num_batches_tracked += 1
        share = self.momentum * (count > 0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
