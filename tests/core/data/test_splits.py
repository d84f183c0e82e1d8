"""Splits keep groups together, leave every class to train on, and do not move when other classes grow."""

import pytest

from quintet.core.data.splits import check_fractions, stratified_split
from quintet.core.errors import QuintetError


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


@pytest.mark.parametrize(
    ("fraction", "taken"), [(0.12, 10), (0.14, 10), (0.16, 20), (0.24, 20), (0.26, 30), (0.44, 40), (0.46, 50)]
)
def test_shares_of_groups_are_the_nearest(fraction, taken):
    """Ten groups of ten: a part takes as many as bring it nearest to its share."""
    groups = [index // 10 for index in range(100)]
    parts = stratified_split(["a"] * 100, {"val": fraction}, 0, groups)
    assert (len(parts["val"]), len(parts["train"])) == (taken, 100 - taken)


def test_shares_of_single_samples_are_rounded():
    parts = stratified_split(["a"] * 50 + ["b"] * 30, {"val": 0.2, "test": 0.1})
    assert [len(parts[name]) for name in ("train", "val", "test")] == [35 + 21, 10 + 6, 5 + 3]
    assert sum(index < 50 for index in parts["val"]) == 10


def test_every_class_is_in_every_part_and_the_last_sample_stays():
    parts = stratified_split(["a"] * 97 + ["b"] * 3, {"val": 0.1, "test": 0.1})
    assert [sum(index >= 97 for index in parts[name]) for name in ("train", "val", "test")] == [1, 1, 1]
    few = stratified_split(["a", "a"], {"val": 0.5, "test": 0.5}, rest="train")
    assert sorted(few["val"] + few["test"]) == [0, 1]
    assert stratified_split(["a"] * 4, {"test": 1.0})["test"] == [0, 1, 2, 3]
    assert stratified_split(["a"], {"val": 0.4})["train"] == [0]


@pytest.mark.parametrize(("val", "test", "name"), [(-0.1, 0.0, "val"), (1.1, 0.0, "val"), (0.0, 1.2, "test")])
def test_what_is_no_share(val, test, name):
    with pytest.raises(QuintetError, match=f"data.{name}_fraction is .*; it lies between 0 and 1"):
        check_fractions(val, test)
    check_fractions(1.0, 0.0)
    check_fractions(0.4, 0.6)
