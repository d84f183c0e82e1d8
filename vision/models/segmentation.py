"""A network that segments: any backbone with feature maps, any decoder, and scores for every pixel.

A backbone whose maps all have one stride, as a plain Vision Transformer's, is given a pyramid of them first.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...core.weights.network import Network, said
from ...core.weights.pretrained import Layout
from .. import pretrained
from .decoders import enlarge

STRIDES = (4, 8, 16, 32)


class SegmentationNetwork(Network):
    """decoder(backbone.feature_maps(images)), enlarged bilinearly to the size of the images.

    Weights of segmentation_models_pytorch were trained with corners aligned where scores are enlarged; the buffer
    `align_corners` says so of these weights, and is absent for all others.

    Args:
        backbone: a network with `feature_maps(images)`.
        decoder: takes the list of maps and returns scores (batch, classes, rows, columns).
    """

    layouts: ClassVar[tuple[Layout, ...]] = pretrained.SEGFORMER_LAYOUTS
    remedies: ClassVar[dict[str, str]] = {"image_size": "leave it out: images of any size are taken as they are"}
    optional_buffers: ClassVar[tuple[str, ...]] = ("align_corners",)
    finetune: ClassVar[str] = "experiment=vision/segment data.root=FOLDER"

    def __init__(self, backbone: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.register_buffer("align_corners", None)
        self.head_keys = tuple(f"decoder.{key}" for key in said(decoder, "head_keys"))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes height width"]:
        return enlarge(self.decoder(self.backbone.feature_maps(images)), images, self.align_corners is not None)

    def layer_groups(self) -> list[list[str]]:
        """The backbone's; the decoder learns with the head."""
        return below_backbone(self.backbone)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        stated = state_dict.get(f"{prefix}align_corners")
        # A part of the weights, such as adapters alone, says nothing of what they were trained with.
        if stated is not None or any(key.startswith(f"{prefix}decoder.") for key in state_dict):
            device = next(self.parameters()).device
            self.align_corners = None if stated is None else torch.ones((), dtype=torch.bool, device=device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class FeaturePyramid(Network):
    """A backbone with maps at strides 4, 8, 16 and 32, whatever strides it has by itself.

    A stride the backbone has is taken as it is, from the last of several maps. Any other one is made from the nearest:
    finer ones by transposed convolutions that each double the grid, coarser ones by averaging. Paper: "Exploring Plain
    Vision Transformer Backbones for Object Detection", arXiv 2203.16527 (the simple feature pyramid).

    Args:
        backbone: a network with `feature_maps` and `feature_info`.
        strides: the strides wanted, finest first.
    """

    def __init__(self, backbone: nn.Module, strides: Sequence[int] = STRIDES) -> None:
        super().__init__()
        self.backbone = backbone
        known = [stride for _, stride in backbone.feature_info]
        self.feature_info: list[tuple[int, int]] = []
        self.sources: list[tuple[int, int]] = []  # number of the map, and how much coarser the wanted one is
        steps = []
        for stride in strides:
            # The nearest in octaves; of equally near ones the deeper.
            source = min(range(len(known)), key=lambda index: (abs(_octaves(known[index], stride)), -index))
            channels, octaves = backbone.feature_info[source][0], _octaves(known[source], stride)
            steps.append(_finer(channels, -octaves))
            self.sources.append((source, 2 ** max(0, octaves)))
            self.feature_info.append((channels // 2 ** max(0, -octaves), stride))
        self.steps = nn.ModuleList(steps)
        # Patches of 14 pixels have no stride of 16 above them: their maps are resampled instead of cut.
        self.exact = all(max(stride, base) % min(stride, base) == 0 for stride in strides for base in known)

    def feature_maps(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _dim _rows _columns"]]:
        """One map a stride, each of the size of the image divided by its stride and rounded up."""
        maps = self.backbone.feature_maps(images)
        made = []
        for (source, coarser), step, (_, stride) in zip(self.sources, self.steps, self.feature_info):
            x = step(maps[source])
            if coarser > 1:
                x = F.avg_pool2d(x, coarser, ceil_mode=True, count_include_pad=False)
            rows, columns = (-(-size // stride) for size in images.shape[-2:])
            if self.exact:
                x = x[..., :rows, :columns]
            made.append(enlarge(x, images[:, :1, :rows, :columns]))
        return made

    def layer_groups(self) -> list[list[str]]:
        """The backbone's; the pyramid itself learns with the head."""
        return below_backbone(self.backbone)


def below_backbone(backbone: nn.Module) -> list[list[str]]:
    """The layers of what is called `backbone` in a network around it."""
    return [[f"backbone.{prefix}" for prefix in prefixes] for prefixes in said(backbone, "layer_groups")()]


def with_pyramid(backbone: nn.Module) -> nn.Module:
    """The backbone itself where its strides are distinct and at least 4, else with a pyramid over what it has.

    A small backbone of one's own may have finer maps, such as strides 1 and 2 for tiny images; it keeps them.
    """
    strides = [stride for _, stride in backbone.feature_info]
    return FeaturePyramid(backbone) if len(set(strides)) < len(strides) or len(strides) == 1 else backbone


def _octaves(stride: int, wanted: int) -> int:
    """How many times a grid of `stride` is halved to get one of `wanted`."""
    return (wanted // stride).bit_length() - 1 if wanted >= stride else -((stride // wanted).bit_length() - 1)


def _finer(channels: int, octaves: int) -> nn.Module:
    """Doubles a grid `octaves` times, halving the channels each time."""
    layers: list[nn.Module] = []
    for step in range(max(0, octaves)):
        if step:
            layers += [nn.BatchNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels //= 2
    return nn.Sequential(*layers)
