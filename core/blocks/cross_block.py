"""A block that joins two streams of tokens: one reads from itself, if at all, and from the other."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..aside import knows_borders, refuse_untaken, run, taken_within
from ..attention.dense.cross import CrossAttention
from ..errors import QuintetError
from ..feedforward.mlp import Mlp
from ..mixer import Mixer
from ..norm.layer_norm import LayerNorm
from .block import DropPath, LayerScale, Placement


class CrossBlock(nn.Module):
    """Residual branches f one after the other: a mixer, attention to a context, a feed-forward layer, where

        pre   x + s f(norm(x))
        post  norm(x + s f(x))

    and s is layer scale and, in training, drop path. The context is given: `block(x, mask, context=...,
    context_mask=...)`; norms of it are its maker's. In an encoder, `Encoder(dim, depth, block=CrossBlock)(x, mask,
    context=...)`. Papers: "Attention Is All You Need", arXiv 1706.03762, section 3.1; without a mixer: "Perceiver:
    General Perception with Iterative Attention", arXiv 2103.03206.

    Args:
        dim: width of the tokens.
        mixer: factory `SomeMixer(dim)`; None leaves that branch out.
        cross: factory `SomeCrossAttention(dim)`; of a context of another width `partial(CrossAttention,
            context_dim=...)`.
        feedforward: factory `FeedForward(dim)`; None leaves that branch out.
        norm: factory `Norm(dim)`.
        placement: "pre" or "post".
        layer_scale: initial value of layer scale; None leaves it out.
        drop_path: rate at which a sample loses a branch in training.

    Raises QuintetError for another placement.
    """

    def __init__(
        self,
        dim: int,
        mixer: Callable[[int], Mixer] | None = None,
        cross: Callable[[int], nn.Module] = CrossAttention,
        feedforward: Callable[[int], nn.Module] | None = Mlp,
        norm: Callable[[int], nn.Module] = LayerNorm,
        placement: Placement = "pre",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if placement not in ("pre", "post"):
            raise QuintetError(f"a cross block's placement is pre or post; got {placement!r}")
        self.placement = placement
        self.mixer = None if mixer is None else mixer(dim)
        self.cross = cross(dim)
        self.feedforward = None if feedforward is None else feedforward(dim)
        self.norms, self.scales = nn.ModuleDict(), nn.ModuleDict()
        for name in ("mixer", "cross", "feedforward"):
            if getattr(self, name) is not None:
                self.norms[name] = norm(dim)
                self.scales[name] = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)
        unable = set() if knows_borders(self.mixer) and knows_borders(self.cross) else {"cu_seqlens"}
        self.takes = taken_within(self) - {"queries"} - unable | {"mask"}

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None, **given: Any
    ) -> Float[Tensor, "batch *grid dim"]:
        """Each layer gets what it takes of `given`, `context` first of all. Raises QuintetError for what none takes."""
        refuse_untaken(self, given, self.takes)
        if given.get("context") is None:
            raise QuintetError("a CrossBlock reads a context; call it with context=tokens")
        given["mask"] = mask
        for name in self.norms:
            x = self._branch(name, x, given)
        return x

    def _branch(self, name: str, x: Tensor, given: Mapping[str, Any]) -> Tensor:
        layer, norm, scale = getattr(self, name), self.norms[name], self.scales[name]
        if self.placement == "post":
            return run(norm, x + run(self.drop_path, scale(run(layer, x, given)), given), given)
        return x + run(self.drop_path, scale(run(layer, run(norm, x, given), given)), given)
