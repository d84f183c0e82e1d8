"""Vision Transformer: an image cut into patches, read as a sequence of tokens.

Paper: "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", arXiv 2010.11929.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...core.attention import Attention
from ...core.blocks.encoder import Encoder
from ...core.errors import QuintetError
from ...core.feedforward import Mlp
from ...core.mixer import Mixer
from ...core.position import LearnedPosition
from ...core.weights.network import Network
from ...core.weights.pretrained import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from ._shared import check_grid_rank, check_images, initialise_linear_layers


class PatchEmbedding(nn.Module):
    """Each patch of patch_size x patch_size pixels becomes one token by a linear map, shared by all patches.

    An image whose size is no multiple of the patch is first padded with zeros at the right and at the bottom.

    Args:
        in_channels: channels of the images.
        dim: width of the tokens.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch rows columns dim"]:
        bottom, right = (-size % self.patch_size for size in images.shape[-2:])
        # A graph that is exported takes images of other sizes than the one it is traced with.
        if torch.compiler.is_exporting() or bottom or right:
            images = F.pad(images, (0, right, 0, bottom))
        return self.projection(images).movedim(1, -1)


class VisionTransformer(Network):
    """head(pool(Encoder([class, registers, patches + position]))).

    Any image size works: positions are learned for `image_size` and resampled (bicubic) to the grid of other images;
    where height or width is no multiple of `patch_size`, the image is padded with zeros at the right and at the bottom,
    so that the last patches are partly empty.

    Where class or register tokens stand before the patches, the tokens are a sequence (batch, prefix + patches, dim).
    With pooling "average" and no registers nothing does, and they keep the grid of patches (batch, rows, columns, dim),
    so that mixers which need one work. The position of the class token is part of that token: one vector less than in
    the paper, and published weights are added up when loaded. Papers: arXiv 2010.11929; registers: "Vision Transformers
    Need Registers", arXiv 2309.16588.

    Args:
        num_classes: outputs of the head; 0 leaves the head out and returns the pooled features.
        in_channels: channels of the images.
        image_size: size for which positions are learned, one number or (height, width).
        patch_size: side of a patch in pixels.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: heads of the attention; None means dim // 64. For another mixer set its own.
        mixer: factory `SomeMixer(dim)` in place of softmax attention.
        mlp_ratio: hidden width of the feed-forward layers over `dim`.
        pooling: "token" reads the class token, "average" the mean of the patches; there is a class token only with
            the former.
        register_tokens: number of learned tokens that carry no patch.
        layer_scale: initial value of layer scale; None leaves it out.
        drop_path: rate of the last block in training, rising linearly from 0 at the first.

    Raises QuintetError for another pooling, a mixer that cannot take these tokens, and images of other channels.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    finetune: ClassVar[str] = "experiment=vision/finetune data.root=FOLDER"
    layouts: ClassVar[tuple[Layout, ...]] = (pretrained.TIMM_VIT,)
    no_weight_decay: ClassVar[tuple[str, ...]] = ("class_token", "register_tokens", "position.position")

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        dim: int = 192,
        depth: int = 12,
        num_heads: int | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        mlp_ratio: float = 4.0,
        pooling: str = "token",
        register_tokens: int = 0,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if mixer is not None and num_heads is not None:
            raise QuintetError("num_heads is an argument of softmax attention; where a mixer is given, set it there")
        if pooling not in ("token", "average"):
            raise QuintetError(f"pooling is 'token' or 'average'; got {pooling!r}")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        mixer = mixer or partial(Attention, num_heads=num_heads or max(1, dim // 64))
        self.in_channels, self.pooling = in_channels, pooling
        self.patch_embedding = PatchEmbedding(in_channels, dim, patch_size)
        self.position = LearnedPosition(dim, (-(-height // patch_size), -(-width // patch_size)))
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if pooling == "token" else None
        self.register_tokens = nn.Parameter(torch.zeros(1, register_tokens, dim)) if register_tokens else None
        self.prefix_tokens = [token for token in ("class_token", "register_tokens") if getattr(self, token) is not None]
        self.prefix_length = (pooling == "token") + register_tokens
        self.encoder = Encoder(
            dim, depth, mixer, partial(Mlp, ratio=mlp_ratio), layer_scale=layer_scale, drop_path=drop_path
        )
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        self.feature_info = [(dim, patch_size)]
        if self.prefix_tokens:
            names = " and ".join(self.prefix_tokens).replace("_", " ")
            why = f"{names} stand before the patches; pooling='average' and register_tokens=0 keep the grid of 2"
        else:
            why = "pooling='token' makes the patches a sequence"
        check_grid_rank(self.encoder.blocks[0].mixer, 1 if self.prefix_tokens else 2, why)
        initialise_linear_layers(self)
        for token in self.prefix_tokens:
            nn.init.trunc_normal_(getattr(self, token), std=0.02, a=-0.04, b=0.04)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        # Of the last block the head sees the class token alone.
        return self.forward_head(self.forward_features(images, tokens=1 if self.pooling == "token" else None))

    def forward_features(
        self, images: Float[Tensor, "batch channels height width"], tokens: int | None = None
    ) -> Float[Tensor, "batch *tokens dim"]:
        """The tokens after the last norm: (batch, tokens, dim), or (batch, rows, columns, dim) without prefix.

        `tokens` is a number of first tokens to which a sequence is cut, which spares the last block the others.
        """
        return self.encoder(self.embed(images), queries=tokens)

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch *tokens dim"]:
        """The tokens before the first block."""
        check_images(images, self.in_channels)
        x = self.position(self.patch_embedding(images))
        if not self.prefix_tokens:
            # The convolution left channels-first strides, which the residual stream would keep and each layer copy.
            return x.contiguous()
        prefix = [getattr(self, token).expand(x.shape[0], -1, -1) for token in self.prefix_tokens]
        return torch.cat([*prefix, x.flatten(1, 2)], dim=1)

    def forward_head(self, features: Float[Tensor, "batch *tokens dim"]) -> Float[Tensor, "batch classes"]:
        """Pools the tokens of `forward_features` and classifies."""
        return self.head(self.pool(features))

    def pool(self, features: Float[Tensor, "batch *tokens dim"]) -> Float[Tensor, "batch dim"]:
        """What the head sees of the tokens: the class token, or the mean of the patches."""
        if self.pooling == "token":
            return features[:, 0]
        return features.flatten(1, -2)[:, self.prefix_length :].mean(dim=1)

    def feature_maps(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _dim _rows _columns"]]:
        """One map, of the patches after the last norm, at the stride of the patches."""
        rows, columns = (-(-size // self.patch_embedding.patch_size) for size in images.shape[-2:])
        patches = self.forward_features(images).flatten(1, -2)[:, self.prefix_length :]
        return [patches.unflatten(1, (rows, columns)).movedim(-1, 1)]

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: the embedding, then each block; the last norm belongs to the head."""
        blocks = [[f"encoder.blocks.{layer}"] for layer in range(len(self.encoder.blocks))]
        return [["patch_embedding", "position", *self.prefix_tokens], *blocks]


