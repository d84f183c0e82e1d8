"""Stacks of blocks: all on one grid, or in stages on ever coarser ones."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..aside import changed, checkpointed, knows_borders, refuse_untaken, run, taken_within
from ..attention.dense.softmax import Attention
from ..errors import QuintetError
from ..feedforward.mlp import Mlp
from ..mixer import Mixer, mask_tokens
from ..norm.layer_norm import LayerNorm
from ..weights.registry import factory_target
from .block import Block, Placement

MixerFactory = Callable[[int], Mixer]
LayerFactory = Callable[[int], nn.Module]
COUNTING = ("mask", "bias", "edges", "positions")  # given things that have a place for each token


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """Rates that rise linearly from 0 at the first block to `highest` at the last."""
    return [highest * layer / max(depth - 1, 1) for layer in range(depth)]


class Layer(NamedTuple):
    """What there is after a block: its tokens, and what the next block is given, the mask too."""

    x: Float[Tensor, "batch *grid dim"]
    given: Mapping[str, Any]


def make_block(block: Callable[..., nn.Module], dim: int, mixer: MixerFactory, options: dict[str, Any]) -> nn.Module:
    """A block of the arguments that its factory has; what it says nothing about, it takes as its layers do.

    Raises QuintetError for an option that differs from the default and that the factory does not have.
    """
    defaults = inspect.signature(Block).parameters
    accepted = inspect.signature(factory_target(block)).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    chosen = {name: value for name, value in options.items() if value != defaults[name].default}
    if not anything and (unknown := [name for name in chosen if name not in accepted]):
        name = getattr(block, "__name__", None) or type(block).__name__
        raise QuintetError(f"a {name} has no {', '.join(unknown)}; leave it out, or add it to its constructor")
    named = {name: value for name, value in chosen.items() if anything or name in accepted}
    if type(block) is partial and "mixer" in block.keywords and not block.func.__module__.startswith("jsonargparse."):
        # One of the two would be ignored; what is no partial of the command line's holds none but by the user's will.
        if mixer is not Attention:
            raise QuintetError("the block has a mixer of its own; give one to the encoder or to the block, not to both")
        mixer = block.keywords["mixer"]
    # By its name where there is one: a partial, such as the command line makes, may hold a mixer already.
    made = block(dim, mixer=mixer, **named) if "mixer" in accepted else block(dim, mixer, **named)
    if not hasattr(made, "takes"):
        accepted = inspect.signature(made.forward).parameters
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
        made.takes = taken_within(made) - {"queries"} | {
            name for name in ("mask", "cu_seqlens") if anything or name in accepted
        }
    return made


def run_layers(
    blocks: Iterable[nn.Module],
    x: Tensor,
    given: Mapping[str, Any],
    *,
    keep: bool = True,
    reductions: Mapping[str, nn.Module] | nn.ModuleDict | None = None,
    queries: int | None = None,
) -> Iterator[Layer]:
    """Runs blocks one after the other and says what there is after each, see `Encoder.layers`.

    Without `keep` only the inputs of blocks are kept for the way back. `queries` goes to the last block.
    """
    blocks = list(blocks)
    for layer, block in enumerate(blocks):
        fewer = queries is not None and layer == len(blocks) - 1 and "queries" in block.takes
        told = {**given, "queries": queries} if fewer else given
        x, given = changed(run(block, x, told) if keep else checkpointed(run, block, x, told), given)
        if reductions and str(layer) in reductions:
            x, given = reduced(reductions[str(layer)], x, given)
        yield Layer(x, given)


def reduced(reduction: nn.Module, x: Tensor, given: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
    """The tokens that a reduction leaves, and what is given from there on.

    Raises QuintetError where it leaves fewer and says nothing of what counts on them.
    """
    fewer, after = changed(run(reduction, x, given), given)
    stale = [name for name in COUNTING if given.get(name) is not None and after[name] is given[name]]
    if stale and fewer.shape[1:-1] != x.shape[1:-1]:
        raise QuintetError(
            f"{type(reduction).__name__} leaves {tuple(fewer.shape[1:-1])} of {tuple(x.shape[1:-1])} tokens and does "
            f"not say what becomes of {', '.join(stale)}: return (tokens, {{name: what the next block is given}})"
        )
    return fewer, after


def last_of(layers: Iterable[Layer], before: Layer) -> Layer:
    """The last of the layers, `before` where there are none."""
    for layer in layers:
        before = layer
    return before


def keep_inputs_only(network: nn.Module, only: bool = True) -> None:
    """Turns gradient checkpointing on, or off, in every part of a network that has it (`Encoder`, timm's networks).

    Raises QuintetError where no part has it.
    """
    parts = [part for part in network.modules() if hasattr(part, "gradient_checkpointing")]
    timm_parts = [part for part in network.modules() if hasattr(part, "grad_checkpointing")]
    if only and not parts + timm_parts:
        raise QuintetError(f"no part of this {type(network).__name__} has gradient checkpointing; leave it out")
    for part in parts:
        part.gradient_checkpointing = only
    for part in timm_parts:
        part.grad_checkpointing = only


def check_borders(tokens: Tensor, cu_seqlens: Tensor) -> None:
    """Raises QuintetError for borders that do not rise from 0 to the number of tokens (their values on a CPU only)."""
    fits = tokens.dim() == 2 and cu_seqlens.dim() == 1 and len(cu_seqlens) > 1 and not cu_seqlens.is_floating_point()
    if fits and cu_seqlens.device.type == "cpu":
        ends = cu_seqlens[0] == 0 and cu_seqlens[-1] == len(tokens)
        fits = bool(ends and (cu_seqlens.diff() >= 0).all())
    if not fits:
        raise QuintetError(
            f"packed tokens are shaped (tokens, dim), and cu_seqlens holds integers that rise from 0 to their number; "
            f"got {tuple(tokens.shape)} and {cu_seqlens.tolist()}"
        )


def keeps_all(owner: nn.Module) -> bool:
    """Whether what blocks compute is kept for the way back: not so in training under gradient checkpointing."""
    return not (owner.gradient_checkpointing and owner.training)


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
        block: factory `SomeBlock(dim, mixer)`, and of those of feedforward, norm, placement, layer_scale and drop_path
            that it has, called `block(x, **given)` with what it `takes`, or without `takes` what its layers take. It
            returns its tokens, or (tokens, changes of what the next block is given).
        reductions: factories `SomeReduction(dim)` of what leaves fewer tokens, by the number of the block after which
            it stands; see `Reduction`.

    Raises QuintetError for an option that the block does not have.
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
        block: Callable[..., nn.Module] = Block,
        reductions: Mapping[int, LayerFactory] | None = None,
    ) -> None:
        super().__init__()
        mixers = [mixer] if callable(mixer) else list(mixer)
        rates = list(drop_path) if isinstance(drop_path, Sequence) else drop_path_rates(drop_path, depth)
        if not mixers:
            raise QuintetError("an encoder needs a mixer; got an empty list of them")
        if len(rates) != depth:
            raise QuintetError(f"{len(rates)} drop path rates for {depth} blocks; give one number, or one a block")
        options = {"feedforward": feedforward, "norm": norm, "placement": placement, "layer_scale": layer_scale}
        self.blocks = nn.ModuleList(
            make_block(block, dim, mixers[layer % len(mixers)], options | {"drop_path": rates[layer]})
            for layer in range(depth)
        )
        if wrong := [layer for layer in reductions or {} if not 0 <= layer < depth]:
            raise QuintetError(f"reductions stand after blocks 0 to {depth - 1}; got {wrong}")
        self.reductions = nn.ModuleDict({str(layer): factory(dim) for layer, factory in (reductions or {}).items()})
        final_norm = placement != "post" if final_norm is None else final_norm
        self.norm = norm(dim) if final_norm else nn.Identity()
        self.gradient_checkpointing = gradient_checkpointing
        self.takes = taken_within(self) | {"mask", "queries", "cu_seqlens"}

    def forward(
        self,
        x: Float[Tensor, "batch *grid dim"],
        mask: Bool[Tensor, "batch *grid"] | None = None,
        queries: int | None = None,
        **given: Any,
    ) -> Float[Tensor, "batch *kept dim"]:
        """Encodes the tokens; every layer gets what it takes of `given`.

        With `queries`, only so many first tokens of a sequence are returned. Where its layers allow it, the last block
        then computes no others, which of 12 blocks saves up to a fifteenth. Raises QuintetError for what no layer
        takes.
        """
        x, given = last_of(self._layers(x, mask, given, queries), Layer(x, {"mask": mask}))
        if queries is None or "mask" in getattr(self.norm, "takes", ()):  # a norm over all tokens
            return self._finish(x, given) if queries is None else self._finish(x, given)[:, :queries]
        mask = None if given["mask"] is None else given["mask"][:, :queries]
        return self._finish(x[:, :queries], {**given, "mask": mask})

    def forward_packed(
        self, tokens: Float[Tensor, "tokens dim"], cu_seqlens: Int[Tensor, " boundaries"], **given: Any
    ) -> Float[Tensor, "tokens dim"]:
        """`forward` of sequences or graphs that stand one after another, `cu_seqlens` holding 0 and where each ends.

        Equal to that of the padded tokens, of which none is computed but within mixers that know no other way. Raises
        QuintetError for borders that do not fit, and for what has no packed form: a mask, reductions.
        """
        check_borders(tokens, cu_seqlens)
        if self.reductions or any(given.get(name) is not None for name in ("mask", "queries")):
            raise QuintetError("packed tokens are all real and all encoded: they take no mask, queries or reductions")
        return self(tokens.unsqueeze(0), cu_seqlens=cu_seqlens, **given).squeeze(0)

    def layers(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None, **given: Any
    ) -> Iterator[Layer]:
        """Encodes block by block: after each its tokens, before the final norm, and what the next one is given.

        Who stops asking, stops the computation. Masked tokens may hold anything. Raises QuintetError for what no layer
        takes, and for `queries`: a block needs all tokens of the one before.
        """
        if given.get("queries") is not None:
            raise QuintetError("layers says all tokens of every block; leave queries out and take the first of them")
        return self._layers(x, mask, given)

    def _layers(self, x: Tensor, mask: Tensor | None, given: dict[str, Any], queries: int | None = None):
        if given:
            refuse_untaken(self, given, self.takes)
        if given.get("cu_seqlens") is not None:
            self._check_packed(x, mask)
        given["mask"] = mask
        x, keep = mask_tokens(x, mask), keeps_all(self)
        return run_layers(self.blocks, x, given, keep=keep, reductions=self.reductions, queries=queries)

    def _check_packed(self, x: Tensor, mask: Tensor | None) -> None:
        """Raises QuintetError where packed sequences would not be kept apart."""
        if mask is not None or len(x) != 1:
            raise QuintetError("packed sequences are one sample (1, tokens, dim) without a mask; see forward_packed")
        if unable := [type(block).__name__ for block in self.blocks if not knows_borders(block)]:
            raise QuintetError(
                f"{unable[0]}, or what mixes tokens in it, has no forward_packed and does not take cu_seqlens: it "
                "would mix packed sequences"
            )

    def _finish(self, x: Tensor, given: Mapping[str, Any]) -> Tensor:
        return mask_tokens(run(self.norm, x, given), given["mask"])

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
        **given: Any,
    ) -> list[Float[Tensor, "batch *_grid dim"]]:
        """Outputs of the blocks numbered `indices` (negative from the end), with `normalize` through the final norm.

        Blocks after the last one asked for are not run. Raises QuintetError for a number that no block has.
        """
        depth = len(self.blocks)
        wrong = [index for index in indices if not -depth <= index < depth]
        if wrong or not indices:
            raise QuintetError(f"this encoder has blocks 0 to {depth - 1}; got {wrong or 'no index'}")
        wanted = [index % depth for index in indices]
        outputs = {}
        for number, (tokens, told) in zip(range(max(wanted) + 1), self.layers(x, mask, **given)):
            if number in wanted:
                outputs[number] = self._finish(tokens, told) if normalize else mask_tokens(tokens, told["mask"])
        return [outputs[layer] for layer in wanted]


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
        block: factory of blocks, see `Encoder`.

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
        block: Callable[..., nn.Module] = Block,
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
                block=block,
            )
            for stage in range(stages)
        )
        self.takes = taken_within(self) - {"queries", "cu_seqlens"} | {"mask"}

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None, **given: Any
    ) -> list[Float[Tensor, "batch *_grid _dim"]]:
        """Outputs of the stages; on coarser grids a token is real where any it stands for is (`downsample_mask`).

        Every layer of every stage, and every module between them, gets what it takes of `given`.
        """
        if given:
            refuse_untaken(self, given, self.takes)
        given["mask"] = mask
        outputs = [run(self.stages[0], x, given)]
        for downsample, stage in zip(self.downsamples, self.stages[1:]):
            x = run(downsample, outputs[-1], given)
            if given["mask"] is not None:
                given["mask"] = downsample_mask(given["mask"], x.shape[1:-1])
            outputs.append(run(stage, x, given))
        return outputs
