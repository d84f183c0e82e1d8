"""Weights that are no numbers."""

import math

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.weights.finite import not_finite, refuse_not_finite


def test_masks_may_hold_infinity_but_weights_and_statistics_may_not():
    bad, good = torch.tensor([1.0, math.inf]), torch.ones(2)
    state = {"a.weight": good, "mask": bad, "norm.running_mean": good, "count": torch.ones(1, dtype=torch.long)}
    assert not_finite(state, {"a.weight"}) == []
    refuse_not_finite(state, {"a.weight"})
    assert not_finite(state | {"a.weight": bad, "norm.running_mean": bad}, {"a.weight"}) == [
        "a.weight",
        "norm.running_mean",
    ]
    with pytest.raises(QuintetError, match=r"^1 tensors of these weights hold NaN or infinity \(first: a.weight\)"):
        refuse_not_finite(state | {"a.weight": bad * math.nan}, {"a.weight"})