@register_model("vision/vit_tiny", pretrained=pretrained.VIT_TINY)
def vit_tiny(**arguments: Any) -> VisionTransformer:
    """ViT-Ti/16: dim 192, depth 12."""
    return VisionTransformer(**{"dim": 192} | arguments)


@register_model("vision/vit_small", pretrained=pretrained.VIT_SMALL)
def vit_small(**arguments: Any) -> VisionTransformer:
    """ViT-S/16: dim 384, depth 12."""
    return VisionTransformer(**{"dim": 384} | arguments)


@register_model("vision/vit_small_patch8", pretrained=pretrained.VIT_SMALL_PATCH8)
def vit_small_patch8(**arguments: Any) -> VisionTransformer:
    """ViT-S/8: dim 384, depth 12, patches of 8."""
    return VisionTransformer(**{"dim": 384, "patch_size": 8} | arguments)


@register_model("vision/vit_small_patch32", pretrained=pretrained.VIT_SMALL_PATCH32)
def vit_small_patch32(**arguments: Any) -> VisionTransformer:
    """ViT-S/32: dim 384, depth 12, patches of 32."""
    return VisionTransformer(**{"dim": 384, "patch_size": 32} | arguments)


@register_model("vision/vit_base", pretrained=pretrained.VIT_BASE)
def vit_base(**arguments: Any) -> VisionTransformer:
    """ViT-B/16: dim 768, depth 12."""
    return VisionTransformer(**{"dim": 768} | arguments)


@register_model("vision/vit_base_patch8", pretrained=pretrained.VIT_BASE_PATCH8)
def vit_base_patch8(**arguments: Any) -> VisionTransformer:
    """ViT-B/8: dim 768, depth 12, patches of 8."""
    return VisionTransformer(**{"dim": 768, "patch_size": 8} | arguments)


@register_model("vision/vit_base_patch32", pretrained=pretrained.VIT_BASE_PATCH32)
def vit_base_patch32(**arguments: Any) -> VisionTransformer:
    """ViT-B/32: dim 768, depth 12, patches of 32."""
    return VisionTransformer(**{"dim": 768, "patch_size": 32} | arguments)


@register_model("vision/vit_large", pretrained=pretrained.VIT_LARGE)
def vit_large(**arguments: Any) -> VisionTransformer:
    """ViT-L/16: dim 1024, depth 24."""
    return VisionTransformer(**{"dim": 1024, "depth": 24} | arguments)


@register_model("vision/vit_large_patch32", pretrained=pretrained.VIT_LARGE_PATCH32)
def vit_large_patch32(**arguments: Any) -> VisionTransformer:
    """ViT-L/32: dim 1024, depth 24, patches of 32."""
    return VisionTransformer(**{"dim": 1024, "depth": 24, "patch_size": 32} | arguments)
