"""Decoders: from the feature maps of any backbone to one map of class scores at the stride of the finest of them.

Each is constructed as `SomeDecoder(feature_info, num_classes)`, `feature_info` being (channels, stride) of each map,
finest first, and called with the list of these maps (batch, channels, height, width).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...core.errors import QuintetError

FeatureInfo = Sequence[Sequence[int]]


@runtime_checkable
class Decoder(Protocol):
    """A class or function that builds a decoder once the backbone says what its maps are and the data its classes."""

    def __call__(self, *, feature_info: FeatureInfo, num_classes: int) -> nn.Module: ...


def enlarge(x: Float[Tensor, "batch channels _rows _columns"], like: Tensor, align_corners: bool = False) -> Tensor:
    """`x` resampled bilinearly to the height and width of `like`.

    With `align_corners` the centres of the outermost pixels of both lie upon one another, else their outer edges do.
    """
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return x
    # Training on the CPU, where torch's backward is several times slower than that of two products of matrices, as long
    # as these are small.
    if x.requires_grad and x.device.type == "cpu" and not torch.compiler.is_compiling() and max(x.shape[-2:]) <= 96:
        rows, columns = (_bilinear(before, after, x.dtype, align_corners) for before, after in zip(x.shape[-2:], size))
        return rows @ x.contiguous() @ columns.T
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


@lru_cache(maxsize=64)
def _bilinear(before: int, after: int, dtype: torch.dtype, align_corners: bool) -> Float[Tensor, "after before"]:
    """The matrix that resamples a line of `before` values linearly to `after` ones."""
    with torch.inference_mode(False), torch.no_grad():
        lines = torch.eye(before, dtype=dtype).unsqueeze(0)
        return F.interpolate(lines, size=after, mode="linear", align_corners=align_corners)[0].T.contiguous()


def pointwise(
    x: Float[Tensor, "batch channels rows columns"],
    weight: Float[Tensor, "out_channels channels"],
    bias: Float[Tensor, " out_channels"],
) -> Float[Tensor, "batch out_channels rows columns"]:
    """A 1 x 1 convolution as one product of matrices for each image, whichever way `x` lies in memory."""
    return (weight @ x.flatten(2) + bias.unsqueeze(-1)).unflatten(-1, x.shape[-2:])


def convolution(channels: int, out_channels: int, size: int = 3) -> nn.Sequential:
    """relu(batch_norm(conv(x))), the grid unchanged."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class SegFormerHead(nn.Module):
    """classify(relu(batch_norm(fuse(maps)))): each map projected, enlarged to the finest and fused with the others.

    Projection, enlargement and fusion are linear, so each map meets the product of the two matrices, before it is
    enlarged: the same sum at a tenth of the cost. Paper: "SegFormer", arXiv 2105.15203 section 3.2.

    Args:
        feature_info: (channels, stride) of each map, finest first.
        num_classes: maps of scores.
        dim: width of the projections.
        dropout: rate before the classifier.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("classifier.weight", "classifier.bias")

    def __init__(self, feature_info: FeatureInfo, num_classes: int, dim: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(channels, dim) for channels, _ in feature_info)
        # Input channels are those of the coarsest map first, as published.
        self.fuse = nn.Conv2d(len(self.projections) * dim, dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(dim, num_classes, 1)

    def forward(
        self, maps: list[Float[Tensor, "batch _channels _rows _columns"]]
    ) -> Float[Tensor, "batch classes _rows _columns"]:
        fused = 0
        for x, projection, part in zip(
            maps, self.projections, reversed(self.fuse.weight.flatten(1).chunk(len(maps), 1))
        ):
            projected = pointwise(x, part @ projection.weight, part @ projection.bias)
            fused = fused + enlarge(projected, maps[0])
        x = self.dropout(F.relu(self.norm(fused)))
        return pointwise(x, self.classifier.weight.flatten(1), self.classifier.bias)


class UNetDecoder(nn.Module):
    """From the coarsest map upwards: enlarge, join the next finer map, two 3 x 3 convolutions; then classify.

    Not a `StagedDecoder`, whose tokens are channels last and whose stages keep the encoder's widths: around these
    convolutions that is no shorter, renames the stages, and makes the decoder's training step 4 to 10 % slower (CPU).

    Paper: "U-Net: Convolutional Networks for Biomedical Image Segmentation", arXiv 1505.04597.

    Args:
        feature_info: (channels, stride) of each map, finest first.
        num_classes: maps of scores.
        dim: width at the finest map; it doubles with each coarser one, up to eight times.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("classifier.weight", "classifier.bias")

    def __init__(self, feature_info: FeatureInfo, num_classes: int, dim: int = 64) -> None:
        super().__init__()
        *finer, (channels, _) = feature_info
        stages = []
        for level, (skip, _) in reversed(list(enumerate(finer))):
            width = dim * 2 ** min(level, 3)
            stages.append(nn.Sequential(convolution(channels + skip, width), convolution(width, width)))
            channels = width
        self.stages = nn.ModuleList(stages)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(
        self, maps: list[Float[Tensor, "batch _channels _rows _columns"]]
    ) -> Float[Tensor, "batch classes _rows _columns"]:
        *finer, x = maps
        for stage, skip in zip(self.stages, reversed(finer)):
            x = stage(torch.cat([enlarge(x, skip), skip], dim=1))
        return self.classifier(x)


