"""The class of the nearest training series: the baseline that a classifier of series must beat to be worth its cost."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .interpolation import linear_interpolation

MOST = 1000  # training series kept
LONGEST = 256  # steps to which longer ones are brought


class NearestNeighbor(nn.Module):
    """argmin over training series of the Euclidean distance, both stretched to one length by linear interpolation.

    Gaps count as straight lines. Reference: "The great time series classification bake off", arXiv 1602.01711, in which
    it is the first baseline.

    Args:
        channels: of the series.
        length: to which all are stretched; at most 256.
        count: of training series; of more than 1,000 an even choice is kept.
    """

    def __init__(self, channels: int, length: int, count: int) -> None:
        super().__init__()
        self.length = min(length, LONGEST)
        self.register_buffer("series", torch.full((min(count, MOST), self.length * channels), float("nan")))
        self.register_buffer("labels", torch.zeros(min(count, MOST), dtype=torch.int64))

    @torch.no_grad()
    def fit(self, series: Sequence[Float[Tensor, "_time channels"]], labels: Int[Tensor, " series"]) -> None:
        """Keeps the training series, NaN where nothing was observed."""
        chosen = torch.linspace(0, len(series) - 1, len(self.series)).round().long()
        stretched = torch.cat([self.stretch(series[number][None]) for number in chosen.tolist()])
        self.series.copy_(stretched)
        self.labels.copy_(labels[chosen])

    def stretch(self, values: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch features"]:
        """Series of one length, brought to that of all."""
        whole = linear_interpolation(values, values.isfinite())
        if whole.shape[1] != self.length:
            whole = F.interpolate(whole.transpose(1, 2), self.length, mode="linear", align_corners=True).transpose(1, 2)
        return whole.flatten(1)

    def forward(
        self, values: Float[Tensor, "batch time channels"], mask: Bool[Tensor, "batch time"]
    ) -> Int[Tensor, " batch"]:
        """Classes of padded series; the mask is True where a step is real."""
        stretched = torch.cat([self.stretch(one[real][None]) for one, real in zip(values, mask, strict=True)])
        return self.labels[torch.cdist(stretched, self.series).argmin(1)]
