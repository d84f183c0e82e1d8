"""Mixers side by side, on the same tokens."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..aside import changed, knows_borders, run, taken_within
from ..errors import QuintetError
from ..mixer import Mixer


class Parallel(Mixer):
    """y = sum over the branches of branch(x): mixers that read the same tokens, such as local and global ones.

    Each gets what it takes of what is given; what several change of it, the last one says. Paper: "Recipe for a
    General, Powerful, Scalable Graph Transformer", arXiv 2205.12454, equation 6.

    Args:
        dim: width of the tokens.
        mixers: factories `SomeMixer(dim)`, at least one.

    Raises QuintetError without a mixer, and for mixers that have no rank of grid in common.
    """

    def __init__(self, dim: int, mixers: Sequence[Callable[[int], nn.Module]]) -> None:
        super().__init__()
        self.dim = dim
        self.branches = nn.ModuleList(mixer(dim) for mixer in mixers)
        if not self.branches:
            raise QuintetError("Parallel needs a mixer; got none")
        ranks = [getattr(branch, "grid_ranks", Mixer.grid_ranks) for branch in self.branches]
        self.grid_ranks = frozenset.intersection(*ranks)
        if not self.grid_ranks:
            names = " and ".join(type(branch).__name__ for branch in self.branches)
            raise QuintetError(f"{names} take {' and '.join(map(str, map(set, ranks)))} grid axes: none in common")
        for promise in ("causal", "streaming", "padding_invariant", "continuous"):
            setattr(self, promise, all(getattr(branch, promise, getattr(Mixer, promise)) for branch in self.branches))
        taken = [getattr(branch, "takes", frozenset()) for branch in self.branches]
        # Fewer tokens come out where every branch returns fewer.
        fewer = frozenset() if all("queries" in takes for takes in taken) else {"queries"}
        self.takes = taken_within(self) - fewer | {"mask"}

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None, **given: Any
    ) -> Any:
        """The sum, and with it what any branch changes of what is given."""
        self.check_tokens(x, mask)
        return self._add(x, {**given, "mask": mask})

    def forward_packed(
        self, tokens: Float[Tensor, "tokens dim"], cu_seqlens: Int[Tensor, " boundaries"], **given: Any
    ) -> Any:
        if unable := [type(branch).__name__ for branch in self.branches if not knows_borders(branch)]:
            raise QuintetError(
                f"{unable[0]} has no forward_packed and does not take cu_seqlens: it would mix packed sequences"
            )
        result = self._add(tokens.unsqueeze(0), {**given, "cu_seqlens": cu_seqlens})
        return (result[0].squeeze(0), result[1]) if isinstance(result, tuple) else result.squeeze(0)

    def scan(
        self, x: Float[Tensor, "batch time dim"], state: tuple[Any, ...] | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], tuple[Any, ...]]:
        states = [None] * len(self.branches) if state is None else state
        outputs, after = zip(*(branch.scan(x, before) for branch, before in zip(self.branches, states)))
        return sum(outputs), after

    def _add(self, x: Tensor, given: dict[str, Any]) -> Any:
        outputs, changes = [], {}
        for branch in self.branches:
            y, own = changed(run(branch, x, given), {})
            outputs.append(y)
            changes |= own
        total = sum(outputs[1:], outputs[0])
        return (total, changes) if changes else total
