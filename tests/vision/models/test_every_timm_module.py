"""One small model of every module of timm: built, trained for a step, and its maps where timm gives any.

timm_modules.csv says which model, with which arguments it is small, and why one gives no maps or does not learn: the
words of an error, or nothing where all is well.
"""

import csv
import json
from pathlib import Path

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.optim.parameter_groups import parameter_groups
from quintet.core.weights.network import said
from quintet.core.weights.networks import build_network
from quintet.vision.backbones import IMAGES
from quintet.vision.models.timm_maps import TimmMaps

pytestmark = pytest.mark.slow

with (Path(__file__).parent / "timm_modules.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))


def test_every_module_is_in_the_list():
    # Modules of the oldest timm allowed; a newer one may have more.
    from timm.models._registry import _module_to_models

    assert {row["module"] for row in ROWS} <= set(_module_to_models)
    missing = set(_module_to_models) - {row["module"] for row in ROWS} - {"timm_models"}
    assert not missing, f"add a small model of each to timm_modules.csv: {sorted(missing)}"


def step(row, size):
    """A classifier after one step of training, with layers that learn at rates of their own."""
    name, arguments = f"timm:{row['model']}", json.loads(row["arguments"])
    network = build_network(name, IMAGES, {"num_classes": 3, "in_channels": 3}, arguments).train()
    groups = parameter_groups(network, 1e-3, 0.05, said(network, "layer_groups")(), 0.8)
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    side = size or network.pretrained_cfg["input_size"][1]
    logits = network(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    optimizer.step()
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    stated = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    assert not [name for name, p in network.named_parameters() if name in stated and id(p) in decayed]
    return network


@pytest.mark.parametrize("row", ROWS, ids=[row["module"] for row in ROWS])
def test_it_learns(row):
    torch.manual_seed(0)
    size = int(row["side"] or 0)
    if row["why it does not learn"]:
        with pytest.raises(Exception, match=row["why it does not learn"]):
            step(row, size)
        return
    network = step(row, size)
    assert network.head_keys or row["head"] == "unknown"
    assert all(parameter.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("row", ROWS, ids=[row["module"] for row in ROWS])
def test_it_gives_maps(row):
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 96)
    if row["why it gives no maps"]:
        with pytest.raises(QuintetError, match=row["why it gives no maps"]):
            TimmMaps(row["model"], 3, json.loads(row["arguments"])).feature_maps(images)
        return
    maps = TimmMaps(row["model"], 3, json.loads(row["arguments"]))
    found = maps.feature_maps(images)
    for x, (channels, stride) in zip(found, maps.feature_info, strict=True):
        assert x.shape == (1, channels, -(-64 // stride), -(-96 // stride))
    sum(x.square().mean() for x in found).backward()
    names = {name for name, _ in maps.named_parameters()}
    assert maps.no_weight_decay() <= names
