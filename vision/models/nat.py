"""Neighborhood Attention Transformer: a pyramid of feature maps whose tokens attend to their nearest neighbours.

Papers: "Neighborhood Attention Transformer", arXiv 2204.07143; with dilation: "Dilated Neighborhood Attention
Transformer", arXiv 2209.15001.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ...core.attention import NeighborhoodAttention
from ...core.blocks.encoder import StagedEncoder
from ...core.errors import QuintetError
from ...core.feedforward import Mlp
from ...core.mixer import Mixer
from ...core.norm import LayerNorm
from ...core.weights.network import Network
from ...core.weights.pretrained import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from ._shared import check_grid_rank, check_images, initialise_linear_layers

# As published; core's default of 1e-6 is the Vision Transformer's.
Norm = partial(LayerNorm, eps=1e-5)

STEM_STRIDES = {1: (1, 1), 2: (2, 1), 4: (2, 2)}


class ConvolutionalStem(nn.Module):
    """norm(conv(conv(images))): tokens of overlapping patches, by two 3 x 3 convolutions.

    Args:
        in_channels: channels of the images.
        dim: width of the tokens.
        stride: pixels between tokens: 4 (both convolutions halve the grid), 2 (the first does) or 1.
    """

    def __init__(self, in_channels: int, dim: int, stride: int) -> None:
        super().__init__()
        if stride not in STEM_STRIDES:
            raise QuintetError(f"stem_stride is 1, 2 or 4; got {stride}")
        first, second = STEM_STRIDES[stride]
        self.convolutions = nn.Sequential(
            nn.Conv2d(in_channels, dim // 2, kernel_size=3, stride=first, padding=1),
            nn.Conv2d(dim // 2, dim, kernel_size=3, stride=second, padding=1),
        )
        self.norm = Norm(dim)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch rows columns dim"]:
        return self.norm(self.convolutions(images).movedim(1, -1))


class Downsample(nn.Module):
    """norm(conv(x)): half the grid, by a 3 x 3 convolution of stride 2 without bias.

    Args:
        dim: width of the tokens before.
        out_dim: width of the tokens after.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, out_dim, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = Norm(out_dim)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns out_dim"]:
        return self.norm(self.reduction(x.movedim(-1, 1)).movedim(1, -1))


