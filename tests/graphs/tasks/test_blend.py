"""Shares of several methods: the best of all mixtures, none negative."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from quintet.graphs.tasks.blend import best_shares


def by_search(estimates, truth):
    """The same by a general solver."""
    known = np.isfinite(truth)

    def error(shares):
        return np.mean((shares @ estimates[:, known] - truth[known]) ** 2)

    count = len(estimates)
    whole = {"type": "eq", "fun": lambda shares: shares.sum() - 1}
    found = minimize(error, np.full(count, 1 / count), bounds=[(0, 1)] * count, constraints=[whole], tol=1e-14)
    return found.x, error(found.x)


@pytest.mark.parametrize("seed", range(4))
def test_no_mixture_is_better(seed):
    draw = torch.Generator().manual_seed(seed)
    truth = torch.randn(50, generator=draw)
    noise = torch.tensor([0.3, 0.5, 2.0, 0.4])[:, None] * torch.randn(4, 50, generator=draw)
    estimates = truth + noise + 0.2 * torch.randn(50, generator=draw)
    truth[::7] = torch.nan
    shares = best_shares(estimates, truth)
    expected, error = by_search(estimates.double().numpy(), truth.double().numpy())
    assert shares.min() >= 0
    assert float(shares.sum()) == pytest.approx(1)
    known = truth.isfinite()
    own = float(((shares @ estimates.double() - truth)[known] ** 2).mean())
    assert own <= error * (1 + 1e-6)
    assert shares.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def test_methods_that_agree_share_and_one_that_is_right_takes_all():
    truth = torch.tensor([1.0, -2.0, 3.0])
    wrong = truth + torch.tensor([1.0, -1.0, 1.0])
    assert best_shares(torch.stack([wrong, truth, wrong]), truth).tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    twins = best_shares(torch.stack([wrong, wrong]), truth)
    assert float(twins.sum()) == pytest.approx(1)
