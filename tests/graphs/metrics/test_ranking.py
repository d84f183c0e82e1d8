"""Ranks of true pairs, beside ranks counted one by one."""

import math

import pytest
import torch

from quintet.graphs.metrics.ranking import HitsAt, MeanReciprocalRank


def counted(positives: list[float], negatives: list[float]) -> float:
    """The mean of 1 / (1 + those above + half of those equal)."""
    ranks = [1 + sum(n > p for n in negatives) + sum(n == p for n in negatives) / 2 for p in positives]
    return sum(1 / rank for rank in ranks) / len(ranks)


def measured(metric, batches):
    for scores, targets in batches:
        metric.update(torch.tensor(scores, dtype=torch.float64), torch.tensor(targets))
    return metric.compute().item()


def test_mean_reciprocal_rank_over_batches_with_ties():
    batches = [([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0]), ([0.5, 0.7, 0.2], [1, 0, 0])]
    assert measured(MeanReciprocalRank(), batches) == pytest.approx(counted([0.9, 0.5, 0.5], [0.5, 0.1, 0.7, 0.2]))


def test_scores_that_tell_nothing_apart_rank_in_the_middle():
    assert measured(MeanReciprocalRank(), [([0.3] * 11, [1] + [0] * 10)]) == pytest.approx(1 / 6)


def test_hits_are_above_the_kth_best_of_the_others():
    scores, targets = [0.9, 0.5, 0.4, 0.8, 0.5, 0.1], [1, 1, 1, 0, 0, 0]
    assert measured(HitsAt(1), [(scores, targets)]) == pytest.approx(1 / 3)
    assert measured(HitsAt(2), [(scores, targets)]) == pytest.approx(1 / 3)  # equal is not above
    assert measured(HitsAt(3), [(scores, targets)]) == pytest.approx(1)


@pytest.mark.parametrize("metric", [HitsAt(3), MeanReciprocalRank()])
def test_without_others_to_rank_among_nothing_is_claimed(metric):
    assert math.isnan(measured(metric, [([0.9, 0.5], [1, 1])]))


def test_pairs_of_unknown_kind_are_left_out():
    assert measured(MeanReciprocalRank(), [([0.9, 1.0, 0.1], [1, -1, 0])]) == 1