class NeighborhoodAttentionTransformer(Network):
    """head(mean(norm(stages(stem(images))))), where the blocks of stage l mix a grid 2^l times coarser than the first.

    Each neighborhood attention has heads of width 32, a learned relative position bias and, where `dilations` says so,
    gaps between its neighbours. Any image size works: the convolutions round grids up, and a kernel wider than a grid
    is clamped to it. (The published code instead pads a grid smaller than kernel_size * dilation with zeros that take
    part; the two differ there and only there.) Papers: arXiv 2204.07143; with dilation: arXiv 2209.15001.

    Args:
        num_classes: outputs of the head; 0 leaves the head out and returns the pooled features.
        in_channels: channels of the images.
        dim: width of the tokens in the first stage; each further stage has twice as much.
        depths: number of blocks in each stage.
        kernel_size: neighbours along each axis; None means 7. For another mixer set its own.
        dilations: distance between neighbours, for each stage one number or one a block; None means 1.
        mixer: factory `SomeMixer(dim)` in place of neighborhood attention.
        mlp_ratio: hidden width of the feed-forward layers over `dim`.
        layer_scale: initial value of layer scale; None leaves it out.
        drop_path: rate of the last block in training, rising linearly from 0 at the first.
        stem_stride: pixels between the tokens of the first stage: 4, 2 or 1.

    Raises QuintetError for dilations that do not fit `depths`, for a mixer that cannot take images, and for images of
    other channels.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    finetune: ClassVar[str] = "experiment=vision/finetune data.root=FOLDER"
    layouts: ClassVar[tuple[Layout, ...]] = (pretrained.SHI_LABS, pretrained.HUGGING_FACE_NAT)
    remedies: ClassVar[dict[str, str]] = {"image_size": "leave it out: images of any size are taken as they are"}

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        dim: int = 64,
        depths: Sequence[int] = (3, 4, 6, 5),
        kernel_size: int | None = None,
        dilations: Sequence[int | Sequence[int]] | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        mlp_ratio: float = 3.0,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        stem_stride: int = 4,
    ) -> None:
        super().__init__()
        if mixer is None:
            mixers = neighborhood_mixers(depths, kernel_size or 7, dilations)
        elif kernel_size is None and dilations is None:
            mixers = mixer
        else:
            raise QuintetError(
                "kernel_size and dilations are of neighborhood attention; with another mixer leave them out, and start "
                "from nat_* instead of dinat_*"
            )
        dims = [dim * 2**stage for stage in range(len(depths))]
        self.in_channels = in_channels
        self.stem = ConvolutionalStem(in_channels, dim, stem_stride)
        self.encoder = StagedEncoder(
            dims,
            depths,
            Downsample,
            mixer=mixers,
            feedforward=partial(Mlp, ratio=mlp_ratio),
            norm=Norm,
            layer_scale=layer_scale,
            drop_path=drop_path,
        )
        self.norm = Norm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes) if num_classes else nn.Identity()
        self.feature_info = [(width, stem_stride * 2**stage) for stage, width in enumerate(dims)]
        check_grid_rank(self.encoder.stages[0].blocks[0].mixer, 2, "those of the image")
        initialise_linear_layers(self)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.forward_head(self.forward_features(images))

    def forward_features(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch rows columns dim"]:
        """The tokens of the last stage after the last norm."""
        return self.norm(self._stages(images)[-1])

    def forward_head(self, features: Float[Tensor, "batch rows columns dim"]) -> Float[Tensor, "batch classes"]:
        """Pools the tokens of `forward_features` and classifies."""
        return self.head(self.pool(features))

    def pool(self, features: Float[Tensor, "batch rows columns dim"]) -> Float[Tensor, "batch dim"]:
        """What the head sees of the tokens: their mean."""
        return features.flatten(1, 2).mean(dim=1)

    def feature_maps(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _dim _rows _columns"]]:
        """The output of each stage, finest first, the last one after the last norm; `feature_info` has the strides."""
        *stages, last = self._stages(images)
        return [x.movedim(-1, 1) for x in (*stages, self.norm(last))]

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: the stem, then each block, with the downsampling before it."""
        groups = [["stem"]]
        for number, stage in enumerate(self.encoder.stages):
            groups += [[f"encoder.stages.{number}.blocks.{layer}"] for layer in range(len(stage.blocks))]
            if number:
                groups[-len(stage.blocks)].append(f"encoder.downsamples.{number - 1}")
        return groups

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch rows columns dim"]:
        """The tokens before the first stage."""
        check_images(images, self.in_channels)
        return self.stem(images)

    def _stages(self, images: Tensor) -> list[Tensor]:
        return self.encoder(self.embed(images))


def neighborhood_mixers(
    depths: Sequence[int], kernel_size: int, dilations: Sequence[int | Sequence[int]] | None
) -> list[list[Callable[[int], Mixer]]]:
    """A factory of neighborhood attention for each block of each stage."""
    per_stage = [1] * len(depths) if dilations is None else list(dilations)
    per_block = [[d] * depth if isinstance(d, int) else list(d) for d, depth in zip(per_stage, depths)]
    if len(per_stage) != len(depths) or [len(stage) for stage in per_block] != list(depths):
        raise QuintetError(
            f"dilations={per_stage} do not fit depths={list(depths)}; give each stage one number, or one a block"
        )
    return [[partial(NeighborhoodAttention, kernel_size=kernel_size, dilation=d) for d in stage] for stage in per_block]


def alternating_dilations(depths: Sequence[int], largest: Sequence[int] = (8, 4, 2, 1)) -> list[list[int]]:
    """Dilations of DiNAT: in each stage every second block reaches as far as its grid, at 224 pixels, allows."""
    return [[wide if layer % 2 else 1 for layer in range(depth)] for depth, wide in zip(depths, largest)]


