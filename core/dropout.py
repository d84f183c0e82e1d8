"""Dropout whose random draws cost a CPU a fraction of torch's."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = 2**16  # of a random number of 16 bits


class Dropout(nn.Dropout):
    """y = x b / (1 - p) in training, each b being 0 with probability `p` and 1 otherwise; else y = x.

    On a CPU torch draws one number an element, which can take a tenth of a training step. Here four elements share the
    64 bits of one draw, so that `p` is rounded to a multiple of 1 / 65536. Elsewhere, and compiled, this is
    torch.nn.Dropout. Paper: "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        dropped = round(self.p * LEVELS)
        drawn = self.training and 0 < dropped < LEVELS and x.device.type == "cpu"
        if not drawn or torch.compiler.is_compiling():
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = bits[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
