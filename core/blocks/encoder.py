"""Stacks of blocks: all on one grid, or in stages on ever coarser ones."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..attention.dense.softmax import Attention
from ..errors import QuintetError
from ..feedforward.mlp import Mlp
from ..mixer import Mixer, mask_tokens
from ..norm.layer_norm import LayerNorm
from .block import Block, Placement

MixerFactory = Callable[[int], Mixer]
LayerFactory = Callable[[int], nn.Module]


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """Rates that rise linearly from 0 at the first block to `highest` at the last."""
    return [highest * layer / max(depth - 1, 1) for layer in range(depth)]


class Encoder(nn.Module):
    """`depth` blocks on one grid, then a norm.

    Masked tokens are zero at the entrance and at the exit, so that nothing put there can reach an output or a gradient.

    Args:
        dim: width of the tokens.
        depth: number of blocks.
        mixer: factory `SomeMixer(dim)`, or several that the blocks take in turn: [local, global] alternates.
        feedforward: factory `FeedForward(dim)`; None leaves that branch out.
        norm: factory `Norm(dim)`, of the blocks and at the end.
        placement: where the norm of a block stands, see `Block`.
        layer_scale: initial value of layer scale; None leaves it out.
        drop_path: rate of the last block, rising linearly from 0 at the first; or one rate a block.
        final_norm: end with a norm; None means where the last block does not (any placement but "post").
        gradient_checkpointing: in training, keep only the blocks' inputs and compute the rest again going back.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        mixer: MixerFactory | Sequence[MixerFactory] = Attention,
        feedforward: LayerFactory | None = Mlp,
        norm: LayerFactory = LayerNorm,
        placement: Placement = "pre",
        layer_scale: float | None = None,
        drop_path: float | Sequence[float] = 0.0,
        final_norm: bool | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        mixers = [mixer] if callable(mixer) else list(mixer)
        rates = list(drop_path) if isinstance(drop_path, Sequence) else drop_path_rates(drop_path, depth)
        if not mixers:
            raise QuintetError("an encoder needs a mixer; got an empty list of them")
        if len(rates) != depth:
            raise QuintetError(f"{len(rates)} drop path rates for {depth} blocks; give one number, or one a block")
        self.blocks = nn.ModuleList(
            Block(dim, mixers[layer % len(mixers)], feedforward, norm, placement, layer_scale, rates[layer])
            for layer in range(depth)
        )
        final_norm = placement != "post" if final_norm is None else final_norm
        self.norm = norm(dim) if final_norm else nn.Identity()
        self.gradient_checkpointing = gradient_checkpointing

    def forward(
        self,
        x: Float[Tensor, "batch *grid dim"],
        mask: Bool[Tensor, "batch *grid"] | None = None,
        queries: int | None = None,
        **mixer_arguments: Any,
    ) -> Float[Tensor, "batch *kept dim"]:
        """Encodes the tokens; `mixer_arguments` go to every mixer as they are.

        With `queries`, only so many first tokens of a sequence are returned. Where its mixer allows it, the last block
        then computes no others, which of 12 blocks saves up to a fifteenth.
        """
        x = mask_tokens(x, mask)
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            fewer = queries is not None and layer == last and block.mixer.takes_queries
            x = self._run(block, x, mask, mixer_arguments | ({"queries": queries} if fewer else {}))
        if queries is not None:
            x, mask = x[:, :queries], None if mask is None else mask[:, :queries]
        return mask_tokens(self.norm(x), mask)

    def scan(
        self, x: Float[Tensor, "batch time dim"], states: Sequence[Any] | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], tuple[Any, ...]]:
        """Encodes a stretch of a sequence given the blocks' states before it; also those after it.

        Raises QuintetError where a mixer carries no state.
        """
        after = []
        for block, state in zip(self.blocks, states or [None] * len(self.blocks)):
            x, state = block.scan(x, state)
            after.append(state)
        return self.norm(x), tuple(after)

    def intermediates(
        self,
        x: Float[Tensor, "batch *grid dim"],
        indices: Sequence[int],
        mask: Bool[Tensor, "batch *grid"] | None = None,
        normalize: bool = False,
        **mixer_arguments: Any,
    ) -> list[Float[Tensor, "batch *grid dim"]]:
        """Outputs of the blocks numbered `indices` (negative from the end), with `normalize` through the final norm.

        Blocks after the last one asked for are not run. Raises QuintetError for a number that no block has.
        """
        depth = len(self.blocks)
        wrong = [index for index in indices if not -depth <= index < depth]
        if wrong or not indices:
            raise QuintetError(f"this encoder has blocks 0 to {depth - 1}; got {wrong or 'no index'}")
        wanted = [index % depth for index in indices]
        outputs = {}
        x = mask_tokens(x, mask)
        for layer in range(max(wanted) + 1):
            x = self._run(self.blocks[layer], x, mask, mixer_arguments)
            if layer in wanted:
                outputs[layer] = mask_tokens(self.norm(x) if normalize else x, mask)
        return [outputs[layer] for layer in wanted]

    def _run(self, block: nn.Module, x: Tensor, mask: Tensor | None, mixer_arguments: dict[str, Any]) -> Tensor:
        if self.gradient_checkpointing and self.training:
            return checkpoint(block, x, mask, use_reentrant=False, **mixer_arguments)
        return block(x, mask, **mixer_arguments)