# As published, with the drop path of their training.
MINI: dict[str, Any] = {"dim": 64, "depths": (3, 4, 6, 5), "mlp_ratio": 3.0, "drop_path": 0.2}
TINY: dict[str, Any] = {"dim": 64, "depths": (3, 4, 18, 5), "mlp_ratio": 3.0, "drop_path": 0.2}
SMALL: dict[str, Any] = {"dim": 96, "depths": (3, 4, 18, 5), "mlp_ratio": 2.0, "drop_path": 0.3}
BASE: dict[str, Any] = {"dim": 128, "depths": (3, 4, 18, 5), "mlp_ratio": 2.0, "drop_path": 0.5, "layer_scale": 1e-5}
LARGE: dict[str, Any] = {"dim": 192, "depths": (3, 4, 18, 5), "mlp_ratio": 2.0, "drop_path": 0.35}


@register_model("vision/nat_mini", pretrained=pretrained.nat_sources("mini"))
def nat_mini(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """NAT-Mini: dim 64, depths 3, 4, 6, 5."""
    return NeighborhoodAttentionTransformer(**MINI | arguments)


@register_model("vision/nat_tiny", pretrained=pretrained.nat_sources("tiny"))
def nat_tiny(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """NAT-Tiny: dim 64, depths 3, 4, 18, 5."""
    return NeighborhoodAttentionTransformer(**TINY | arguments)


@register_model("vision/nat_small", pretrained=pretrained.nat_sources("small"))
def nat_small(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """NAT-Small: dim 96, depths 3, 4, 18, 5."""
    return NeighborhoodAttentionTransformer(**SMALL | {"layer_scale": 1e-5} | arguments)


@register_model("vision/nat_base", pretrained=pretrained.nat_sources("base"))
def nat_base(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """NAT-Base: dim 128, depths 3, 4, 18, 5."""
    return NeighborhoodAttentionTransformer(**BASE | arguments)


def _dilated(size: dict[str, Any], arguments: dict[str, Any]) -> NeighborhoodAttentionTransformer:
    dilations = alternating_dilations(arguments.get("depths", size["depths"]))
    return NeighborhoodAttentionTransformer(**size | {"dilations": dilations} | arguments)


@register_model("vision/dinat_mini", pretrained=pretrained.dinat_sources("mini"))
def dinat_mini(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """DiNAT-Mini: NAT-Mini with dilation in every second block."""
    return _dilated(MINI, arguments)


@register_model("vision/dinat_tiny", pretrained=pretrained.dinat_sources("tiny"))
def dinat_tiny(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """DiNAT-Tiny: NAT-Tiny with dilation in every second block."""
    return _dilated(TINY, arguments)


@register_model("vision/dinat_small", pretrained=pretrained.dinat_sources("small"))
def dinat_small(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """DiNAT-Small: NAT-Small with dilation in every second block, without layer scale."""
    return _dilated(SMALL, arguments)


@register_model("vision/dinat_base", pretrained=pretrained.dinat_sources("base"))
def dinat_base(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """DiNAT-Base: NAT-Base with dilation in every second block."""
    return _dilated(BASE, arguments)


@register_model("vision/dinat_large", pretrained=pretrained.DINAT_LARGE)
def dinat_large(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """DiNAT-Large: dim 192, depths 3, 4, 18, 5, dilation in every second block."""
    return _dilated(LARGE, arguments)


@register_model("vision/dinat_large_384", pretrained=pretrained.DINAT_LARGE_384)
def dinat_large_384(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """DiNAT-Large for images of 384 x 384: dilations 13, 6, 3, 1."""
    return _dilated(LARGE, {"dilations": alternating_dilations(LARGE["depths"], (13, 6, 3, 1))} | arguments)


@register_model("vision/dinat_large_384_kernel11", pretrained=pretrained.DINAT_LARGE_384_KERNEL11)
def dinat_large_384_kernel11(**arguments: Any) -> NeighborhoodAttentionTransformer:
    """DiNAT-Large for images of 384 x 384 with a kernel of 11."""
    return _dilated(LARGE, {"kernel_size": 11} | arguments)