class PyramidPooling(nn.Module):
    """fuse([x, enlarge(conv(pool_s(x))) for s in sizes]): context of the whole map at several scales.

    Paper: "Pyramid Scene Parsing Network", arXiv 1612.01105.

    Args:
        channels: of the map.
        dim: of the result.
        sizes: grids, side x side, to which the map is averaged.
    """

    def __init__(self, channels: int, dim: int, sizes: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        # One token of one image has no variance to normalize by, so the pooled maps have convolutions alone.
        self.branches = nn.ModuleList(nn.Conv2d(channels, dim, 1) for _ in self.sizes)
        self.fuse = convolution(channels + len(self.sizes) * dim, dim)

    def forward(self, x: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch dim rows columns"]:
        pooled = [
            enlarge(F.relu(branch(F.adaptive_avg_pool2d(x, size))), x)
            for size, branch in zip(self.sizes, self.branches)
        ]
        return self.fuse(torch.cat([x, *pooled], dim=1))


class UPerNet(nn.Module):
    """A feature pyramid over all maps, pyramid pooling on the coarsest, and a convolution over all of them, enlarged.

    Paper: "Unified Perceptual Parsing for Scene Understanding", arXiv 1807.10221.

    Args:
        feature_info: (channels, stride) of each map, finest first.
        num_classes: maps of scores.
        dim: width of the pyramid.
        dropout: rate before the classifier.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("classifier.weight", "classifier.bias")

    def __init__(self, feature_info: FeatureInfo, num_classes: int, dim: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        *finer, (coarsest, _) = feature_info
        self.pooling = PyramidPooling(coarsest, dim)
        self.laterals = nn.ModuleList(convolution(channels, dim, 1) for channels, _ in finer)
        self.outputs = nn.ModuleList(convolution(dim, dim) for _ in finer)
        self.fuse = convolution(dim * len(feature_info), dim)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(dim, num_classes, 1)

    def forward(
        self, maps: list[Float[Tensor, "batch _channels _rows _columns"]]
    ) -> Float[Tensor, "batch classes _rows _columns"]:
        *finer, coarsest = maps
        x = self.pooling(coarsest)
        pyramid = [x]
        for lateral, output, skip in reversed(list(zip(self.laterals, self.outputs, finer))):
            x = lateral(skip) + enlarge(x, skip)
            pyramid.append(output(x))
        fused = self.fuse(torch.cat([enlarge(x, maps[0]) for x in pyramid], dim=1))
        return self.classifier(self.dropout(fused))


class LinearProbe(nn.Module):
    """A linear map of each place of one feature map, batch-normalized first: what a frozen backbone knows by itself.

    Args:
        feature_info: (channels, stride) of each map, finest first.
        num_classes: maps of scores.
        level: which map, the coarsest by default.

    Raises QuintetError for a level the backbone does not have.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("classifier.weight", "classifier.bias")

    def __init__(self, feature_info: FeatureInfo, num_classes: int, level: int = -1) -> None:
        super().__init__()
        if not -len(feature_info) <= level < len(feature_info):
            raise QuintetError(f"level is {level}, but this backbone has the maps 0 to {len(feature_info) - 1}")
        self.level = level
        channels = feature_info[level][0]
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(
        self, maps: list[Float[Tensor, "batch _channels _rows _columns"]]
    ) -> Float[Tensor, "batch classes _rows _columns"]:
        return self.classifier(self.norm(maps[self.level]))
