"""SegFormer: the Mix Transformer, a pyramid encoder without position embedding, and its network for segmentation.

Paper: "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", arXiv 2105.15203.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, ClassVar

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.aside import listened_to, tell
from ...core.attention import AttentionWeights, softmax_weights
from ...core.blocks.encoder import StagedEncoder, downsample_mask
from ...core.errors import QuintetError
from ...core.mixer import Mixer, mask_tokens, resolve_num_heads
from ...core.norm import LayerNorm
from ...core.weights.network import Network
from ...core.weights.pretrained import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from ._shared import check_grid_rank, check_images, initialise_convolutions, initialise_linear_layers
from .decoders import SegFormerHead
from .segmentation import SegmentationNetwork

STRIDES = (4, 2, 2, 2)
PATCH_SIZES = (7, 3, 3, 3)

# As published: the norms inside embeddings and reductions have another eps than those of blocks and stages.
InnerNorm = partial(LayerNorm, eps=1e-5)


class OverlapPatchEmbedding(nn.Module):
    """norm(conv(x)): tokens of patches that overlap, on a grid `stride` times coarser, rounded up.

    Args:
        dim: channels before.
        out_dim: width of the tokens after.
        patch_size: side of a patch, odd.
        stride: distance between patches.
    """

    def __init__(self, dim: int, out_dim: int, patch_size: int = 3, stride: int = 2) -> None:
        super().__init__()
        self.projection = nn.Conv2d(dim, out_dim, patch_size, stride, padding=patch_size // 2)
        self.norm = InnerNorm(out_dim)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns out_dim"]:
        return self.norm(self.projection(x.movedim(-1, 1)).movedim(1, -1))


class SpatialReductionAttention(Mixer):
    """Softmax attention of every token to a grid `reduction` times coarser along each axis:

        y = softmax(q(x) k(z)ᵀ / sqrt(head_dim)) v(z), projected,    z = norm(conv(x)), or x where the reduction is 1

    The convolution has its size for stride; what does not fill a window at the right and at the bottom takes no part,
    as in the published code, and a grid smaller than one window is filled up with zeros. Papers: arXiv 2105.15203
    section 3.1; first in "Pyramid Vision Transformer", arXiv 2102.12122.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        reduction: ratio of the grids.
    """

    grid_ranks = frozenset({2})
    padding_invariant = False
    tells = frozenset({"weights"})
    variants: ClassVar[dict[str, dict[str, Any]]] = {"whole grid": {"reduction": 1}}

    def __init__(self, dim: int, num_heads: int | None = None, reduction: int = 2) -> None:
        super().__init__()
        self.dim, self.num_heads, self.ratio = dim, resolve_num_heads(dim, num_heads), reduction
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.reduction = nn.Conv2d(dim, dim, reduction, reduction) if reduction > 1 else None
        self.norm = InnerNorm(dim) if reduction > 1 else None
        # As the authors draw them, wherever the mixer stands.
        for layer in (self.query, self.key_value, self.proj):
            initialise_linear_layers(layer)

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        self.check_tokens(x, mask)
        x = mask_tokens(x, mask)
        context, context_mask = self._reduced(x, mask)
        heads = (self.num_heads, self.dim // self.num_heads)
        query = self.query(x).flatten(1, 2).unflatten(-1, heads).transpose(1, 2)
        key, value = self.key_value(context).flatten(1, 2).unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4)
        allowed = None
        if context_mask is not None:
            tokens = context_mask.flatten(1)
            # A softmax over nothing is NaN: a sample without a real token attends to everything, and is zeroed below.
            allowed = (tokens | ~tokens.any(dim=-1, keepdim=True))[:, None, None, :]
        if listened_to(self, "weights"):
            weights = softmax_weights(query, key, allowed, real=None if mask is None else mask.flatten(1))
            grids = tuple(x.shape[1:3]), tuple(context.shape[1:3])
            tell(self, "weights", AttentionWeights(weights, None, *grids))
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        y = self.proj(y.transpose(1, 2).flatten(2)).unflatten(1, x.shape[1:3])
        return mask_tokens(y, mask)

    def _reduced(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The coarser grid that is attended to, and where it is real."""
        if self.reduction is None:
            return x, mask
        lacking = [max(0, self.ratio - size) for size in x.shape[1:3]]
        if any(lacking):
            x = F.pad(x, (0, 0, 0, lacking[1], 0, lacking[0]))
        context = self.norm(self.reduction(x.movedim(-1, 1)).movedim(1, -1))
        return context, None if mask is None else self._reduced_mask(mask, context.shape[1:3])

    def _reduced_mask(self, mask: Tensor, grid: tuple[int, ...]) -> Tensor:
        windows = [min(count * self.ratio, size) for count, size in zip(grid, mask.shape[1:])]
        return downsample_mask(mask[:, : windows[0], : windows[1]], grid)


