"""What a test saw, for pictures and for a verdict: predictions and baselines beside the truth, sample by sample."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...core.writing.console import Console
from ..pictures.comparison import comparison_bars

RESAMPLES, MOST = 200, 2000  # draws of the test samples, and samples of one draw at most

Score = Callable[[Tensor, Tensor], float]


@dataclass
class Tested:
    """All samples of a test: rows (G,), predictions and baselines (G, K), targets as the task has them.

    Samples are graphs, nodes or pairs of nodes.
    """

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
        scores: of each method on the test samples.
        against: the baseline that is named.
        low: of the difference between network and baseline in favour of the network, the lower end of the middle 95 %
            of draws of the test samples.
        high: the upper end.
        what: the samples are called.
    """

    measure: str
    scores: dict[str, float]
    model: str
    against: str
    low: float
    high: float
    smaller_is_better: bool
    what: str = "graphs"

    @property
    def sentence(self) -> str:
        """Whether the network beats the baseline, in plain words."""
        own, other = self.scores[self.model], self.scores[self.against]
        gain = other - own if self.smaller_is_better else own - other
        beats = "beats" if gain > 0 else "does not beat"
        alone = " alone" if "blend" in self.scores else ""
        sure = self.low > 0 or self.high < 0
        chance = "" if sure else f"; the difference may be chance of which {self.what} were tested"
        return (
            f"the network{alone} {beats} {self.against}: {self.measure} {own:.3f} against {other:.3f} "
            f"({'better' if gain > 0 else 'worse'} by {abs(gain):.3f}, 95 % interval of the difference "
            f"{self.low:+.3f} to {self.high:+.3f}{chance})"
        )

    def bars(self) -> Figure:
        """All methods by this measure, over the sentence."""
        better = "smaller is better" if self.smaller_is_better else "larger is better"
        return comparison_bars(
            self.scores, f"{self.measure} on the test {self.what} ({better})", self.sentence, self.model
        )


def compare(
    tested: Tested,
    network: str | None,
    against: str,
    measure: str,
    score: Score,
    smaller_is_better: bool,
    what: str = "graphs",
    most: int = MOST,
) -> Comparison:
    """The scores of all methods, and the difference between network and baseline over draws with replacement.

    Args:
        tested: the samples of a test.
        network: what the network alone is called among the methods; None where it is the model.
        against: the baseline to be beaten.
        measure: name of the score.
        score: of predictions and targets.
        smaller_is_better: or larger.
        what: the samples are called.
        most: samples of a draw; all of them where a score depends on how many there are.
    """
    targets, of = tested.targets, {name: tested.of(name) for name in tested.methods}
    own = "network" if network is None else network
    named = {own: tested.predictions} | of if network is None else {"blend": tested.predictions} | of
    generator, gains = torch.Generator().manual_seed(0), []
    for _ in range(RESAMPLES):
        drawn = torch.randint(len(targets), (min(len(targets), most),), generator=generator)
        gain = score(named[against][drawn], targets[drawn]) - score(named[own][drawn], targets[drawn])
        gains.append(gain if smaller_is_better else -gain)
    low, high = torch.tensor(gains, dtype=torch.float64).nanquantile(torch.tensor([0.025, 0.975]).double()).tolist()
    scores = {name: score(values, targets) for name, values in named.items()}
    return Comparison(measure, scores, own, against, low, high, smaller_is_better, what)


def against_best(tested: Tested, measures: Mapping[str, Score], what: str, most: int = MOST) -> list[Comparison]:
    """The model beside that baseline which has the largest score, for each of several measures.

    Args:
        tested: the samples of a test.
        measures: scores of predictions and targets by their names; larger is better.
        what: the samples are called.
        most: samples of a draw, see `compare`.
    """
    if not tested or not tested.methods:
        return []
    compared = []
    for measure, score in measures.items():
        best = max(tested.methods, key=lambda method: score(tested.of(method), tested.targets))
        compared.append(compare(tested, None, best, measure, score, smaller_is_better=False, what=what, most=most))
    return compared


def tell(comparisons: Iterable[Comparison]) -> None:
    """Prints the sentence of each."""
    for comparison in comparisons:
        Console(markup=False, soft_wrap=True).print(comparison.sentence, highlight=False)
