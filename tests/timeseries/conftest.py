"""Small tables in time, made for a test."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pytest

from quintet.core.attention import Attention, LinearAttention, NeighborhoodAttention
from quintet.core.convolution import LongConvolution
from quintet.core.ssm import Mamba, MinGRU


def waves(rows: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Seasons of 24 steps with seeded noise, of different sizes: (rows, channels)."""
    noise = np.random.default_rng(seed).normal(size=(rows, channels))
    time = np.arange(rows)[:, None]
    return (10 + np.sin(2 * np.pi * (time + 3 * np.arange(channels)) / 24) + 0.1 * noise) * 10.0 ** np.arange(channels)


def household(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """A kettle of 2 kW for 4 minutes now and then, a fridge of 80 W in cycles, and everything else."""
    draw = np.random.default_rng(seed)
    time = np.arange(rows)
    fridge = 80.0 * (time % 20 < 8)
    kettle = np.zeros(rows)
    for start in range(int(draw.integers(5, 15)), rows, 37):
        kettle[start : start + 4] = 2000.0
    load = 100 + draw.normal(0, 5, rows) + fridge + kettle
    stamps = pd.date_range("2024-01-01", periods=rows, freq="min")
    return pd.DataFrame({"date": stamps, "kettle": kettle, "aggregate": load, "fridge": fridge})


@pytest.fixture
def table():
    """Function to a wide table of hourly waves with the columns date, a, b, ..."""

    def make(rows: int = 240, channels: int = 2, seed: int = 0, start: str = "2024-01-01", frequency: str = "h"):
        columns = dict(zip("abcdefg", waves(rows, channels, seed).T))
        return pd.DataFrame({"date": pd.date_range(start, periods=rows, freq=frequency), **columns})

    return make


@pytest.fixture
def csv(tmp_path, table):
    """Function that writes such a table as CSV, after `change(table)`, and returns its path."""

    def write(change=None, name: str = "series.csv", **arguments):
        frame = table(**arguments)
        frame = frame if change is None else change(frame)
        path = tmp_path / name
        frame.to_csv(path, index=False)
        return path

    return write


@pytest.fixture(scope="session")
def house():
    """Function to the loads of a household by the minute: date, kettle, aggregate, fridge."""
    return household


@contextmanager
def inside(folder) -> Iterator[None]:
    """While it lasts, commands run in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["quintet"])
        yield


@pytest.fixture(scope="session")
def working_in():
    """`inside`, for the fixtures of other files."""
    return inside


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a table, `all.csv`, its first 300 rows, `train.csv`, and a run trained on them, `run`."""
    from quintet.cli import main

    folder = tmp_path_factory.mktemp("forecasts")
    frame = pd.DataFrame(dict(zip("ab", waves(400).T)))
    frame.insert(0, "date", pd.date_range("2024-01-01", periods=400, freq="h"))
    frame.to_csv(folder / "all.csv", index=False)
    frame[:300].to_csv(folder / "train.csv", index=False)
    options = ["data.path=train.csv", "data.context=24", "data.horizon=6", "run_dir=run", "trainer.max_epochs=2"]
    options += ["trainer.enable_progress_bar=false", "trainer=cpu", "model.quantiles=[0.1,0.5,0.9]", "model.lr=5e-3"]
    options += ["model.backbone_arguments={dim:16,depth:1,num_heads:2}"]
    with inside(folder):
        assert main(["fit", "experiment=timeseries/series", *options]) == 0
    return folder


@pytest.fixture
def run(trained):
    """The folder of `trained`, in which the test runs; tests read it and add to it, but change nothing."""
    with inside(trained):
        yield trained


@pytest.fixture(scope="session")
def loaded(trained):
    """The trained task, a trainer, and a function from the name of a file to the data its commands take."""
    import lightning as L

    from quintet.core.learning.task import load_task
    from quintet.timeseries import SeriesData

    task = load_task(trained / "run" / "checkpoints" / "best.ckpt")

    def read(name: str) -> SeriesData:
        data = SeriesData(trained / name)
        data.adopt(task.description)
        return data

    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    return task, L.Trainer(accelerator="cpu", **quiet), read


# One of each kind; benchmarks/mixers_in_domains.py takes every registered one through every model.
KINDS = {
    "dense": Attention,
    "local": partial(NeighborhoodAttention, rank=1),
    "linear": LinearAttention,
    "recurrent": MinGRU,
    "state space": Mamba,
    "convolution": LongConvolution,
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def mixer(request):
    """A factory of mixers that take sequences."""
    return request.param
