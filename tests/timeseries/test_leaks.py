"""Nothing after a cutoff reaches a forecast: of every registered forecaster, with every covariate it takes."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from quintet.core.errors import QuintetError
from quintet.core.weights.networks import accepts, build_network
from quintet.core.weights.registry import list_models
from quintet.timeseries import Forecaster, SeriesData
from quintet.timeseries.tasks import backtest

CONTEXT, HORIZON, ROWS, CUTOFF = 24, 6, 240, 210  # the training rows end at 144
SIZES = {"dim": 32, "depth": 1, "num_heads": 2, "hidden_dim": 32}
CALENDAR = {"timeseries/itransformer": ["hour"], "timeseries/informer": ["hour", "weekday"]}
ROLES = {"past": "b", "future": "c", "static": "store"}


def network_of(name: str) -> nn.Module | None:
    """A small network without numbers; None of what does not forecast."""
    try:
        with torch.device("meta"):
            sizes = {"context": CONTEXT, "horizon": HORIZON, "outputs": 1}
            return build_network(name, Forecaster.kind, sizes, sizes_of(name))
    except QuintetError:
        return None


def sizes_of(name: str) -> dict[str, int]:
    return {size: value for size, value in SIZES.items() if accepts(name, Forecaster.kind, size)}


FORECASTERS = [name for name in list_models("timeseries/*") if network_of(name) is not None]


def shops(table, spoiled: bool) -> pd.DataFrame:
    """Two shops; spoiled, garbage stands where nobody can know anything at the cutoff."""
    parts = [table(ROWS, 3, seed).assign(store=name, unique_id=name) for seed, name in enumerate("xy")]
    frame = pd.concat(parts, ignore_index=True)
    if spoiled:
        garbage = 1e6 * np.random.default_rng(0).normal(size=(len(frame), 3))
        row = np.arange(len(frame)) % ROWS
        for column, name, known in zip(garbage.T, "abc", (CUTOFF, CUTOFF, CUTOFF + HORIZON)):
            frame[name] = np.where(row < known, frame[name], column)
    return frame


def outcome(name: str, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    task = Forecaster(backbone=name, backbone_arguments=sizes_of(name))
    takes = getattr(network_of(name), "takes", frozenset())
    roles = {role: [column] for role, column in ROLES.items() if role in takes}
    data = SeriesData(frame, CONTEXT, HORIZON, target=["a"], calendar=CALENDAR.get(name), **roles)
    data.setup()
    task.adopt(data.description())
    train = data.datasets["train"].__getitems__(range(100))
    task.ridge.fit([(train.context, train.target)])
    assert (train.covariates is not None) == bool(roles)
    torch.manual_seed(1)
    return task.outcome(backtest.windows_at(data, np.full((2, 1), CUTOFF)).__getitems__([0, 1]))


@pytest.mark.parametrize("name", FORECASTERS)
def test_nothing_after_the_cutoff_reaches_the_forecast(name, table):
    clean, spoiled = (outcome(name, shops(table, spoiled)) for spoiled in (False, True))
    for part in ("context", "model", *backtest.BASELINES):
        assert np.isfinite(clean[part]).all()
        assert np.array_equal(clean[part], spoiled[part]), part
    assert not np.array_equal(clean["truth"], spoiled["truth"])


def test_the_published_models_are_among_them():
    assert {"timeseries/itransformer", "timeseries/patchtst", "timeseries/patchtst_small"} <= set(FORECASTERS)
