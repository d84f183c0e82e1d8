"""Batch normalization of tokens, of which some may be padding."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..mixer import mask_tokens


class BatchNorm(nn.BatchNorm1d):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, of each channel over all real tokens of a batch.

    In evaluation mean and variance are the running ones of training. Masked tokens are zero and take no part.

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
        axes, count = tuple(range(x.dim() - 1)), mask.sum()
        mean = mask_tokens(x, mask).sum(axes) / count
        centred = mask_tokens(x - mean, mask)
        variance = centred.square().sum(axes) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        return mask_tokens(centred * (self.weight * (variance + self.eps).rsqrt()) + self.bias, mask)
