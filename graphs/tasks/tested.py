"""What a test saw, for pictures and for a verdict: predictions and baselines beside the truth, graph by graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

RESAMPLES, MOST = 200, 2000  # draws of the test graphs, and graphs of one draw at most


@dataclass
class Tested:
    """All graphs of a test: rows (G,), predictions and baselines (G, K), targets as the task has them."""

    parts: list[dict[str, Tensor]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)

    def add(self, rows: Tensor, predictions: Tensor, targets: Tensor, estimates: Mapping[str, Tensor]) -> None:
        """Takes a batch."""
        self.methods = list(estimates)
        told = {"": predictions, "row": rows, "target": targets} | {
            f"of {name}": one for name, one in estimates.items()
        }
        self.parts.append({name: value.detach().cpu() for name, value in told.items()})

    def __bool__(self) -> bool:
        return bool(self.parts)

    def _all(self, name: str) -> Tensor:
        return torch.cat([part[name] for part in self.parts])

    @property
    def last(self) -> Tensor:
        """The predictions of the last batch."""
        return self.parts[-1][""]

    @property
    def rows(self) -> Tensor:
        return self._all("row")

    @property
    def predictions(self) -> Tensor:
        return self._all("")

    @property
    def targets(self) -> Tensor:
        return self._all("target")

    def of(self, method: str) -> Tensor:
        """What a baseline, or the network beside a blend, predicted."""
        return self._all(f"of {method}")


@dataclass
class Comparison:
    """The network beside the baselines by one measure, and how sure the difference to one of them is.

    Args:
        measure: its name.
        scores: of each method on the test graphs.
        against: the baseline that is named.
        low: of the difference between network and baseline in favour of the network, the lower end of the middle 95 %
            of draws of the test graphs.
        high: the upper end.
    """

    measure: str
    scores: dict[str, float]
    model: str
    against: str
    low: float
    high: float
    smaller_is_better: bool

    @property
    def sentence(self) -> str:
        """Whether the network beats the baseline, in plain words."""
        own, other = self.scores[self.model], self.scores[self.against]
        gain = other - own if self.smaller_is_better else own - other
        beats = "beats" if gain > 0 else "does not beat"
        sure = self.low > 0 or self.high < 0
        chance = "" if sure else "; the difference may be chance of which graphs were tested"
        return (
            f"the network alone {beats} {self.against}: {self.measure} {own:.3f} against {other:.3f} "
            f"(better by {gain:+.3f}, 95 % interval {self.low:+.3f} to {self.high:+.3f}{chance})"
        )


def compare(
    tested: Tested,
    network: str | None,
    against: str,
    measure: str,
    score: Callable[[Tensor, Tensor], float],
    smaller_is_better: bool,
) -> Comparison:
    """The scores of all methods, and the difference between network and baseline over draws with replacement.

    Args:
        tested: the graphs of a test.
        network: what the network alone is called among the methods; None where it is the model.
        against: the baseline to be beaten.
        measure: name of the score.
        score: of predictions and targets.
        smaller_is_better: or larger.
    """
    targets, of = tested.targets, {name: tested.of(name) for name in tested.methods}
    own = "network" if network is None else network
    named = {own: tested.predictions} | of if network is None else {"blend": tested.predictions} | of
    generator, gains = torch.Generator().manual_seed(0), []
    for _ in range(RESAMPLES):
        drawn = torch.randint(len(targets), (min(len(targets), MOST),), generator=generator)
        gain = score(named[against][drawn], targets[drawn]) - score(named[own][drawn], targets[drawn])
        gains.append(gain if smaller_is_better else -gain)
    low, high = torch.tensor(gains, dtype=torch.float64).nanquantile(torch.tensor([0.025, 0.975]).double()).tolist()
    scores = {name: score(values, targets) for name, values in named.items()}
    return Comparison(measure, scores, own, against, low, high, smaller_is_better)
