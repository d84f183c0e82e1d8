"""Thresholds: quantiles, and a Pareto tail that recovers the quantile of a known distribution."""

import numpy as np
import pytest

from quintet.core.errors import QuintetError
from quintet.timeseries.tasks.thresholds import threshold_of


def test_quantile_leaves_out_what_has_no_score():
    scores = np.concatenate([np.arange(101.0), [np.nan] * 50])
    assert threshold_of(scores, "quantile", 0.9, 1e-3) == 90.0


@pytest.mark.parametrize("draw", ["exponential", "normal", "uniform"])
def test_peaks_over_threshold_reach_beyond_the_sample(draw):
    scores = getattr(np.random.default_rng(0), draw)(size=4000)
    true = np.quantile(getattr(np.random.default_rng(1), draw)(size=2_000_000), 1 - 1e-4)
    assert threshold_of(scores, "pot", 0.95, 1e-4) == pytest.approx(true, rel=0.15)


def test_what_is_refused():
    with pytest.raises(QuintetError, match="no row of the validation part has a score"):
        threshold_of(np.array([np.nan]), "quantile", 0.9, 1e-3)
    with pytest.raises(QuintetError, match=r"1 of 50 validation scores exceed the quantile at model\.level=0\.99"):
        threshold_of(np.arange(50.0), "pot", 0.99, 1e-3)
