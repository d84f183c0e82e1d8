"""A second test starts anew, and pictures leave a task as they found it."""

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils._pytree import tree_leaves

from quintet.timeseries import (
    DisaggregationData,
    Disaggregator,
    Forecaster,
    ImputationData,
    Imputer,
    LabelledSeries,
    SeriesClassifier,
    SeriesData,
)

TOKENS = {"dim": 16, "depth": 1, "num_heads": 2}
PATCHES = {"dim": 16, "depth": 1, "patch_size": 4, "stride": 2}


def forecaster(csv, house, folder):
    return Forecaster(backbone_arguments=TOKENS), SeriesData(csv(), 24, 6), "step_errors"


def imputer(csv, house, folder):
    return Imputer(backbone_arguments=TOKENS, block=4), ImputationData(csv(), 24), "gap_errors"


def disaggregator(csv, house, folder):
    return Disaggregator(backbone_arguments=TOKENS), DisaggregationData(house(), length=20), "mean_loads"


def classifier(csv, house, folder):
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draw.normal(size=200), "y": draw.normal(size=200)})
    frame = frame.assign(unique_id=frame.index // 10, step=frame.index % 10, label=frame.index // 10 % 2)
    frame.replace({"label": {0: "cold", 1: "warm"}}).to_csv(folder / "long.csv", index=False)
    task = SeriesClassifier(backbone="patch_classifier", backbone_arguments=PATCHES)
    return task, LabelledSeries(folder / "long.csv"), "confused"


@pytest.mark.parametrize("built", [forecaster, imputer, disaggregator, classifier])
def test_a_second_test_equals_the_first(built, csv, house, tmp_path):
    """What the pictures show is of the last test, not of all; training goes on after them as before."""
    torch.manual_seed(0)
    task, data, shown = built(csv, house, tmp_path)
    data.setup("fit")
    task.adopt(data.description())
    if hasattr(task, "neighbor"):
        task.neighbor.fit(data.datasets["train"].values, torch.tensor(data.datasets["train"].labels))
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet)
    found = []
    trained = {key: value.clone() for key, value in task.network.state_dict().items()}
    for factor in (1, -3, 1):  # another network in between, whose errors must be gone
        task.network.load_state_dict({key: (factor * value).to(value.dtype) for key, value in trained.items()})
        trainer.test(task, datamodule=data, verbose=False)
        found.append([np.array(leaf) for leaf in tree_leaves(getattr(task, shown))])
    assert found[0]
    between = zip(found[0], found[1], strict=True)
    differs = any(not np.array_equal(first, other, equal_nan=first.dtype.kind == "f") for first, other in between)
    assert differs or shown == "confused"  # counts tell by themselves what was counted twice
    for first, last in zip(found[0], found[2], strict=True):
        assert np.array_equal(first, last, equal_nan=first.dtype.kind == "f")
    task.train()
    assert list(task.pictures())
    assert all(module.training for module in task.network.modules())