class MixFeedForward(nn.Module):
    """y = fc2(gelu(depthwise(fc1(x)))); the zeros around the 3 x 3 convolution tell tokens where they are.

    Paper: arXiv 2105.15203 section 3.1; "How Much Position Information Do Convolutional Neural Networks Encode?",
    arXiv 2001.08248.

    Args:
        dim: width of the tokens.
        ratio: hidden width over `dim`.
    """

    takes = frozenset({"mask"})

    def __init__(self, dim: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden_dim = int(ratio * dim)
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.depthwise = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(
        self, x: Float[Tensor, "batch height width dim"], mask: Bool[Tensor, "batch height width"] | None = None
    ) -> Float[Tensor, "batch height width dim"]:
        hidden = mask_tokens(self.fc1(x), mask)
        hidden = self.depthwise(hidden.movedim(-1, 1)).movedim(1, -1)
        return self.fc2(F.gelu(hidden))


class MixTransformer(Network):
    """head(mean(stages(images))): four stages at strides 4, 8, 16, 32, each overlapping patches, blocks and a norm.

    Any image size works; grids are rounded up. Paper: arXiv 2105.15203 section 3.1.

    Args:
        num_classes: outputs of the head; 0 leaves the head out and returns the pooled features.
        in_channels: channels of the images.
        dims: width of the tokens in each stage.
        depths: number of blocks in each stage.
        num_heads: heads of the attention in each stage.
        reductions: how much coarser the grid is that each stage attends to.
        mixer: factory `SomeMixer(dim)` in place of attention with spatial reduction.
        mlp_ratio: hidden width of the feed-forward layers over the tokens'.
        drop_path: rate of the last block in training, rising linearly from 0 at the first.
        norm_eps: of the norms in blocks and at the end of stages. 1e-6 as the weights were trained; the copies on
            Hugging Face run with 1e-5.

    Raises QuintetError where lists have different lengths, for a mixer that cannot take images and for images of other
    channels.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    finetune: ClassVar[str] = "experiment=vision/finetune data.root=FOLDER"
    layouts: ClassVar[tuple[Layout, ...]] = pretrained.MIX_TRANSFORMER_LAYOUTS
    remedies: ClassVar[dict[str, str]] = {"image_size": "leave it out: images of any size are taken as they are"}

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        dims: Sequence[int] = (32, 64, 160, 256),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        mixer: Callable[[int], Mixer] | None = None,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if not 1 <= len(dims) <= len(STRIDES):
            raise QuintetError(f"a Mix Transformer has one to four stages; got dims={list(dims)}")
        if mixer is None:
            if len(num_heads) != len(dims) or len(reductions) != len(dims):
                raise QuintetError(
                    f"num_heads={list(num_heads)} and reductions={list(reductions)} need one entry for each of the "
                    f"{len(dims)} stages of dims={list(dims)}"
                )
            mixer = [
                partial(SpatialReductionAttention, num_heads=heads, reduction=reduction)
                for heads, reduction in zip(num_heads, reductions)
            ]
        self.in_channels = in_channels
        self.embedding = OverlapPatchEmbedding(in_channels, dims[0], PATCH_SIZES[0], STRIDES[0])
        self.encoder = StagedEncoder(
            dims,
            depths,
            OverlapPatchEmbedding,
            mixer=mixer,
            feedforward=partial(MixFeedForward, ratio=mlp_ratio),
            norm=partial(LayerNorm, eps=norm_eps),
            drop_path=drop_path,
            stage_norm=True,
        )
        self.head = nn.Linear(dims[-1], num_classes) if num_classes else nn.Identity()
        self.feature_info = list(zip(dims, accumulate(STRIDES, lambda before, stride: before * stride)))
        check_grid_rank(self.encoder.stages[0].blocks[0].mixer, 2, "those of the image")
        initialise_linear_layers(self)
        initialise_convolutions(self)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.forward_head(self.forward_features(images))

    def forward_features(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch rows columns dim"]:
        """The tokens of the last stage after its norm."""
        return self._stages(images)[-1]

    def forward_head(self, features: Float[Tensor, "batch rows columns dim"]) -> Float[Tensor, "batch classes"]:
        """Pools the tokens of `forward_features` and classifies."""
        return self.head(self.pool(features))

    def pool(self, features: Float[Tensor, "batch rows columns dim"]) -> Float[Tensor, "batch dim"]:
        """What the head sees of the tokens: their mean."""
        return features.flatten(1, 2).mean(dim=1)

    def feature_maps(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _dim _rows _columns"]]:
        """The output of each stage after its norm, finest first; `feature_info` has the strides."""
        return [x.movedim(-1, 1) for x in self._stages(images)]

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: the embedding, then each block, with the embedding before it; norms last."""
        groups = [["embedding"]]
        for number, stage in enumerate(self.encoder.stages):
            groups += [[f"encoder.stages.{number}.blocks.{layer}"] for layer in range(len(stage.blocks))]
            if number:
                groups[-len(stage.blocks)].append(f"encoder.downsamples.{number - 1}")
            groups[-1].append(f"encoder.stages.{number}.norm")
        return groups

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch rows columns dim"]:
        """The tokens before the first stage."""
        check_images(images, self.in_channels)
        return self.embedding(images.movedim(1, -1))

    def _stages(self, images: Tensor) -> list[Tensor]:
        return self.encoder(self.embed(images))


# As published: width, depth, and the width of the head that segments.
WIDE = (64, 128, 320, 512)
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "b0": ({"dims": (32, 64, 160, 256), "depths": (2, 2, 2, 2)}, 256),
    "b1": ({"dims": WIDE, "depths": (2, 2, 2, 2)}, 256),
    "b2": ({"dims": WIDE, "depths": (3, 4, 6, 3)}, 768),
    "b3": ({"dims": WIDE, "depths": (3, 4, 18, 3)}, 768),
    "b4": ({"dims": WIDE, "depths": (3, 8, 27, 3)}, 768),
    "b5": ({"dims": WIDE, "depths": (3, 6, 40, 3)}, 768),
}


