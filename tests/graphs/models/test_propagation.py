"""Propagated labels beside a loop over a dense matrix."""

import torch

from quintet.graphs.models.propagation import propagated

PATH = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])


def spread(known: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
    """Y <- 0.9 D^-1/2 A D^-1/2 Y + 0.1 Y_0, fifty times."""
    scale = adjacency.sum(1).clamp(min=1).pow(-0.5)
    step, reached = scale[:, None] * adjacency * scale, known
    for _ in range(50):
        reached = 0.9 * step @ reached + 0.1 * known
    return reached


def labels_of(classes, count):
    rows = torch.full((len(classes), count), float("nan"), dtype=torch.float64)
    for node, label in enumerate(classes):
        if label is not None:
            rows[node] = torch.eye(count, dtype=torch.float64)[label]
    return rows


def test_classes_spread_along_edges_as_in_a_dense_loop():
    labels = labels_of([0, None, None, None, 1], 2)
    adjacency = torch.zeros(5, 5, dtype=torch.float64)
    adjacency[PATH[0], PATH[1]] = adjacency[PATH[1], PATH[0]] = 1
    expected = spread(labels.nan_to_num(), adjacency)
    expected /= expected.sum(1, keepdim=True)
    found = propagated(labels, PATH, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert torch.linalg.norm(found - expected) < 1e-6  # degrees are in float32
    assert found[1].argmax() == 0
    assert found[3].argmax() == 1


def test_where_no_label_reaches_the_shares_of_training_are_the_answer():
    labels = labels_of([0, None, None], 2)
    shares = torch.tensor([0.7, 0.3], dtype=torch.float64)
    found = propagated(labels, torch.tensor([[0], [1]]), shares)
    assert torch.equal(found[2], shares)
    assert found[1].tolist() == [1, 0]


def test_each_of_several_labels_is_weighed_by_who_knows_it():
    gap = float("nan")
    labels = torch.tensor([[1, gap], [gap, gap], [0, 0]], dtype=torch.float64)
    found = propagated(labels, torch.tensor([[0, 1], [1, 2]]), torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert torch.linalg.norm(found[1] - torch.tensor([0.5, 0.0], dtype=torch.float64)) < 1e-6
