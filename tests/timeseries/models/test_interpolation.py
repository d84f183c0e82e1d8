"""Straight lines and last values, against pandas."""

import numpy as np
import pandas as pd
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintet.timeseries.models import last_value, linear_interpolation


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 99))
def test_as_pandas_fills(flags, seed):
    observed = torch.tensor(flags)[None, :, None]
    values = torch.randn(1, len(flags), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    column = pd.Series(np.where(flags, values[0, :, 0].numpy(), np.nan))
    lines = column.interpolate(limit_direction="both").fillna(0.0).to_numpy()
    last = column.ffill().bfill().fillna(0.0).to_numpy()
    spoiled = values.masked_fill(~observed, torch.nan)
    assert np.allclose(linear_interpolation(spoiled, observed)[0, :, 0], lines, rtol=1e-12, atol=1e-12)
    assert np.array_equal(last_value(spoiled, observed)[0, :, 0], last)


def test_what_was_observed_stays_to_the_bit():
    values = torch.randn(2, 20, 3)
    observed = torch.rand(2, 20, 3) > 0.5
    assert torch.equal(linear_interpolation(values, observed)[observed], values[observed])
