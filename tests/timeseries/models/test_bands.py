"""Trends by the textbook's line, differences and back, and bands that grow."""

import numpy as np
import pytest
import torch

from quintet.timeseries.models._bands import difference, has_trend, integrate, last_observed, restore_levels, widen


@pytest.mark.parametrize("noise", [0.01, 0.3, 0.6, 1.0, 3.0])
def test_a_trend_is_what_numpy_fits(noise):
    random = np.random.default_rng(0)
    values = 0.1 * np.arange(40)[None, :, None] + noise * random.normal(size=(3, 40, 2))
    observed = random.random(values.shape) < 0.8
    found = has_trend(torch.tensor(values), torch.tensor(observed))
    for sample in range(3):
        for channel in range(2):
            steps = np.nonzero(observed[sample, :, channel])[0]
            seen = values[sample, steps, channel]
            line = np.polyfit(steps, seen, 1)
            explained = 1 - ((seen - np.polyval(line, steps)) ** 2).sum() / ((seen - seen.mean()) ** 2).sum()
            rise = abs(line[0]) * 40 / seen.std(ddof=1)
            assert found[sample, channel] == (rise >= 1.5 and explained >= 0.87)


def test_a_constant_and_nothing_have_none():
    values = torch.ones(1, 10, 2)
    observed = torch.tensor([True, False]).expand(1, 10, 2)
    assert not has_trend(values, observed).any()


def test_differences_add_up_to_levels():
    torch.manual_seed(0)
    values = torch.randn(2, 12, 3).double()
    changed, known = difference(values, torch.ones_like(values, dtype=torch.bool))
    assert known.all()
    assert torch.allclose(changed.cumsum(1) + values[:, :1], values)
    # Quantiles that are all the true difference restore the truth.
    future = changed[:, 8:].unsqueeze(-1).expand(-1, -1, -1, 3)
    last = last_observed(values[:, :8], torch.ones(2, 8, 3, dtype=torch.bool))
    assert torch.allclose(integrate(future, last), values[:, 8:].unsqueeze(-1).expand_as(future))


def test_the_last_observed_step():
    values = torch.tensor([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]])[None]
    observed = torch.tensor([[True, False], [True, False], [False, False]])[None]
    assert last_observed(values, observed).tolist() == [[2.0, 0.0]]
    _, known = difference(values, observed)
    assert known[0, :, 0].tolist() == [True, True, False]


def test_bands_by_hand():
    forecast = torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]).reshape(1, 2, 1, 3)
    factor = 0.9**0.5 * 2**0.02
    assert torch.allclose(widen(forecast)[0, 1, 0], torch.tensor([-factor, 0.0, factor]))
    factor = 1.68**0.5 * 2**0.5 * 2**0.01
    assert torch.allclose(integrate(forecast, torch.tensor([[10.0]]))[0, 1, 0], 10 + torch.tensor([-factor, 0, factor]))
    both = restore_levels(forecast.expand(-1, -1, 2, -1), torch.zeros(1, 2), torch.tensor([[True, False]]))
    assert torch.equal(both[:, :, 1:], widen(forecast))
