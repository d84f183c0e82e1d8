"""A block that is run several times with the same weights."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..aside import changed, run
from ..attention.dense.softmax import Attention
from ..errors import QuintetError
from ..mixer import Mixer
from .block import Block
from .encoder import make_block


class Repeated(nn.Module):
    """y = block(block(... block(x))), `times` times: depth without parameters.

    Stands for `Block` in an encoder: `Encoder(dim, 1, block=partial(Repeated, times=12))` shares one block's weights
    over all layers. Paper: "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations", arXiv
    1909.11942, section 3.1; first in "Universal Transformers", arXiv 1807.03819.

    Args:
        dim: width of the tokens.
        mixer: factory `SomeMixer(dim)`.
        times: how often the block is run, at least once.
        block: factory of the block, see `Encoder`.
        options: further arguments of the block.
    """

    def __init__(
        self,
        dim: int,
        mixer: Callable[[int], Mixer] = Attention,
        times: int = 2,
        block: Callable[..., nn.Module] = Block,
        **options: Any,
    ) -> None:
        super().__init__()
        if times < 1:
            raise QuintetError(f"a block is repeated at least once; got times={times}")
        self.times = times
        self.block = make_block(block, dim, mixer, options)
        self.takes = self.block.takes - {"queries"}

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None, **given: Any
    ) -> Any:
        """The tokens after the last time, and with them what the block changed of what is given."""
        now = {**given, "mask": mask}
        changes: dict[str, Any] = {}
        for _ in range(self.times):
            x, own = changed(run(self.block, x, now), {})
            now, changes = {**now, **own}, {**changes, **own}
        return (x, changes) if changes else x

    def extra_repr(self) -> str:
        return f"times={self.times}"