def mix_transformer(size: str, arguments: dict[str, Any]) -> MixTransformer:
    return MixTransformer(**SIZES[size][0] | arguments)


def segformer(size: str, arguments: dict[str, Any]) -> SegmentationNetwork:
    classes = arguments.pop("num_classes", 150)
    backbone = mix_transformer(size, arguments | {"num_classes": 0})
    return SegmentationNetwork(backbone, SegFormerHead(backbone.feature_info, classes, dim=SIZES[size][1]))


@register_model("vision/mit_b0", pretrained=pretrained.mix_transformer_sources("b0"))
def mit_b0(**arguments: Any) -> MixTransformer:
    """MiT-B0: dims 32, 64, 160, 256, depths 2, 2, 2, 2."""
    return mix_transformer("b0", arguments)


@register_model("vision/mit_b1", pretrained=pretrained.mix_transformer_sources("b1"))
def mit_b1(**arguments: Any) -> MixTransformer:
    """MiT-B1: dims 64, 128, 320, 512, depths 2, 2, 2, 2."""
    return mix_transformer("b1", arguments)


@register_model("vision/mit_b2", pretrained=pretrained.mix_transformer_sources("b2"))
def mit_b2(**arguments: Any) -> MixTransformer:
    """MiT-B2: dims 64, 128, 320, 512, depths 3, 4, 6, 3."""
    return mix_transformer("b2", arguments)


@register_model("vision/mit_b3", pretrained=pretrained.mix_transformer_sources("b3"))
def mit_b3(**arguments: Any) -> MixTransformer:
    """MiT-B3: dims 64, 128, 320, 512, depths 3, 4, 18, 3."""
    return mix_transformer("b3", arguments)


@register_model("vision/mit_b4", pretrained=pretrained.mix_transformer_sources("b4"))
def mit_b4(**arguments: Any) -> MixTransformer:
    """MiT-B4: dims 64, 128, 320, 512, depths 3, 8, 27, 3."""
    return mix_transformer("b4", arguments)


@register_model("vision/mit_b5", pretrained=pretrained.mix_transformer_sources("b5"))
def mit_b5(**arguments: Any) -> MixTransformer:
    """MiT-B5: dims 64, 128, 320, 512, depths 3, 6, 40, 3."""
    return mix_transformer("b5", arguments)


@register_model("vision/segformer_b0", pretrained=pretrained.segformer_sources("b0"))
def segformer_b0(**arguments: Any) -> SegmentationNetwork:
    """SegFormer-B0: MiT-B0 with the head of perceptrons, 256 wide."""
    return segformer("b0", arguments)


@register_model("vision/segformer_b1", pretrained=pretrained.segformer_sources("b1"))
def segformer_b1(**arguments: Any) -> SegmentationNetwork:
    """SegFormer-B1: MiT-B1 with the head of perceptrons, 256 wide."""
    return segformer("b1", arguments)


@register_model("vision/segformer_b2", pretrained=pretrained.segformer_sources("b2"))
def segformer_b2(**arguments: Any) -> SegmentationNetwork:
    """SegFormer-B2: MiT-B2 with the head of perceptrons, 768 wide."""
    return segformer("b2", arguments)


@register_model("vision/segformer_b3", pretrained=pretrained.segformer_sources("b3"))
def segformer_b3(**arguments: Any) -> SegmentationNetwork:
    """SegFormer-B3: MiT-B3 with the head of perceptrons, 768 wide."""
    return segformer("b3", arguments)


@register_model("vision/segformer_b4", pretrained=pretrained.segformer_sources("b4"))
def segformer_b4(**arguments: Any) -> SegmentationNetwork:
    """SegFormer-B4: MiT-B4 with the head of perceptrons, 768 wide."""
    return segformer("b4", arguments)


@register_model("vision/segformer_b5", pretrained=pretrained.segformer_sources("b5"))
def segformer_b5(**arguments: Any) -> SegmentationNetwork:
    """SegFormer-B5: MiT-B5 with the head of perceptrons, 768 wide."""
    return segformer("b5", arguments)
