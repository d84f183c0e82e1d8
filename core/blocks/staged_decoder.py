"""The way up again from the coarsest stage of an encoder to the finest: U-shaped networks of any rank."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..aside import refuse_untaken, run, taken_within
from ..attention.dense.softmax import Attention
from ..errors import QuintetError
from ..feedforward.mlp import Mlp
from ..norm.layer_norm import LayerNorm
from .block import Block
from .encoder import Encoder, LayerFactory, MixerFactory, downsample_mask, drop_path_rates

MODES = ("linear", "bilinear", "trilinear")


class Enlargement(nn.Module):
    """y = projection(x), linearly interpolated onto a finer grid (corners not aligned).

    Args:
        dim: width of the tokens before.
        out_dim: width of the tokens after.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, out_dim)

    def forward(
        self, x: Float[Tensor, "batch *_grid dim"], grid: tuple[int, ...]
    ) -> Float[Tensor, "batch *_finer out_dim"]:
        """Channels last; `grid` is the size afterwards, of one to three axes."""
        x = self.projection(x).movedim(-1, 1)
        return F.interpolate(x, size=grid, mode=MODES[len(grid) - 1], align_corners=False).movedim(1, -1)


class Concatenation(nn.Module):
    """y = projection([x, skipped]).

    Args:
        dim: width of the tokens of both, and after.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(2 * dim, dim)

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], skipped: Float[Tensor, "batch *grid dim"]
    ) -> Float[Tensor, "batch *grid dim"]:
        return self.projection(torch.cat([x, skipped], dim=-1))


class StagedDecoder(nn.Module):
    """x_l = encoder_l(merge_l(upsample_l(x_{l+1}), s_l)) from the coarsest stage s_L = x_L of a `StagedEncoder` up.

    Sequences, images and volumes alike. Where a mask is given, it is that of the finest grid. Papers: "U-Net:
    Convolutional Networks for Biomedical Image Segmentation", arXiv 1505.04597; with attention: "Swin-Unet", arXiv
    2105.05537.

    Args:
        dims: width of the tokens in each stage, finest first, as those of the encoder.
        depths: number of blocks in each stage but the coarsest, finest first; 0 leaves them out.
        upsample: factory `Upsample(dim_before, dim_after)`, called as `upsample(x, grid)`.
        merge: factory `Merge(dim)`, called as `merge(x, skipped)`.
        mixer: factory `SomeMixer(dim)`, or one a stage but the coarsest.
        feedforward: factory `FeedForward(dim)`; None leaves that branch out.
        norm: factory `Norm(dim)`, of the blocks and at the end of each stage.
        drop_path: rate of the coarsest block, falling linearly to 0 at the finest.
        gradient_checkpointing: in training, keep only the blocks' inputs and compute the rest again going back.
        block: factory of blocks, see `Encoder`.

    Raises QuintetError where lists do not fit the stages.
    """

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        upsample: Callable[[int, int], nn.Module] = Enlargement,
        merge: Callable[[int], nn.Module] = Concatenation,
        mixer: MixerFactory | Sequence[MixerFactory] = Attention,
        feedforward: LayerFactory | None = Mlp,
        norm: LayerFactory = LayerNorm,
        drop_path: float = 0.0,
        gradient_checkpointing: bool = False,
        block: Callable[..., nn.Module] = Block,
    ) -> None:
        super().__init__()
        stages = len(dims) - 1
        mixers = [mixer] * stages if callable(mixer) else list(mixer)
        for name, values in (("depths", depths), ("mixer", mixers)):
            if len(values) != stages or not stages:
                raise QuintetError(
                    f"{len(values)} entries in {name} for the {stages} stages above the coarsest of dims={list(dims)}"
                )
        self.dims = tuple(dims)
        rates = drop_path_rates(drop_path, sum(depths))
        starts = [sum(depths[:stage]) for stage in range(stages)]
        self.upsamples = nn.ModuleList(upsample(dims[stage + 1], dims[stage]) for stage in range(stages))
        self.merges = nn.ModuleList(merge(dims[stage]) for stage in range(stages))
        self.stages = nn.ModuleList(
            Encoder(
                dims[stage],
                depths[stage],
                mixers[stage],
                feedforward,
                norm=norm,
                drop_path=rates[starts[stage] : starts[stage] + depths[stage]][::-1],
                final_norm=True,
                gradient_checkpointing=gradient_checkpointing,
                block=block,
            )
            for stage in range(stages)
        )
        self.takes = taken_within(self) - {"queries", "cu_seqlens"} | {"mask"}

    def forward(
        self,
        features: Sequence[Float[Tensor, "batch *_grid _dim"]],
        mask: Bool[Tensor, "batch *grid"] | None = None,
        **given: Any,
    ) -> list[Float[Tensor, "batch *_grid _dim"]]:
        """Outputs of the stages, finest first, from those of the encoder, finest first; the coarsest is as it was.

        Raises QuintetError for features that are not as many or as wide as the stages, and for a mask of another grid.
        """
        refuse_untaken(self, given, self.takes)
        if (widths := tuple(feature.shape[-1] for feature in features)) != self.dims:
            raise QuintetError(f"this decoder joins stages of widths {self.dims}, finest first; got {widths}")
        if mask is not None and mask.shape != features[0].shape[:-1]:
            raise QuintetError(
                f"the mask is that of the finest grid, {tuple(features[0].shape[:-1])}; got {tuple(mask.shape)}"
            )
        outputs = [features[-1]]
        for stage in reversed(range(len(self.stages))):
            skipped = features[stage]
            grid = tuple(skipped.shape[1:-1])
            x = self.merges[stage](self.upsamples[stage](outputs[0], grid), skipped)
            own = None if mask is None else downsample_mask(mask, grid)
            outputs.insert(0, run(self.stages[stage], x, {**given, "mask": own}))
        return outputs
