"""InceptionTime: stacked convolutions of several lengths, which classify series of any length.

Paper: "InceptionTime: Finding AlexNet for Time Series Classification", arXiv 1909.04939.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.errors import QuintetError
from ...core.mixer import mask_tokens
from ...core.norm import BatchNorm
from ...core.regularization.dropout import Dropout
from ...core.weights.network import Network
from ...core.weights.registry import register_model
from ._shared import check_channels

EVERY = 3  # modules from one shortcut to the next

Steps = Float[Tensor, "batch time channels"]
Mask = Bool[Tensor, "batch time"]


def _as_images(layer: Callable[[Tensor], Tensor], x: Steps) -> Float[Tensor, "batch steps filters"]:
    """A layer on series as images of one row: only of images does torch know the layout with channels last, in which a
    CPU convolves and goes back two to three times faster."""
    return layer(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)


class InceptionModule(nn.Module):
    """relu(norm([conv_k(W x) for each length k, W' max of 3 steps of x])), W x being narrower than x.

    Convolutions are centred; one of an even length sees one step more ahead than behind.

    Args:
        channels: of x.
        filters: of each convolution; their number plus 1 times as many channels come out.
        lengths: steps that each convolution sees.
    """

    def __init__(self, channels: int, filters: int, lengths: Sequence[int]) -> None:
        super().__init__()
        self.lengths, narrow = tuple(lengths), filters if channels > 1 else 1
        self.bottleneck = nn.Linear(channels, filters, bias=False) if channels > 1 else nn.Identity()
        self.convolutions = nn.ModuleList(nn.Conv2d(narrow, filters, (1, length), bias=False) for length in lengths)
        self.pool = nn.MaxPool2d((1, 3), stride=1, padding=(0, 1))
        self.pooled = nn.Linear(channels, filters, bias=False)
        self.norm = BatchNorm(filters * (len(lengths) + 1))

    def forward(self, x: Steps, mask: Mask | None = None) -> Float[Tensor, "batch time more"]:
        narrow = self.bottleneck(x)
        branches = [
            _as_images(convolve, F.pad(narrow, (0, 0, (length - 1) // 2, length // 2)))
            for convolve, length in zip(self.convolutions, self.lengths)
        ]
        # Steps beyond the end are no competitors.
        seen = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), -torch.inf)
        branches.append(self.pooled(mask_tokens(_as_images(self.pool, seen), mask)))
        return mask_tokens(F.relu(self.norm(torch.cat(branches, -1), mask)), mask)


class InceptionTime(Network):
    """head(mean over real steps of `depth` Inception modules); every third adds a shortcut, relu(x + norm(W x')).

    Steps beyond a series' own take no part; what is not observed counts as 0, the mean of the training series.

    Args:
        channels: of the series.
        num_classes: number of classes.
        filters: of each convolution; 4 times as many channels come out of a module.
        depth: number of modules.
        lengths: steps that the convolutions of a module see.
        head_dropout: rate on the mean.

    Raises QuintetError for sizes below 1 and series of other channels.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    finetune: ClassVar[str] = "experiment=timeseries/classify data.path=FILE"

    def __init__(
        self,
        channels: int = 1,
        num_classes: int = 2,
        filters: int = 32,
        depth: int = 6,
        lengths: Sequence[int] = (40, 20, 10),
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(filters, depth, *lengths) < 1 or not lengths:
            raise QuintetError(f"filters={filters}, depth={depth}, lengths={list(lengths)}; each is at least 1")
        self.channels, width = channels, filters * (len(lengths) + 1)
        self.inceptions = nn.ModuleList(
            InceptionModule(width if layer else channels, filters, lengths) for layer in range(depth)
        )
        before = [channels] + [width] * (depth // EVERY)
        self.shortcuts = nn.ModuleList(nn.Linear(size, width, bias=False) for size in before[: depth // EVERY])
        self.shortcut_norms = nn.ModuleList(BatchNorm(width) for _ in self.shortcuts)
        self.head_dropout = Dropout(head_dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        observed: Bool[Tensor, "batch time channels"],
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits.

        Args:
            values: of any length.
            observed: True where `values` is a number that counts.
            mask: True where a step is real.
        """
        check_channels(values, self.channels)
        if mask is not None and not torch.compiler.is_compiling() and mask.all():
            mask = None  # series of one length need no masks, which would take twice as long
        x = residual = mask_tokens(values.masked_fill(~observed, 0.0), mask)
        for layer, inception in enumerate(self.inceptions):
            x = inception(x, mask)
            if layer % EVERY == EVERY - 1:
                shortcut, norm = self.shortcuts[layer // EVERY], self.shortcut_norms[layer // EVERY]
                x = residual = mask_tokens(F.relu(x + norm(shortcut(residual), mask)), mask)
        mean = x.mean(1) if mask is None else x.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.head(self.head_dropout(mean))

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names, each module with the shortcut that ends there."""
        groups = [[f"inceptions.{layer}"] for layer in range(len(self.inceptions))]
        for number in range(len(self.shortcuts)):
            groups[EVERY * (number + 1) - 1] += [f"shortcuts.{number}", f"shortcut_norms.{number}"]
        return groups


@register_model("timeseries/inception_time")
def inception_time(**arguments: Any) -> InceptionTime:
    """Classifier of series of any length: six Inception modules of convolutions over 40, 20 and 10 steps."""
    return InceptionTime(**arguments)
