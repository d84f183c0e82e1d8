"""Splits keep groups together, leave every class to train on, and do not move when other classes grow."""

import pytest

from quintet.core.errors import QuintetError
from quintet.core.splits import check_fractions, stratified_split


def test_groups_stay_together():
    parts = stratified_split(list("aabbaabb"), {"val": 0.25, "test": 0.25}, 0, [1, 1, 2, 2, 3, 3, 4, 4])
    assert sorted(index for part in parts.values() for index in part) == list(range(8))
    assert all(len({index // 2 for index in part}) * 2 == len(part) for part in parts.values())


def test_other_classes_move_nothing():
    few = stratified_split(["a"] * 10, {"val": 0.2})
    more = stratified_split(["a"] * 10 + ["b"] * 5, {"val": 0.2})
    assert few["val"] == [index for index in more["val"] if index < 10]


def test_shares_of_one_whole():
    with pytest.raises(QuintetError, match=r"data.val_fraction 0.7 \+ data.test_fraction 0.5 is more than 1"):
        check_fractions(0.7, 0.5)