def downsample_mask(
    mask: Bool[Tensor, "batch *grid"], grid: torch.Size | tuple[int, ...]
) -> Bool[Tensor, "batch *coarse"]:
    """The mask on a coarser grid: a token is real where any token it stands for is."""
    if tuple(mask.shape[1:]) == tuple(grid):
        return mask
    pool = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[len(grid) - 1]
    return pool(mask.unsqueeze(1).float(), tuple(grid)).squeeze(1) > 0


class StagedEncoder(nn.Module):
    """Encoders on ever coarser grids; returns the output of every stage, finest first.

    An argument that is "one a stage" may be given once for all. Compositions: neighborhood attention with the dilation
    alternating within each stage is `mixer=[[local, dilated8], [local, dilated4], [local, dilated2], local]`; a stage
    that ends in a norm which feeds the next is `stage_norm=True`.

    Args:
        dims: width of the tokens in each stage.
        depths: number of blocks in each stage.
        downsample: factory `Downsample(dim_before, dim_after)` of the channels-last modules between stages.
        mixer: factory, or one a stage, each of which may again be several that its blocks take in turn.
        feedforward: factory, or one a stage; None leaves that branch out.
        norm: factory `Norm(dim)`.
        placement: where the norm of a block stands, see `Block`.
        layer_scale: initial value of layer scale; None leaves it out.
        drop_path: rate of the very last block, rising linearly over all stages from 0 at the first block.
        stage_norm: end every stage with a norm, whose output is returned and goes on to the next stage.
        gradient_checkpointing: in training, keep only the blocks' inputs and compute the rest again going back.

    Raises QuintetError where a list has another length than there are stages.
    """

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        downsample: Callable[[int, int], nn.Module],
        mixer: MixerFactory | Sequence[MixerFactory | Sequence[MixerFactory]] = Attention,
        feedforward: LayerFactory | Sequence[LayerFactory] | None = Mlp,
        norm: LayerFactory = LayerNorm,
        placement: Placement = "pre",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        stage_norm: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        stages = len(dims)
        mixers = [mixer] * stages if callable(mixer) else list(mixer)
        feedforwards = list(feedforward) if isinstance(feedforward, Sequence) else [feedforward] * stages
        for name, values in (("depths", depths), ("mixer", mixers), ("feedforward", feedforwards)):
            if len(values) != stages:
                raise QuintetError(f"{len(values)} entries in {name} for the {stages} stages of dims={list(dims)}")
        rates, ends = drop_path_rates(drop_path, sum(depths)), list(accumulate(depths))
        self.downsamples = nn.ModuleList(downsample(before, after) for before, after in pairwise(dims))
        self.stages = nn.ModuleList(
            Encoder(
                dims[stage],
                depths[stage],
                mixer=mixers[stage],
                feedforward=feedforwards[stage],
                norm=norm,
                placement=placement,
                layer_scale=layer_scale,
                drop_path=rates[ends[stage] - depths[stage] : ends[stage]],
                final_norm=stage_norm,
                gradient_checkpointing=gradient_checkpointing,
            )
            for stage in range(stages)
        )

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> list[Float[Tensor, "batch *_grid _dim"]]:
        """Outputs of the stages; on coarser grids a token is real where any it stands for is (`downsample_mask`)."""
        outputs = [self.stages[0](x, mask)]
        for downsample, stage in zip(self.downsamples, self.stages[1:]):
            x = downsample(outputs[-1])
            mask = None if mask is None else downsample_mask(mask, x.shape[1:-1])
            outputs.append(stage(x, mask))
        return outputs
