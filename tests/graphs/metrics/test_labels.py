"""Measures of yes and no with gaps and ties, against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from quintet.graphs.metrics.labels import MEASURES, label_metrics, of_each_label

THEIRS = {
    "roc_auc": roc_auc_score,
    "average_precision": average_precision_score,
    "f1": lambda truth, scores: f1_score(truth, scores > 0.5),
    "accuracy": lambda truth, scores: accuracy_score(truth, scores > 0.5),
}


@pytest.fixture
def seen():
    """Probabilities, many of them tied, and truths of 60 graphs with three labels, a quarter unknown."""
    draw = torch.Generator().manual_seed(0)
    scores = (torch.rand(60, 3, generator=draw) * 8).round() / 8
    truth = (torch.rand(60, 3, generator=draw) < 0.4).float()
    truth[torch.rand(60, 3, generator=draw) < 0.25] = torch.nan
    return scores, truth


@pytest.mark.parametrize("name", MEASURES)
def test_each_label_is_as_scikit_learn_measures_it(seen, name):
    scores, truth = seen
    known = truth.isfinite()
    expected = [THEIRS[name](truth[known[:, at], at].numpy(), scores[known[:, at], at].numpy()) for at in range(3)]
    found = of_each_label(MEASURES[name], scores, truth)
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    metrics = label_metrics()
    metrics.update(scores[:20], truth[:20])
    metrics.update(scores[20:], truth[20:])
    assert float(metrics.compute()[name]) == pytest.approx(np.mean(expected), abs=1e-6)


def test_one_of_several_classes_against_the_rest(seen):
    scores = seen[0].softmax(1)
    classes = torch.arange(60) % 3
    expected = roc_auc_score(classes.numpy(), scores.numpy(), multi_class="ovr", average=None)
    classes = torch.cat([classes, torch.tensor([-1])])
    found = of_each_label(MEASURES["roc_auc"], torch.cat([scores, torch.tensor([[0.9, 0.1, 0.0]])]), classes)
    assert found.tolist() == pytest.approx(list(expected), abs=1e-6)


def test_a_label_of_one_kind_has_no_area_and_the_mean_leaves_it_out(seen):
    scores, truth = seen
    alone = of_each_label(MEASURES["roc_auc"], scores, truth)[:2].mean()
    truth[:, 2] = 1.0
    metrics = label_metrics()
    metrics.update(scores, truth)
    assert float(metrics.compute()["roc_auc"]) == pytest.approx(float(alone), abs=1e-6)
    assert of_each_label(MEASURES["average_precision"], scores, truth)[2].isnan()
