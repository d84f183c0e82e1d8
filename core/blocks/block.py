"""One layer of an encoder: a mixer and a feed-forward layer, each on its own residual branch."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..aside import knows_borders, refuse_untaken, run, taken_within
from ..attention.dense.softmax import Attention
from ..errors import QuintetError
from ..feedforward.mlp import Mlp
from ..mixer import Mixer
from ..norm.layer_norm import LayerNorm

Placement = Literal["pre", "post", "peri"]


class LayerScale(nn.Module):
    """y = x * gamma, one learned factor a channel, small at first so that a deep network starts close to the identity.

    Paper: "Going deeper with Image Transformers", arXiv 2103.17239.

    Args:
        dim: width of the tokens.
        initial: value of every factor at the start.
    """

    def __init__(self, dim: int, initial: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(initial)))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return x * self.gamma


class DropPath(nn.Module):
    """y = x b / (1 - rate) in training, b of each sample being 0 with probability `rate` and 1 otherwise; else y = x.

    Paper: "Deep Networks with Stochastic Depth", arXiv 1603.09382.

    Args:
        rate: probability with which a sample loses the branch, below 1.
    """

    takes = frozenset({"cu_seqlens"})

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise QuintetError(f"the drop path rate is a probability below 1; got {rate}")
        self.rate = rate

    def forward(
        self, x: Float[Tensor, "batch *rest"], cu_seqlens: Int[Tensor, " boundaries"] | None = None
    ) -> Float[Tensor, "batch *rest"]:
        """Drops; `cu_seqlens` are the borders of the samples where `x` holds them packed, (1, tokens, dim)."""
        if not self.training or self.rate == 0.0:
            return x
        samples = x.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
        keep = x.new_empty(samples, *[1] * (x.dim() - 1)).bernoulli_(1.0 - self.rate)
        if cu_seqlens is not None:
            keep = keep.repeat_interleave(cu_seqlens.diff(), 0, output_size=x.shape[1]).transpose(0, 1)
        return x * (keep / (1.0 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


class Block(nn.Module):
    """Two residual branches f, the mixer and then the feed-forward layer, with the norm where `placement` says:

        pre   x + s f(norm(x))             "On Layer Normalization in the Transformer Architecture", arXiv 2002.04745
        post  norm(x + s f(x))             "Attention Is All You Need", arXiv 1706.03762
        peri  x + s norm'(f(norm(x)))      "Peri-LN", arXiv 2502.02732

    where s is layer scale and, in training, drop path. Every layer gets what it takes of what is given, the mask first
    of all (`quintet.core.aside`). Masked tokens reach no other token; a block does not clear them (their residual
    stays), an `Encoder` does. A mixer or feed-forward layer that returns (y, changes) makes the block return its
    tokens and the changes, for the blocks after it.

    Args:
        dim: width of the tokens.
        mixer: factory `SomeMixer(dim)`.
        feedforward: factory `FeedForward(dim)`; None leaves the second branch out.
        norm: factory `Norm(dim)`.
        placement: "pre", "post" or "peri".
        layer_scale: initial value of layer scale; None leaves it out.
        drop_path: rate at which a sample loses a branch in training.
    """

    def __init__(
        self,
        dim: int,
        mixer: Callable[[int], Mixer] = Attention,
        feedforward: Callable[[int], nn.Module] | None = Mlp,
        norm: Callable[[int], nn.Module] = LayerNorm,
        placement: Placement = "pre",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if placement not in ("pre", "post", "peri"):
            raise QuintetError(f"a block's placement is pre, post or peri; got {placement!r}")

        def output_norm() -> nn.Module:
            return norm(dim) if placement == "peri" else nn.Identity()

        def scale() -> nn.Module:
            return nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)

        self.placement = placement
        self.norm1, self.mixer, self.output_norm1, self.scale1 = norm(dim), mixer(dim), output_norm(), scale()
        self.feedforward = None
        if feedforward is not None:
            self.norm2, self.feedforward, self.output_norm2 = norm(dim), feedforward(dim), output_norm()
            self.scale2 = scale()
        self.drop_path = DropPath(drop_path)
        self.takes = self._taken()

    def _taken(self) -> frozenset[str]:
        within = taken_within(self) | {"mask"}
        others = taken_within(*(layer for layer in self.children() if layer is not self.mixer))
        # Fewer tokens come out where the mixer returns fewer, and no layer after it looks at more than one.
        fewer = "queries" in getattr(self.mixer, "takes", ()) and "mask" not in others
        unable = frozenset() if knows_borders(self.mixer) else {"cu_seqlens"}
        return within - unable if fewer else within - unable - {"queries"}

    def forward(
        self,
        x: Float[Tensor, "batch *grid dim"],
        mask: Bool[Tensor, "batch *grid"] | None = None,
        **given: Any,
    ) -> Float[Tensor, "batch *kept dim"] | tuple[Float[Tensor, "batch *kept dim"], dict[str, Any]]:
        """Each layer gets what it takes of `given`, e.g. `bias` those of the attention family.

        With `queries` among it the block returns so many first tokens only. Raises QuintetError for what no layer
        takes.
        """
        if given:
            refuse_untaken(self, given, self.takes)
        given["mask"] = mask
        changes: dict[str, Any] = {}

        def layer(module: nn.Module, tokens: Tensor) -> Tensor:
            result = run(module, tokens, given)
            if isinstance(result, tuple):
                result, changed = result
                changes.update(changed)
            return result

        x = self._arrange(x, layer, given.get("queries"))
        return (x, changes) if changes else x

    def scan(
        self, x: Float[Tensor, "batch time dim"], state: Any = None
    ) -> tuple[Float[Tensor, "batch time dim"], Any]:
        """`forward` over a stretch of a sequence given the mixer's state before it; also the state after it.

        Raises QuintetError where the mixer carries no state.
        """
        after = []

        def layer(module: nn.Module, tokens: Tensor) -> Tensor:
            if module is not self.mixer:
                return module(tokens)
            mixed, new_state = self.mixer.scan(tokens, state)
            after.append(new_state)
            return mixed

        return self._arrange(x, layer), after[0]

    def _arrange(self, x: Tensor, layer: Callable[[nn.Module, Tensor], Tensor], queries: int | None = None) -> Tensor:
        """The placement; `layer(module, x)` runs one of the block's layers."""
        kept = x if queries is None else x[:, :queries]
        if self.placement == "post":
            x = layer(self.norm1, kept + layer(self.drop_path, self.scale1(layer(self.mixer, x))))
            if self.feedforward is not None:
                x = layer(self.norm2, x + layer(self.drop_path, self.scale2(layer(self.feedforward, x))))
            return x
        peri = self.placement == "peri"  # elsewhere these norms are none, and asking each what it takes costs
        branch = layer(self.mixer, layer(self.norm1, x))
        branch = layer(self.output_norm1, branch) if peri else branch
        x = kept + layer(self.drop_path, self.scale1(branch))
        if self.feedforward is not None:
            # Under one name, so that the first branch is not held while the second is computed.
            branch = layer(self.norm2, x)
            branch = layer(self.feedforward, branch)
            branch = layer(self.output_norm2, branch) if peri else branch
            x = x + layer(self.drop_path, self.scale2(branch))
        return x
