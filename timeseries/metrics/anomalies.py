"""Metrics of anomaly detection: of flags at points, and of scores over all thresholds and buffers around anomalies.

Scores and labels are arrays over the rows of one series, without gaps.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

NO_SEASON = 100  # rows of the largest buffer of VUS where the data have no season
THRESHOLDS = 250  # at which curves are read, as in the paper's own code


def point_scores(flags: Bool[np.ndarray, " rows"], labels: Bool[np.ndarray, " rows"]) -> dict[str, float]:
    """Precision, recall and F1 of flags, row by row; 0 where nothing is flagged, NaN where nothing is anomalous."""
    right, flagged, anomalous = int((flags & labels).sum()), int(flags.sum()), int(labels.sum())
    if not anomalous:
        return dict.fromkeys(("precision", "recall", "f1"), float("nan"))
    return {
        "precision": right / flagged if flagged else 0.0,
        "recall": right / anomalous,
        "f1": 2 * right / (flagged + anomalous),
    }


def point_adjusted(flags: Bool[np.ndarray, " rows"], labels: Bool[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Flags after point adjustment: one flag within an anomaly counts as all of it.

    The F1 of these is what many papers report, and random scores reach a high one: "Towards a Rigorous Evaluation of
    Time-series Anomaly Detection", arXiv 2109.05257.
    """
    adjusted = flags.copy()
    for begin, end in stretches(labels):
        adjusted[begin : end + 1] |= flags[begin : end + 1].any()
    return adjusted


def stretches(flags: Bool[np.ndarray, " rows"]) -> list[tuple[int, int]]:
    """First and last row of each unbroken stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(begin), int(end) - 1) for begin, end in edges.reshape(-1, 2)]


def largest_buffer(labels: Bool[np.ndarray, " rows"], period: int) -> int:
    """Rows of the largest buffer that tells anything: a season, but no more than anomalies are long in the mean.

    A buffer that outweighs what it surrounds lets scores that know nothing touch it, and be right.
    """
    lengths = [end + 1 - begin for begin, end in stretches(labels)]
    season = period if period > 1 else NO_SEASON
    return min(season, round(sum(lengths) / len(lengths))) if lengths else season


def volume_under_surface(
    scores: Float[np.ndarray, " rows"], labels: Bool[np.ndarray, " rows"], buffer: int, thresholds: int = THRESHOLDS
) -> tuple[float, float]:
    """VUS-ROC and VUS-PR: the areas under both curves, averaged over buffers of 0 to `buffer` rows around anomalies.

    With a buffer of l rows a label falls off as sqrt(1 - d / l) at d <= l // 2 rows from an anomaly, but counts there
    only where it was flagged. With soft labels y, flags f at a threshold and P anomalous rows, TP = Σ y f,
    recall = TP / (P + (TP - TP_0) / 2) with TP_0 that without buffer, and the curves take recall times the share of
    the (buffered) anomalies that were touched at all. Precision is TP / Σ f, the false positive rate
    (Σ f - TP) / (rows - (P + (TP - TP_0) / 2)).
    Paper: Paparrizos et al., "Volume Under the Surface: A New Accuracy Evaluation Measure for Time-Series Anomaly
    Detection", PVLDB 15(11), 2022.

    Returns NaN for both where nothing, or everything, is anomalous.
    """
    anomalies, rows, positives = stretches(labels), len(scores), int(labels.sum())
    if not anomalies or positives == rows:
        return float("nan"), float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    chosen = ranked[np.linspace(0, rows - 1, thresholds).astype(int)]
    flagged = np.searchsorted(-ranked, -chosen, side="right")  # rows with at least the score of the threshold
    certain = np.cumsum(labels[order])[flagged - 1].astype(np.float64)
    areas = []
    for length in range(buffer + 1):
        soft = _buffered(labels, anomalies, length)
        right = np.cumsum(soft[order])[flagged - 1]
        highest = np.array([scores[begin : end + 1].max() for begin, end in _merged(anomalies, length // 2, rows)])
        touched = (highest[None] >= chosen[:, None]).mean(1)
        expected = positives + (right - certain) / 2
        recall = np.minimum(right / expected, 1.0) * touched
        false_rate = (flagged - right) / (rows - expected)
        precision = right / flagged
        x, y = np.concatenate([[0.0], false_rate, [1.0]]), np.concatenate([[0.0], recall, [1.0]])
        receiver = float(np.dot(np.diff(x), (y[1:] + y[:-1]) / 2))
        areas.append((receiver, float(np.dot(np.diff(y[:-1]), precision))))
    roc, pr = np.mean(areas, axis=0)
    return float(roc), float(pr)


def _buffered(labels: np.ndarray, anomalies: Sequence[tuple[int, int]], length: int) -> np.ndarray:
    """Labels that fall off around each anomaly; where two buffers meet they add up, to 1 at most."""
    soft, half = labels.astype(np.float64), length // 2
    if not half:
        return soft
    fall = np.sqrt(1 - np.arange(1, half + 1) / length)
    for begin, end in anomalies:
        after = soft[end + 1 : end + 1 + half]
        after += fall[: len(after)]
        before = soft[max(begin - half, 0) : begin]
        before += fall[: len(before)][::-1]
    return np.minimum(soft, 1.0)


def _merged(anomalies: Sequence[tuple[int, int]], half: int, rows: int) -> list[tuple[int, int]]:
    """The anomalies with their buffers, those that touch as one."""
    merged: list[tuple[int, int]] = []
    for begin, end in anomalies:
        begin, end = max(begin - half, 0), min(end + half, rows - 1)
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    return merged
