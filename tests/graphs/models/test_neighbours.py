"""Nearest and farthest points of packed clouds, beside loops over points."""

import pytest
import torch
from torch import Tensor

from quintet.graphs.models import neighbours
from quintet.graphs.models.neighbours import farthest, nearest, padded

SIZES = (9, 1, 5, 2)
PTR = torch.tensor([0, 9, 10, 15, 17])


def clouds(seed: int = 0) -> Tensor:
    return torch.randn(sum(SIZES), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def square(point: Tensor, other: Tensor) -> float:
    return sum((a - b) ** 2 for a, b in zip(point.tolist(), other.tolist()))


def by_hand(points: Tensor, queries: Tensor, start: int, end: int, count: int) -> list[list[int]]:
    return [sorted(range(start, end), key=lambda j: square(query, points[j]))[:count] for query in queries]


@pytest.mark.parametrize("budget", [1 << 22, 1])
def test_nearest_are_those_of_a_loop(monkeypatch, budget):
    monkeypatch.setattr(neighbours, "DISTANCES", budget)
    points, found = clouds(), nearest(clouds(), PTR, 4)
    assert found.index.shape == (17, 4)
    for start, end in zip(PTR.tolist(), PTR[1:].tolist()):
        expected = by_hand(points, points[start:end], start, end, 4)
        for row, near in enumerate(expected, start):
            assert found.index[row][found.real[row]].tolist() == near
            assert found.real[row].sum() == min(4, end - start)
            assert near[0] == row
    assert not found.index[~found.real].any()


def test_queries_ask_their_own_cloud_only():
    points, queries = clouds(), clouds(1)[:6]
    borders = torch.tensor([0, 2, 3, 6, 6])
    found = nearest(points, PTR, 3, queries, borders)
    for number in range(4):
        asked, start, end = slice(borders[number], borders[number + 1]), int(PTR[number]), int(PTR[number + 1])
        for row, near in enumerate(by_hand(points, queries[asked], start, end, 3), int(borders[number])):
            assert found.index[row][found.real[row]].tolist() == near


def test_far_from_the_origin_the_nearest_stay():
    points = clouds().float()
    moved = (points.mul(1024).round() / 1024) + 4096  # exact, but for the product of matrices
    assert torch.equal(nearest(moved, PTR, 5).index, nearest(moved - 4096, PTR, 5).index)


@pytest.mark.parametrize("every", [1, 2, 4, 20])
def test_farthest_are_those_of_a_loop(every):
    points, sample = clouds(), farthest(clouds(), PTR, every)
    for number, (start, end) in enumerate(zip(PTR.tolist(), PTR[1:].tolist())):
        cloud = points[start:end]
        centre = cloud.mean(0)
        chosen = [max(range(len(cloud)), key=lambda i: square(cloud[i], centre))]
        while len(chosen) < -(-len(cloud) // every):
            left = [i for i in range(len(cloud)) if i not in chosen]
            chosen.append(max(left, key=lambda i: min(square(cloud[i], cloud[j]) for j in chosen)))
        part = sample.index[sample.ptr[number] : sample.ptr[number + 1]]
        assert (part - start).tolist() == chosen


def test_points_that_coincide_are_kept_once_each():
    sample = farthest(torch.zeros(5, 3), torch.tensor([0, 5]), 1)
    assert sorted(sample.index.tolist()) == [0, 1, 2, 3, 4]


def test_padding_and_back():
    values, mask = padded(clouds(), PTR)
    assert values.shape == (4, 9, 3)
    assert mask.sum(1).tolist() == list(SIZES)
    assert torch.equal(values[mask], clouds())
    assert not values[~mask].any()
