"""Where true pairs of nodes stand among pairs that are none, by their scores."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class RankedPairs(Metric):
    """Keeps the scores of true pairs and of others until they are compared.

    Targets are 1 for a true pair and 0 for one that is none; others are left out.
    """

    full_state_update = False
    positives: list[Tensor]
    negatives: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("positives", [], dist_reduce_fx="cat")
        self.add_state("negatives", [], dist_reduce_fx="cat")

    def update(self, scores: Float[Tensor, " pairs"], targets: Int[Tensor, " pairs"]) -> None:
        """Takes scores, higher for what is more likely a true pair."""
        self.positives.append(scores[targets == 1].detach())
        self.negatives.append(scores[targets == 0].detach())

    def both(self) -> tuple[Tensor, Tensor]:
        """All scores of true pairs and, in rising order, of others."""
        return dim_zero_cat(self.positives), dim_zero_cat(self.negatives).sort().values


class MeanReciprocalRank(RankedPairs):
    """mean over true pairs of 1 / rank among all pairs that are none, from 0 to 1.

    rank = 1 + #(higher) + #(equal) / 2, so that a score that tells nothing apart is worth a place in the middle. NaN
    where one of the kinds is absent. Reference: "Open Graph Benchmark", arXiv 2005.00687.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """The mean."""
        positives, negatives = self.both()
        if not len(positives) or not len(negatives):
            return torch.tensor(float("nan"))
        higher = len(negatives) - torch.searchsorted(negatives, positives, right=True)
        at_least = len(negatives) - torch.searchsorted(negatives, positives)
        return (1 / (1 + (higher + at_least) / 2)).mean()


class HitsAt(RankedPairs):
    """Share of true pairs that score above the k-th best of those that are none, from 0 to 1.

    NaN with fewer than k of them, among which there is no k-th. Reference: "Open Graph Benchmark", arXiv 2005.00687.

    Args:
        k: at least 1.
    """

    higher_is_better = True

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def compute(self) -> Tensor:
        """The share."""
        positives, negatives = self.both()
        if not len(positives) or len(negatives) < self.k:
            return torch.tensor(float("nan"))
        return (positives > negatives[-self.k]).float().mean()
