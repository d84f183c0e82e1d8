"""Collections of metrics: none takes over what another counts, whatever the first batch looks like."""

import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from quintet.core.learning.metrics import apart, collection


def accuracies():
    return {"first": MulticlassAccuracy(7, average="micro"), "five": MulticlassAccuracy(7, top_k=5, average="micro")}


def measured(metrics):
    """Four images that are right, which accuracy and top-5 accuracy cannot be told apart by, and four second guesses.

    Half of the first guesses are right, all of the first five.
    """
    scores, labels = torch.eye(7)[:4], torch.arange(4)
    metrics.update(scores, labels)
    metrics.update(scores + 2 * torch.eye(7)[[4, 4, 4, 4]], labels)
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("make", [collection, lambda metrics: apart(MetricCollection(metrics))])
def test_a_first_batch_that_cannot_tell_metrics_apart_merges_none(make):
    metrics = make(accuracies())
    for _ in range(2):
        metrics.reset()
        assert measured(metrics) == {"first": 0.5, "five": 1.0}


def test_metrics_that_are_said_to_do_the_same_share_a_state():
    metrics = collection({name: MulticlassConfusionMatrix(3) for name in "ab"}, shared=[["a", "b"]])
    for made in (metrics, apart(metrics), apart(metrics).clone(prefix="test/")):
        made.update(torch.tensor([0, 1]), torch.tensor([0, 2]))
        assert made.compute_groups == {0: ["a", "b"]}
        assert all(value.sum() == 2 for value in made.compute().values())
        metrics.reset()


def test_names_before_and_after_stay():
    assert list(apart(MetricCollection(accuracies(), prefix="val/", postfix="_x"))) == ["val/first_x", "val/five_x"]
