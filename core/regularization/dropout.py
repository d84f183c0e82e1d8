"""Dropout whose random draws cost a CPU a fraction of torch's."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

LEVELS = 2**16  # of a random number of 16 bits


def random_words(count: int) -> NDArray[np.uint64]:
    """`count` random words of 64 bits: SplitMix64 over consecutive states, the first drawn by torch's generator.

    Whole-array arithmetic in place of one draw a word, seeded and restored with torch's own state. Paper: "Fast
    splittable pseudorandom number generators", OOPSLA 2014.
    """
    start = torch.empty((), dtype=torch.int64).random_(-(2**63), None).item()
    words = np.arange(1, count + 1, dtype=np.uint64)
    words *= np.uint64(0x9E3779B97F4A7C15)
    words += np.uint64(start % 2**64)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def dropout(x: Float[Tensor, "*shape"], rate: float) -> Float[Tensor, "*shape"]:
    """x b / (1 - rate), each b being 0 with probability `rate` and 1 otherwise.

    On a CPU torch draws one number an element, which can take a tenth of a training step. Here four elements share the
    64 bits of one word, so that `rate` is rounded to a multiple of 1 / 65536. Elsewhere, and compiled, this is torch's.
    """
    dropped = round(rate * LEVELS)
    if x.device.type != "cpu" or not 0 < dropped < LEVELS or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    kept = random_words(-(-x.numel() // 4)).view(np.uint16)[: x.numel()] >= dropped
    factor = np.multiply(kept, np.float32(LEVELS / (LEVELS - dropped)), dtype=np.float32)
    return x * torch.from_numpy(factor).view(x.shape).to(x.dtype)


class Dropout(nn.Dropout):
    """y = `dropout(x, p)` in training; else y = x.

    Paper: "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return dropout(x, self.p) if self.training else x
