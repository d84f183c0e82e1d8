"""From the scores of rows taken for normal to the threshold above which a row is anomalous."""

from typing import Literal

import numpy as np
from scipy.stats import genpareto

from ...core.errors import QuintetError

Rule = Literal["quantile", "pot"]
FEWEST = 10  # scores above the initial threshold that a tail is fitted to


def threshold_of(scores: np.ndarray, rule: Rule, level: float, risk: float) -> float:
    """The threshold from scores, NaN left out.

    "quantile" takes the quantile at `level`. "pot", peaks over threshold, fits a generalized Pareto distribution to
    what exceeds the quantile t at `level` and takes z with P(score > z) = `risk`:
    z = t + scale / shape ((risk n / n_t)^-shape - 1).
    Paper: Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory", KDD 2017.

    Args:
        scores: of rows that no label was looked at of.
        rule: "quantile" or "pot".
        level: of the quantile.
        risk: the share of normal rows above the threshold that "pot" aims at, below 1 - level.
    """
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        raise QuintetError("no row of the validation part has a score; give a longer data.split.val")
    initial = float(np.quantile(scores, level))
    if rule == "quantile":
        return initial
    excess = scores[scores > initial] - initial
    if len(excess) < FEWEST:
        raise QuintetError(
            f"model.threshold=pot: {len(excess)} of {len(scores)} validation scores exceed the quantile at "
            f"model.level={level}, and a tail takes {FEWEST}; lower model.level, or take model.threshold=quantile"
        )
    shape, _, scale = genpareto.fit(excess, floc=0)
    share = risk * len(scores) / len(excess)
    if abs(shape) < 1e-6:
        return initial - scale * float(np.log(share))
    return initial + scale / shape * (float(share) ** -shape - 1)
