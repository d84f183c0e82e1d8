"""One prediction of several models: weights that validation data choose, held back where there are few of them."""

from itertools import combinations

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from ...core.errors import QuintetError

MOST = 10  # members: all sets of them are tried
PRIOR = 30.0


def blend_weights(
    predictions: Float[Tensor, "rows members"], targets: Float[Tensor, " rows"], prior: float = PRIOR
) -> Float64[Tensor, " members"]:
    """Weights w >= 0 with sum 1 of least sum (target - predictions w)^2 + prior s |w - 1/members|^2.

    s is the mean squared error of the members, so that `prior` counts rows: with that many rows the data and equal
    weights have about the same say, and without any rows weights are equal. A row whose target is NaN says nothing.
    The minimum is exact: of every set of members the one without bounds is found, and the best that has no negative
    weight is taken. Paper: "Stacked Regressions", Machine Learning 24, 49-64.

    Raises QuintetError for more than 10 members and for predictions that are no numbers.
    """
    members = predictions.shape[1]
    if not 1 <= members <= MOST:
        raise QuintetError(f"{members} models cannot be blended; between 1 and {MOST} can")
    measured = targets.isfinite()
    errors = predictions[measured].double() - targets[measured, None].double()
    if not errors.isfinite().all():
        raise QuintetError("a model that is to be blended predicts what is no number")
    # The weights sum to 1, so the error of the blend is the blend of the errors.
    scale = errors.square().mean().item() if len(errors) else 1.0
    penalty = prior * scale if scale > 0 else 1.0
    products = errors.T @ errors + penalty * torch.eye(members, dtype=torch.float64, device=errors.device)
    linear = errors.new_full((members,), penalty / members)
    best, least = torch.full_like(linear, 1 / members), float("inf")
    for size in range(1, members + 1):
        for chosen in combinations(range(members), size):
            weights = _without_bounds(products, linear, list(chosen))
            loss = (weights @ products @ weights - 2 * linear @ weights).item()
            if (weights >= 0).all() and loss < least:
                best, least = weights, loss
    return best


def _without_bounds(
    products: Float64[Tensor, "members members"], linear: Float64[Tensor, " members"], chosen: list[int]
) -> Float64[Tensor, " members"]:
    """Weights w of some members, of sum 1, at which w' products w - 2 linear w is least; the others have 0."""
    # What is least under a condition solves the system that the condition borders.
    bordered = products.new_ones(len(chosen) + 1, len(chosen) + 1)
    bordered[:-1, :-1], bordered[-1, -1] = products[chosen][:, chosen], 0
    right = torch.cat([linear[chosen], linear.new_ones(1)])
    weights = torch.zeros_like(linear)
    weights[chosen] = (torch.linalg.pinv(bordered, hermitian=True) @ right)[:-1]
    return weights


class Blend(nn.Module):
    """sum_m weights[output, m] predictions[row, output, m]: never outside the range of its members.

    Equal weights until it is fitted.

    Args:
        members: number of models.
        outputs: numbers that each predicts, each with weights of its own.
        prior: rows that equal weights count as, see `blend_weights`.
    """

    def __init__(self, members: int, outputs: int = 1, prior: float = PRIOR) -> None:
        super().__init__()
        self.prior = prior
        self.register_buffer("weights", torch.full((outputs, members), 1 / members, dtype=torch.float64))

    @torch.no_grad()
    def fit(self, predictions: Float[Tensor, "rows outputs members"], targets: Float[Tensor, "rows outputs"]) -> None:
        """Chooses the weights by rows that no member has learned from; NaN targets are left out."""
        for output, weights in enumerate(self.weights):
            weights.copy_(blend_weights(predictions[:, output], targets[:, output], self.prior))

    @torch.no_grad()
    def fit_shared(
        self, predictions: Float[Tensor, "rows outputs members"], targets: Float[Tensor, "rows outputs"]
    ) -> None:
        """The same weights for all outputs, as probabilities of classes need; targets are 1 for the class, else 0.

        What is least is then the Brier score.
        """
        self.weights[:] = blend_weights(predictions.flatten(0, 1), targets.flatten(), self.prior)

    def forward(self, predictions: Float[Tensor, "rows outputs members"]) -> Float[Tensor, "rows outputs"]:
        return (predictions * self.weights.to(predictions.dtype)).sum(-1)
