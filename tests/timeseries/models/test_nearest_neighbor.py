"""The nearest neighbour gives the published accuracies on the archives, and its own training series back."""

import pytest
import torch

from quintet.timeseries import LabelledSeries
from quintet.timeseries.data.cases import Columns, read_cases
from quintet.timeseries.models import NearestNeighbor


def test_training_series_are_their_own_neighbours():
    series = [torch.randn(length, 2, generator=torch.Generator().manual_seed(length)) for length in (5, 9, 7)]
    model = NearestNeighbor(2, 9, 3)
    model.fit(series, torch.tensor([2, 0, 1]))
    for one, label in zip(series, (2, 0, 1), strict=True):
        padded = torch.cat([one, torch.full((4, 2), torch.nan)])[None]
        mask = torch.arange(len(one) + 4)[None] < len(one)
        assert model(padded, mask).tolist() == [label]


# Error rates of 1-NN with Euclidean distance that the UCR archive publishes: 0.0867, 0.2000 and 0.0447.
@pytest.mark.parametrize(
    ("name", "published"), [("GunPoint", 0.9133), ("ArrowHead", 0.8000), ("ItalyPowerDemand", 0.9553)]
)
def test_published_accuracies(shared_data, name, published):
    found = read_cases(shared_data("ts_ucr_uea") / name, Columns())
    parts = {part: [case for case in found.cases if case.split == part] for part in ("train", "test")}
    classes = sorted({case.label for case in parts["train"]})
    values, labels = (
        {part: [torch.from_numpy(case.values).float() for case in cases] for part, cases in parts.items()},
        {part: torch.tensor([classes.index(case.label) for case in cases]) for part, cases in parts.items()},
    )
    model = NearestNeighbor(1, len(values["train"][0]), len(values["train"]))
    model.fit(values["train"], labels["train"])
    together = torch.stack(values["test"])
    right = model(together, torch.ones(together.shape[:2], dtype=torch.bool)) == labels["test"]
    assert right.float().mean().item() == pytest.approx(published, abs=5e-5)


def test_a_data_module_has_the_same_series(shared_data):
    data = LabelledSeries(shared_data("ts_ucr_uea") / "UnitTest", scale="none")
    data.setup("fit")
    train = data.datasets["train"]
    model = NearestNeighbor(1, 24, len(train))
    model.fit(train.values, torch.tensor(train.labels))
    assert torch.equal(model.series, torch.stack(train.values).flatten(1))
