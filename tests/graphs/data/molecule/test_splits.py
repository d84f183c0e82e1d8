"""Parts are complete and disjoint, and never tear apart what belongs together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintet.core.errors import QuintetError
from quintet.graphs.data.molecule import splits

SHARES = {"val": 0.1, "test": 0.1}
KEYS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60)
SPLITS = {
    "random": lambda keys: splits.random_split(keys, SHARES, 0),
    "scaffold": lambda keys: splits.scaffold_split(keys, SHARES),
    "stratified": lambda keys: splits.grouped_split([0] * len(keys), keys, SHARES, 0),
    "folds": lambda keys: splits.fold_split(splits.by_size(keys), 1, 4),
}


@pytest.mark.parametrize("name", SPLITS)
@given(keys=KEYS)
def test_every_row_is_in_one_part_with_all_of_its_key(name, keys):
    parts = SPLITS[name](keys)
    assert sorted(row for rows in parts.values() for row in rows) == list(range(len(keys)))
    part_of = {row: part for part, rows in parts.items() for row in rows}
    assert len({(keys[row], part) for row, part in part_of.items()}) == len(set(keys))


@pytest.mark.parametrize(("rows", "sizes"), [(1017, (813, 101, 103)), (1128, (902, 112, 114)), (10, (8, 1, 1))])
def test_without_duplicates_a_random_split_is_a_permutation_of_the_rows(rows, sizes):
    parts = splits.random_split(range(rows), SHARES, 0)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).tolist()
    train, val, _ = sizes
    expected = order[:train], order[train : train + val], order[train + val :]
    assert tuple(map(len, parts.values())) == sizes
    assert [set(rows) for rows in parts.values()] == [set(rows) for rows in expected]


def test_frequent_scaffolds_are_trained_on():
    parts = splits.scaffold_split([*"cbbaaaaaa", "a"], {"val": 0.2, "test": 0.1})
    assert parts == {"train": [3, 4, 5, 6, 7, 8, 9], "val": [1, 2], "test": [0]}
    assert splits.scaffold_split("aaab", {"val": 0.25, "test": 0.25})["train"] == [0, 1, 2]


def test_the_latest_rows_are_the_test():
    assert splits.time_split([3, 1, 2, 5, 4], {"val": 0.2, "test": 0.2}) == {
        "train": [0, 1, 2],
        "val": [4],
        "test": [3],
    }


def test_a_column_of_parts_is_taken_as_it_is():
    words = ["train", "Test", "valid", "train"]
    parts = splits.given_split(words, ["a", "a", "b", "c"], SHARES, 0)
    assert parts == {"train": [0, 3], "val": [2], "test": [1]}
    parts = splits.given_split(["train"] * 10 + ["test"], range(11), {"val": 0.2, "test": 0.1}, 0)
    assert len(parts["val"]) == 2
    assert parts["test"] == [10]
    assert len(parts["train"]) == 8


def test_each_row_is_tested_in_one_fold():
    units = splits.by_size(list("aaabbcdefgh"))
    rounds = [splits.fold_split(units, fold, 3) for fold in range(3)]
    assert sorted(row for parts in rounds for row in parts["test"]) == list(range(11))
    assert all(rounds[fold]["val"] == rounds[(fold + 1) % 3]["test"] for fold in range(3))


def test_chains_of_ties_are_one():
    found = splits.together(["a", "a", "b", "c"], [1, 2, 2, 3])
    assert found[0] == found[1] == found[2] != found[3]


@pytest.mark.parametrize(
    ("text", "scaffold"),
    [("CCO", ""), ("Cc1ccccc1CC", "c1ccccc1"), ("O=C(c1ccccc1)N1CCCC1", "O=C(c1ccccc1)N1CCCC1")],
)
def test_scaffolds_are_rings_and_what_links_them(text, scaffold):
    assert splits.scaffold_of(text) == scaffold


@pytest.mark.parametrize("given", [(0, None, None), (None, 5, None), (5, 5, None), (0, 2, None), (0, 5, "time")])
def test_folds_that_do_not_go_together(given):
    with pytest.raises(QuintetError, match="fold"):
        splits.check_folds(*given)
