"""The contract of what leaves fewer tokens between the blocks of an encoder."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn


class Reduction(nn.Module):
    """Maps the tokens of a sequence to fewer of the same width: merged, pooled or pruned.

    A subclass is constructible as `SomeReduction(dim)` and stands in `Encoder(..., reductions={3: SomeReduction})`
    after block 3. Besides the tokens it says what changes of what is given: the mask, and whatever else counts on the
    tokens and is given, such as a bias.
    """

    takes: frozenset[str] = frozenset({"mask"})

    def forward(
        self, x: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> tuple[Float[Tensor, "batch fewer dim"], dict[str, Any]]:
        """The tokens that are left, and {"mask": which of them are real, None where all are}."""
        raise NotImplementedError
