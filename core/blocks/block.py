"""One layer of an encoder: a mixer and a feed-forward layer, each on its own residual branch."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

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

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise QuintetError(f"the drop path rate is a probability below 1; got {rate}")
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        if not self.training or self.rate == 0.0:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1.0 - self.rate)
        return x * (keep / (1.0 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


class Block(nn.Module):
    """Two residual branches f, the mixer and then the feed-forward layer, with the norm where `placement` says:

        pre   x + s f(norm(x))             "On Layer Normalization in the Transformer Architecture", arXiv 2002.04745
        post  norm(x + s f(x))             "Attention Is All You Need", arXiv 1706.03762
        peri  x + s norm'(f(norm(x)))      "Peri-LN", arXiv 2502.02732

    where s is layer scale and, in training, drop path. Masked tokens reach no other token; a block does not clear them
    (their residual stays), an `Encoder` does.

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

    def forward(
        self,
        x: Float[Tensor, "batch *grid dim"],
        mask: Bool[Tensor, "batch *grid"] | None = None,
        **mixer_arguments: Any,
    ) -> Float[Tensor, "batch *kept dim"]:
        """`mixer_arguments` go to the mixer as they are, e.g. `bias` to those of the attention family.

        With `queries` among them the block returns so many first tokens only.
        """
        mix = partial(self.mixer, mask=mask, **mixer_arguments)
        return self._arrange(x, mix, mixer_arguments.get("queries"))

    def scan(
        self, x: Float[Tensor, "batch time dim"], state: Any = None
    ) -> tuple[Float[Tensor, "batch time dim"], Any]:
        """`forward` over a stretch of a sequence given the mixer's state before it; also the state after it.

        Raises QuintetError where the mixer carries no state.
        """
        after = []

        def mix(tokens: Tensor) -> Tensor:
            mixed, new_state = self.mixer.scan(tokens, state)
            after.append(new_state)
            return mixed

        return self._arrange(x, mix), after[0]

    def _arrange(self, x: Tensor, mix: Callable[[Tensor], Tensor], queries: int | None = None) -> Tensor:
        kept = x if queries is None else x[:, :queries]
        if self.placement == "post":
            x = self.norm1(kept + self.drop_path(self.scale1(mix(x))))
            if self.feedforward is not None:
                x = self.norm2(x + self.drop_path(self.scale2(self.feedforward(x))))
            return x
        x = kept + self.drop_path(self.scale1(self.output_norm1(mix(self.norm1(x)))))
        if self.feedforward is not None:
            x = x + self.drop_path(self.scale2(self.output_norm2(self.feedforward(self.norm2(x)))))
        return x
