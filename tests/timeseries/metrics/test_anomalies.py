"""Metrics of anomalies against hand-counted cases, scikit-learn and the authors' own code."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from quintet.timeseries.metrics.anomalies import point_adjusted, point_scores, stretches, volume_under_surface


def labels(rows: int, *anomalies: tuple[int, int]) -> np.ndarray:
    flags = np.zeros(rows, dtype=bool)
    for begin, end in anomalies:
        flags[begin : end + 1] = True
    return flags


def test_point_scores():
    truth, random = labels(100, (10, 19), (60, 64)), np.random.default_rng(0)
    flags = random.random(100) < 0.3
    assert point_scores(flags, truth)["f1"] == pytest.approx(f1_score(truth, flags))
    assert point_scores(flags & False, truth) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert np.isnan(point_scores(flags, truth & False)["f1"])


def test_point_adjustment_flatters():
    truth = labels(20, (5, 14))
    flags = labels(20, (7, 7))
    assert point_scores(flags, truth)["f1"] == pytest.approx(2 / 11)
    assert point_scores(point_adjusted(flags, truth), truth)["f1"] == 1.0
    assert flags.sum() == 1


def test_stretches():
    assert stretches(labels(9, (0, 1), (4, 4), (7, 8))) == [(0, 1), (4, 4), (7, 8)]
    assert stretches(labels(3)) == []


def test_without_buffer_one_anomaly_has_the_areas_of_its_points():
    truth = labels(200, (90, 109))
    scores = np.random.default_rng(0).normal(size=200) + truth
    roc, pr = volume_under_surface(scores, truth, 0)
    assert pr == pytest.approx(average_precision_score(truth, scores))
    assert roc == pytest.approx(roc_auc_score(truth, scores))


def test_a_buffer_forgives_a_late_score():
    truth, late = labels(300, (100, 119)), labels(300, (121, 140)).astype(float)
    late += np.random.default_rng(0).random(300) / 10
    sharp, soft = volume_under_surface(late, truth, 0)[1], volume_under_surface(late, truth, 40)[1]
    assert sharp < 0.2 < soft


def test_without_anomalies_there_is_no_volume():
    assert np.isnan(volume_under_surface(np.arange(5.0), labels(5), 3)).all()


CASES = [
    (400, 20, [(30, 45), (100, 100), (104, 120), (380, 399)], None),
    (1000, 33, [(0, 10), (500, 520)], 1),
    (300, 0, [(50, 80)], None),
    (900, 60, [(300, 420), (460, 470), (800, 801)], None),
]
# What the authors' package (vus 0.0.6) gives for these cases: VUS-ROC, VUS-PR.
PUBLISHED = [
    (0.9106825620446043, 0.5954256294145321),
    (0.9184320604899844, 0.33913636010847725),
    (0.8718071711236359, 0.5493803711255326),
    (0.9008225749247467, 0.6140981553724713),
]


def case(rows: int, anomalies: list[tuple[int, int]], decimals: int | None) -> tuple[np.ndarray, np.ndarray]:
    truth = labels(rows, *anomalies)
    scores = np.random.default_rng(0).normal(size=rows) + 1.5 * truth
    return (scores if decimals is None else scores.round(decimals)), truth


@pytest.mark.parametrize(("given", "published"), zip(CASES, PUBLISHED, strict=True))
def test_the_authors_numbers(given, published):
    rows, buffer, anomalies, decimals = given
    assert volume_under_surface(*case(rows, anomalies, decimals), buffer) == pytest.approx(published, rel=1e-9)


@pytest.mark.peers
@pytest.mark.parametrize("given", CASES)
def test_the_authors_code(given):
    metricor = pytest.importorskip("vus.utils.metrics").metricor
    rows, buffer, anomalies, decimals = given
    scores, truth = case(rows, anomalies, decimals)
    theirs = metricor().RangeAUC_volume_opt(truth.astype(float), scores, buffer, 250)[-2:]
    assert volume_under_surface(scores, truth, buffer) == pytest.approx(theirs, rel=1e-9)
